"""Chats on the wire, in OpenAI's form (https://platform.openai.com/docs/api-reference/chat): requests, answers, errors.

The chat service and the coordinator in front of it read and write the same. Fields that are known and have no effect
here may have their neutral value; all others are refused.
"""

from __future__ import annotations

import http
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from cotrain.config import invalid_input
from cotrain.described import DescribedModel
from cotrain.errors import CotrainError

MAX_CHAT_BYTES = 64 * 1024
"""Of a request's body."""
CHAT_PATHS = "/v1/"
"""What their paths begin with."""
DONE = b"data: [DONE]\n\n"
"""The end of a stream."""
_MOST_STOPS = 4
_LARGEST_SEED = 2**63 - 1

Role = Literal["system", "developer", "user", "assistant"]
FinishReason = Literal["stop", "length"]
ModelName = Annotated[str, Field(min_length=1, max_length=200)]
StopText = Annotated[str, Field(min_length=1, max_length=64)]


def _whole(value: Any) -> Any:
    """JSON has one kind of numbers: 5.0 is as whole as 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


MaxTokens = Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(_whole)]
Seed = Annotated[int, Field(ge=-_LARGEST_SEED, le=_LARGEST_SEED), BeforeValidator(_whole)]
Neutral = Annotated[float, Field(ge=0, le=0)]
"""What has no effect here, and is 0."""


class WireModel(DescribedModel):
    """JSON in snake_case, as OpenAI has it; unknown fields and NaN are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())


class TextPart(WireModel):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class Message(WireModel):
    """What somebody said."""

    role: Role
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=64)]
    name: Annotated[str, Field(max_length=64)] | None = None
    """Has no effect."""

    @property
    def text(self) -> str:
        """The content in one piece."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(WireModel):
    """What a stream has besides its pieces."""

    include_usage: bool = False
    """A last chunk without choices says how many tokens there were."""


class ChatRequest(WireModel):
    """A conversation that is to be gone on with."""

    model: ModelName
    """A model's id or name, or the same with a colon and a version behind it."""
    messages: Annotated[list[Message], Field(min_length=1, max_length=256)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_completion_tokens: MaxTokens | None = None
    """Of the answer; as many as the context has room for, if left out."""
    max_tokens: MaxTokens | None = None
    """The older name of the same."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 1.0
    """0: always the likeliest token."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = 1.0
    """Of the likeliest tokens, as many are drawn from as have this probability together."""
    seed: Seed | None = None
    """The same one, from the same version: the same answer."""
    stop: StopText | Annotated[list[StopText], Field(max_length=_MOST_STOPS)] | None = None
    """Texts that the answer ends before."""
    n: Literal[1] | None = 1
    presence_penalty: Neutral | None = 0.0
    frequency_penalty: Neutral | None = 0.0
    logprobs: Literal[False] | None = False
    user: Annotated[str, Field(max_length=128)] | None = None
    """Has no effect, and is not kept."""
    consent: bool = False
    """Not OpenAI's: whether the last question and its answer may be kept, to learn from."""

    @property
    def stops(self) -> tuple[str, ...]:
        """All texts that the answer ends before."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def most_tokens(self) -> int | None:
        """Of the answer; None: as many as fit."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the number of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class Usage(WireModel):
    """How many tokens there were."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Answer(WireModel):
    """What the model said."""

    role: Literal["assistant"] = "assistant"
    content: str


class Choice(WireModel):
    """The one answer."""

    index: Literal[0] = 0
    message: Answer
    logprobs: None = None
    finish_reason: FinishReason
    """`length`: it was cut, by the request or the end of the context."""


class ChatCompletion(WireModel):
    """An answer in one piece."""

    id: str
    """Nobody can guess it: whoever has it can rate the exchange, and delete it."""
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    """Unix time, seconds."""
    model: str
    """With the version that has answered."""
    choices: list[Choice]
    usage: Usage


class Delta(WireModel):
    """A piece of an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(WireModel):
    """A piece of the one answer; the last one says why it ends."""

    index: Literal[0] = 0
    delta: Delta
    logprobs: None = None
    finish_reason: FinishReason | None = None


class ChatChunk(WireModel):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None

    def event(self) -> bytes:
        """As a server-sent event."""
        return b"data: " + self.model_dump_json(exclude_none=True).encode() + b"\n\n"


class ServedModel(WireModel):
    """A model that can be chatted with."""

    id: str
    """As requests name it."""
    object: Literal["model"] = "model"
    created: int
    """Unix time, seconds."""
    owned_by: str


class ServedModels(WireModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ServedModel]


class ErrorFacts(WireModel):
    """What went wrong."""

    message: str
    type: str
    code: str
    """Stable, for scripts."""
    param: str | None
    """Field of the request that it is about."""


class ChatError(WireModel):
    """Every error, in OpenAI's form."""

    error: ErrorFacts


class ContextFullError(CotrainError):
    """The conversation leaves no room for an answer."""

    code = "context_length_exceeded"
    http_status = 400
    exit_code = 2


class BusyError(CotrainError):
    """As many chats are under way, and waiting, as may be."""

    code = "busy"
    http_status = 429
    exit_code = 75


class ChatUnavailableError(CotrainError):
    """The model cannot answer at the moment."""

    code = "model-unavailable"
    http_status = 503
    exit_code = 69


_TYPES = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 409: "conflict_error",
    429: "rate_limit_error",
}  # fmt: skip


def chat_status(status: int) -> int:
    """The status in OpenAI's form: what does not fit its schema is 400 there."""
    return int(http.HTTPStatus.BAD_REQUEST) if status == http.HTTPStatus.UNPROCESSABLE_ENTITY else status


def chat_error(
    status: int, code: str, message: str, *, field: str = "", hint: str = "", problems: Sequence[dict[str, Any]] = ()
) -> ChatError:
    """An error as clients of OpenAI expect it; the hint, and what else is wrong, stand in the message."""
    more = [f"{one.get('field', '')}: {one.get('message', '')}" for one in problems[1:]]
    text = f"{message} ({hint})" if hint else message
    server_error = status >= http.HTTPStatus.INTERNAL_SERVER_ERROR
    kind = "server_error" if server_error else _TYPES.get(status, "invalid_request_error")
    return ChatError(error=ErrorFacts(message="; ".join([text, *more]), type=kind, code=code, param=field or None))


def error_of(error: CotrainError) -> ChatError:
    """An error of ours in that form."""
    return chat_error(
        chat_status(error.http_status), error.code, error.message, field=error.field, hint=error.hint,
        problems=error.details.get("problems", ()),
    )  # fmt: skip


def parse_chat(body: bytes) -> ChatRequest:
    """A request's body; types are not coerced. Raises InvalidRequestError that lists every problem."""
    try:
        return ChatRequest.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise invalid_input(error, ChatRequest) from error
