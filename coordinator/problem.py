"""Every error as problem+json (RFC 9457), of chats in OpenAI's form: what happened, where, what to do; never a trace or
the input."""

from __future__ import annotations

import http
import json
import logging
import random
import re
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from coordinator.json_log import LOGGED_REQUEST
from cotrain.chat_protocol import CHAT_PATHS, chat_error, chat_status
from cotrain.errors import CotrainError, ProtocolError

REQUEST_ID = web.RequestKey("request_id", str)
REQUEST_ID_HEADER = "X-Request-Id"
RETRY_AFTER = "retryAfterS"
"""Key of `CotrainError.details` that becomes the `Retry-After` header."""
FILE_SIZE = "sizeBytes"
"""Key of `CotrainError.details` that becomes the `Content-Range` header of a 416."""

_logger = logging.getLogger(__name__)
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LONGEST_FIELD = 200
_HINTS = {
    404: "see /api/v1/sessions for what there is",
    413: "the limit is 64 KiB",
    415: "send the header Content-Type: application/json",
    416: "name bytes that the file has, as in Range: bytes=100-",
}


class UnsupportedMediaTypeError(CotrainError):
    """A body that is not JSON."""

    code = "unsupported-media-type"
    http_status = 415
    exit_code = 2


class UpgradeRequiredError(ProtocolError):
    """The other side speaks another version of the protocol."""

    http_status = 426


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id and turn whatever is raised into an answer."""
    given = request.headers.get(REQUEST_ID_HEADER, "")
    request[REQUEST_ID] = given if _GIVEN_ID.fullmatch(given) else f"{random.getrandbits(64):016x}"
    LOGGED_REQUEST.set(request[REQUEST_ID])
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < http.HTTPStatus.BAD_REQUEST:
            raise
        return _http_problem(request, error)
    except CotrainError as error:
        return _cotrain_problem(request, error)
    except ConnectionError:  # the other side is gone; there is nobody to answer
        raise
    except Exception:
        _logger.exception("%s %s failed", request.method, request.path)
        return _problem(
            request, http.HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "something went wrong on our side",
            hint="try again; if it stays, tell the operator the request id",
        )  # fmt: skip


def _cotrain_problem(request: web.Request, error: CotrainError) -> web.Response:
    if error.http_status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        _logger.warning("%s", error)
    details = dict(error.details)
    response = _problem(
        request, error.http_status, error.code, error.message, field=error.field, hint=error.hint,
        errors=details.pop("problems", []), **details,
    )  # fmt: skip
    if RETRY_AFTER in error.details:
        response.headers["Retry-After"] = str(error.details[RETRY_AFTER])
    if FILE_SIZE in error.details:
        response.headers["Content-Range"] = f"bytes */{error.details[FILE_SIZE]}"
    if error.http_status == http.HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _http_problem(request: web.Request, error: web.HTTPException) -> web.Response:
    status = http.HTTPStatus(error.status)
    code = status.phrase.lower().replace(" ", "-")
    hint = _HINTS.get(status, "")
    if isinstance(error, web.HTTPMethodNotAllowed):
        hint = f"allowed here: {', '.join(sorted(error.allowed_methods))}"
    response = _problem(request, status, code, f"{status.phrase}: {status.description or 'refused'}", hint=hint)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def _problem(
    request: web.Request, status: int, code: str, detail: str, *, field: str = "", hint: str = "",
    errors: list[dict[str, Any]] | None = None, **details: Any,
) -> web.Response:  # fmt: skip
    if request.path.startswith(CHAT_PATHS):
        told = chat_error(status, code, detail, field=field[:_LONGEST_FIELD], hint=hint, problems=errors or ())
        return web.json_response(text=told.model_dump_json(), status=chat_status(status))
    body = {
        "type": f"urn:cotrain:problem:{code}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "field": field[:_LONGEST_FIELD],
        "hint": hint,
        "errors": errors or [],
        "requestId": request[REQUEST_ID],
        **details,
    }
    return web.Response(status=status, text=json.dumps(body), content_type="application/problem+json")
