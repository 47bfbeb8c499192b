"""A conversation as the tokens that the model goes on with: by its own chat template, or in the plain form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError

from cotrain.chat_form import STOP, prompt_text
from cotrain.chat_protocol import ChatRequest, ContextFullError, Message
from cotrain.errors import InvalidRequestError
from cotrain.serve.loading import LoadedModel
from cotrain.train.tokenizer import text_tokens

_FIELD = "messages"


@dataclass(frozen=True)
class Prompt:
    """What the model reads, and how its answer ends."""

    tokens: Sequence[int]
    most_tokens: int
    """Of the answer."""
    stops: tuple[str, ...]
    """Texts that it ends before, besides those of the request."""
    strip_start: bool
    """Whether the answer's white space at the start is the form's and not its own."""


def prompt_of(request: ChatRequest, loaded: LoadedModel) -> Prompt:
    """The prompt of a conversation.

    Raises ContextFullError if it leaves no room for an answer, InvalidRequestError if the model's template refuses it.
    """
    templated = loaded.tokenizer.chat_template is not None
    tokens = conversation_tokens([(_role(message), message.text) for message in request.messages], loaded)
    room = loaded.context_tokens - len(tokens)
    if room < 1:
        raise ContextFullError(
            f"the conversation has {len(tokens)} tokens; with its answer, the model takes {loaded.context_tokens}",
            field=_FIELD, hint="shorten it, or leave out the oldest messages",
        )  # fmt: skip
    return Prompt(
        tokens=tokens, most_tokens=min(request.most_tokens or room, room), stops=() if templated else (STOP,),
        strip_start=not templated,
    )  # fmt: skip


def conversation_tokens(messages: Sequence[tuple[str, str]], loaded: LoadedModel) -> list[int]:
    """Messages (role, text), up to where the next answer begins. Raises InvalidRequestError if the template refuses."""
    templated = loaded.tokenizer.chat_template is not None
    return _by_template(messages, loaded) if templated else _in_plain_form(messages, loaded)


def _by_template(messages: Sequence[tuple[str, str]], loaded: LoadedModel) -> list[int]:
    try:
        text = loaded.tokenizer.apply_chat_template(
            [{"role": role, "content": text} for role, text in messages], tokenize=False, add_generation_prompt=True
        )
    except (TemplateError, TypeError, ValueError) as error:  # templates raise the first themselves
        raise InvalidRequestError(
            f"the model's chat template refuses the conversation: {error}", field=_FIELD,
            hint="many models want the roles user and assistant to take turns",
        ) from error  # fmt: skip
    return list(loaded.tokenizer(text, add_special_tokens=False).input_ids)


def _in_plain_form(messages: Sequence[tuple[str, str]], loaded: LoadedModel) -> list[int]:
    (tokens,) = text_tokens(loaded.tokenizer, [prompt_text(messages)])
    start_id = loaded.tokenizer.bos_token_id
    framed = start_id is not None and loaded.tokenizer("a").input_ids[0] == start_id
    return [start_id, *tokens] if framed else tokens


def _role(message: Message) -> str:
    """`developer` is a newer name of `system`, which templates know."""
    return "system" if message.role == "developer" else message.role
