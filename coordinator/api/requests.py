"""Reading requests: bodies, query parameters, cursors. Every error names the field."""

from __future__ import annotations

import base64
import json
from typing import TypeVar

from aiohttp import hdrs, web
from pydantic import BaseModel, TypeAdapter, ValidationError

from coordinator.api.operations import Parameter
from coordinator.joinable import check_protocol
from coordinator.problem import UnsupportedMediaTypeError
from cotrain.config import invalid_input
from cotrain.errors import InvalidRequestError
from cotrain.protocol import PROTOCOL_VERSION
from cotrain.request import CamelModel
from cotrain.sections import LARGEST_INTEGER, SessionId

ModelT = TypeVar("ModelT", bound=BaseModel)
CursorT = TypeVar("CursorT")

MAX_BODY_BYTES = 64 * 1024
MAX_PAGE = 200
_DEFAULT_PAGE = 50
POSITION: TypeAdapter[tuple[float, str]] = TypeAdapter(tuple[float, SessionId])
"""Where a page begins: creation time and id of the last one seen. All ids have this form."""
_SESSION_ID: TypeAdapter[str] = TypeAdapter(SessionId)
SESSION_PARAMETER = Parameter("session", _SESSION_ID.json_schema(), "only what belongs to this session")


async def read_body(request: web.Request) -> bytes:
    """The body of a JSON request. Raises UnsupportedMediaTypeError; a body over the limit is a 413."""
    if request.content_type != "application/json":
        raise UnsupportedMediaTypeError(
            "the body must be JSON",
            field="Content-Type",
            hint="send the header Content-Type: application/json",
        )
    return await request.read()


def parse_model(body: bytes, model: type[ModelT]) -> ModelT:
    """The body as `model`; types are not coerced. Raises InvalidRequestError that lists every problem."""
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise invalid_input(error, model) from error


class _Versioned(CamelModel, extra="ignore"):
    """The one field that every version of a node's request has."""

    protocol: int = PROTOCOL_VERSION


def check_version(body: bytes) -> None:
    """To be asked before the rest is read: a newer node may send fields that this coordinator would call unknown.

    Raises UpgradeRequiredError, or InvalidRequestError where the body is no JSON object.
    """
    check_protocol(parse_model(body, _Versioned).protocol)


def integer_parameter(request: web.Request, name: str, *, default: int, low: int, high: int) -> int:
    """A whole number from the query string. Raises InvalidRequestError unless `low <= value <= high`."""
    return parse_integer(request.query.get(name, str(default)), name, low=low, high=high)


def parse_integer(text: str, name: str, *, low: int = 0, high: int = LARGEST_INTEGER) -> int:
    """A whole number in `low..high`. Raises InvalidRequestError that names `name`."""
    digits = text.isascii() and text.isdecimal() and len(text) < 20
    if not digits or not low <= int(text) <= high:
        raise InvalidRequestError(
            "not a whole number in the allowed range", field=name, hint=f"allowed: {low} to {high}"
        )
    return int(text)


def session_parameter(request: web.Request) -> str | None:
    """The `session` of a list, None where it is not given. Raises InvalidRequestError."""
    if "session" not in request.query:
        return None
    try:
        return _SESSION_ID.validate_python(request.query["session"])
    except ValidationError as error:
        raise InvalidRequestError(
            "is not the id of a session", field="session", hint="GET /api/v1/sessions lists them"
        ) from error


def page_limit(request: web.Request) -> int:
    """The `limit` of a list, 1 to 200."""
    return integer_parameter(request, "limit", default=_DEFAULT_PAGE, low=1, high=MAX_PAGE)


def encode_cursor(position: object | None) -> str | None:
    """An opaque cursor for a JSON-serializable position; None stays None."""
    if position is None:
        return None
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def read_cursor(request: web.Request, kind: TypeAdapter[CursorT]) -> CursorT | None:
    """The position in the `cursor` parameter, None without one. Raises InvalidRequestError."""
    text = request.query.get("cursor")
    if text is None:
        return None
    try:
        return kind.validate_json(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError as error:  # also base64's and pydantic's own errors
        raise InvalidRequestError(
            "this is no cursor of this list", field="cursor", hint="pass the nextCursor of the page before"
        ) from error


def is_known(request: web.Request, tag: str) -> bool:
    """Whether `If-None-Match` says that the caller has what this ETag stands for."""
    return any(etag.value in (tag, "*") for etag in request.if_none_match or ())


def json_answer(model: BaseModel, *, status: int = 200) -> web.Response:
    """A model as camelCase JSON."""
    return web.Response(text=model.model_dump_json(by_alias=True), status=status, content_type="application/json")


def private(response: web.Response) -> web.Response:
    """The same answer, which no cache may keep."""
    response.headers[hdrs.CACHE_CONTROL] = "no-store"
    return response
