"""What passes between a client and the process that answers it, and what is remembered of it. Pure."""

from __future__ import annotations

from pydantic import ValidationError

from coordinator.observability import ChatOutcome
from cotrain.chat_protocol import DONE, ChatChunk, ChatCompletion, ChatRequest, StreamOptions, Usage

_DATA = b"data: "
_FIRST_SERVER_ERROR, _FIRST_ERROR, _TOO_MANY = 500, 400, 429


class RelayedAnswer:
    """An answer on its way: its id, its text and its tokens, once it is whole."""

    def __init__(self, wanted: ChatRequest):
        self._wants_usage = wanted.wants_usage
        self._texts: list[str] = []
        self.id = ""
        self.usage: Usage | None = None
        self.whole = False
        """Whether it came to its end."""

    @property
    def text(self) -> str:
        """As far as it has come."""
        return "".join(self._texts)

    def take_completion(self, body: bytes) -> None:
        """One that came in one piece. Raises ValueError for what is none."""
        completion = ChatCompletion.model_validate_json(body)
        self.id, self.usage, self.whole = completion.id, completion.usage, True
        self._texts = [completion.choices[0].message.content]

    def take_line(self, line: bytes) -> bytes:
        """A line of a stream -> what the client is sent for it; empty for nothing, and for the end."""
        if not line.startswith(_DATA):
            return b""
        if line.strip() == DONE.strip():
            self.whole = True
            return b""
        try:
            chunk = ChatChunk.model_validate_json(line[len(_DATA) :])
        except ValidationError:  # an error in the middle
            return line.rstrip() + b"\n\n"
        self.id = chunk.id
        self._texts.extend(choice.delta.content or "" for choice in chunk.choices)
        if chunk.usage is not None:
            self.usage = chunk.usage
            if not self._wants_usage:
                return b""
        return line.rstrip() + b"\n\n"


def relayed(wanted: ChatRequest) -> ChatRequest:
    """A request as the process gets it: of each answer the tokens are counted."""
    told = {"consent": False, "user": None}
    return wanted.model_copy(
        update=told | ({"stream_options": StreamOptions(include_usage=True)} if wanted.stream else {})
    )


def question_of(wanted: ChatRequest) -> str:
    """The last thing that the user said; earlier ones were answered in chats of their own."""
    return next((message.text for message in reversed(wanted.messages) if message.role == "user"), "")


def outcome_of(status: int) -> ChatOutcome:
    """How a chat ended that was answered with this status."""
    if status >= _FIRST_SERVER_ERROR:
        return "failed"
    if status == _TOO_MANY:
        return "busy"
    return "refused" if status >= _FIRST_ERROR else "answered"
