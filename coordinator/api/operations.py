"""What each route takes and answers, said once beside its handler: the OpenAPI document is made from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HandlerT = TypeVar("HandlerT", bound=Handler)
Who = Literal["anybody", "account", "participant"]

_OPERATION = "__cotrain_operation__"


@dataclass(frozen=True)
class Parameter:
    """A query parameter or a header; all of ours are optional.

    Attributes:
        schema: JSON schema of its value.
    """

    name: str
    schema: Mapping[str, Any]
    description: str
    place: Literal["query", "header"] = "query"


@dataclass(frozen=True)
class Answer:
    """What comes with a status.

    Attributes:
        description: when it is this one.
        model: of a JSON body.
        media: media type of a body that is not JSON, alone or as the other form; with neither, there is no body.
        headers: (name, description) of the headers that matter.
        names: which path parameters of other operations this answer names, and where in its body (JSON pointer).
    """

    description: str
    model: type[BaseModel] | None = None
    media: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """A route as its users see it.

    Attributes:
        tag: the group that it stands in.
        answers: by status, without the errors.
        errors: statuses of problem+json that it may answer, besides those that every route may.
        who: whose token it asks for. An account's may come as a cookie.
        body: of a JSON request.
        parameters: besides those of the path.
    """

    tag: str
    answers: Mapping[int, Answer]
    errors: tuple[int, ...] = ()
    who: Who = "anybody"
    body: type[BaseModel] | None = None
    parameters: tuple[Parameter, ...] = ()


def operation(
    tag: str, *, answers: Mapping[int, Answer], errors: tuple[int, ...] = (), who: Who = "anybody",
    body: type[BaseModel] | None = None, parameters: tuple[Parameter, ...] = (),
) -> Callable[[HandlerT], HandlerT]:  # fmt: skip
    """Say what a handler takes and answers. Its docstring is the description; write it below the route's decorator."""
    said = Operation(tag, answers, errors, who, body, parameters)

    def note(handler: HandlerT) -> HandlerT:
        setattr(handler, _OPERATION, said)
        return handler

    return note


def operation_of(handler: object) -> Operation | None:
    """What was said of a handler, if anything."""
    found = getattr(handler, _OPERATION, None)
    return found if isinstance(found, Operation) else None


# ---------------------------------------------------------------------------------------------- of several routes
LIMIT = Parameter(
    "limit", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}, "how many items a page has at most"
)
CURSOR = Parameter("cursor", {"type": "string", "maxLength": 200}, "`nextCursor` of the page before")
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key", {"type": "string", "pattern": "^[!-~]{1,200}$"},
    "a text of the caller's choice: the same request with the same key within a day is answered as the first time, and "
    "done once", place="header",
)  # fmt: skip
IF_NONE_MATCH = Parameter(
    "If-None-Match", {"type": "string"}, "ETags that are known: one of these is answered without the body",
    place="header",
)  # fmt: skip
NO_CONTENT = {204: Answer("done")}
