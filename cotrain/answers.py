"""What a coordinator answers over HTTP: its problems (RFC 9457) as the errors that they stand for."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import aiohttp

from cotrain.errors import (
    ConfigError,
    ConflictError,
    CotrainError,
    DivergedError,
    ForbiddenError,
    IntegrityError,
    InvalidRequestError,
    NotAuthorizedError,
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    SwarmError,
    UnreachableError,
)
from cotrain.sse import EventReader, ServerEvent

_ERROR_BODY_BYTES = 64 * 1024
_CONNECT_TIMEOUT_S = 5.0
_ANSWER = aiohttp.ClientTimeout(total=30.0, sock_connect=_CONNECT_TIMEOUT_S)
_STREAM = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=45.0)
"""The coordinator says something in every stream each 15 s."""
_LONGEST_LINE_BYTES = 1024 * 1024

_BY_CODE: dict[str, type[CotrainError]] = {
    kind.code: kind
    for kind in (
        ConfigError, ConflictError, DivergedError, ForbiddenError, IntegrityError, InvalidRequestError,
        NotAuthorizedError, NotFoundError, ProtocolError, RateLimitedError, SwarmError, UnreachableError,
    )
}  # fmt: skip
# For answers without a code of ours: a proxy in front of the coordinator answers 502 and 504.
_BY_STATUS: dict[int, type[CotrainError]] = {
    401: NotAuthorizedError, 403: ForbiddenError, 404: NotFoundError, 409: ConflictError,
    413: InvalidRequestError, 422: InvalidRequestError, 429: RateLimitedError,
    502: UnreachableError, 503: UnreachableError, 504: UnreachableError,
}  # fmt: skip


class PreparingError(CotrainError):
    """The session is not ready yet; the coordinator asked to come back after `retry_after_s`."""

    code = "preparing"
    http_status = 503
    exit_code = 75

    def __init__(self, message: str, *, retry_after_s: float):
        super().__init__(message, hint="try again in a few minutes")
        self.retry_after_s = retry_after_s


def error_from_problem(status: int, problem: dict[str, Any], *, url: str) -> CotrainError:
    """The CotrainError that a problem+json answer stands for: by its code, else by its HTTP status."""
    kind = _BY_CODE.get(str(problem.get("code"))) or _BY_STATUS.get(status) or CotrainError
    message = str(problem.get("detail") or problem.get("title") or f"the coordinator answered {status}")
    return kind(
        message, field=str(problem.get("field") or ""), hint=str(problem.get("hint") or ""),
        details={"status": status, "url": url},
    )  # fmt: skip


async def raise_for_problem(response: aiohttp.ClientResponse) -> None:
    """Raises the error that an answer of 400 or more stands for; PreparingError where it says when to come back."""
    if response.status < 400:
        return
    problem = await _read_problem(response)
    error = error_from_problem(response.status, problem, url=str(response.url))
    retry_after = response.headers.get("Retry-After", "")
    if response.status == 503 and retry_after.isdecimal():
        raise PreparingError(error.message, retry_after_s=max(0.1, min(60.0, float(retry_after))))
    raise error


async def _read_problem(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The problem+json of an answer; empty if it has another form (a proxy's page)."""
    if "json" not in response.content_type:
        return {}
    raw = await response.content.read(_ERROR_BODY_BYTES)
    try:
        problem = json.loads(raw)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def not_understood(url: str, error: Exception) -> ProtocolError:
    """The error for an answer that has another form."""
    return ProtocolError(
        f"the answer is not what a coordinator sends ({type(error).__name__})", field=url,
        hint="check the address; if it is right, upgrade with: pip install --upgrade cotrain",
    )  # fmt: skip


def failure_reason(error: Exception) -> str:
    """Why a request had no answer, in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause = error.os_error.strerror if isinstance(error, aiohttp.ClientConnectorError) else None
    return cause or str(error) or type(error).__name__


async def ask_json(http: aiohttp.ClientSession, method: str, url: str, **options: Any) -> dict[str, Any]:
    """The JSON object that a request is answered with; empty where there is no body (204).

    Raises UnreachableError where no answer comes, ProtocolError for one of another form, and else what
    `raise_for_problem` does.
    """
    try:
        async with http.request(method, url, timeout=_ANSWER, **options) as response:
            await raise_for_problem(response)
            if response.status == 204:
                return {}
            answer = await response.json()
    except (ValueError, aiohttp.ContentTypeError) as error:
        raise not_understood(url, error) from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UnreachableError(failure_reason(error), field=url) from error
    if not isinstance(answer, dict):
        raise not_understood(url, TypeError("not a JSON object"))
    return answer


async def server_events(
    http: aiohttp.ClientSession, url: str, headers: Mapping[str, str], **options: Any
) -> AsyncGenerator[ServerEvent, None]:
    """The events of a stream, the last one that the coordinator sends before it closes it among them.

    Raises UnreachableError where the stream breaks off, and else as `ask_json`.
    """
    reader, sent = EventReader(), {**headers, "Accept": "text/event-stream"}
    try:
        async with http.get(
            url, headers=sent, timeout=_STREAM, read_bufsize=_LONGEST_LINE_BYTES, **options
        ) as response:
            await raise_for_problem(response)
            async for line in response.content:
                event = reader.feed(line.decode("utf-8", "replace").rstrip("\r\n"))
                if event is not None:
                    yield event
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UnreachableError(failure_reason(error), field=url) from error
