"""What a coordinator tells anybody, before a sign-in: that it is one, which protocol it speaks, what time it has."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import aiohttp

from cotrain.answers import error_from_problem, failure_reason
from cotrain.errors import ProtocolError, UnreachableError
from cotrain.protocol import PROTOCOL_VERSION

_TIMEOUT = aiohttp.ClientTimeout(total=5.0)
_DATE_STEP_S = 1.0
"""A Date header tells whole seconds."""
_NOT_YET_VALID = 9
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID."""


class NotYetValidError(UnreachableError):
    """By this machine's clock the certificate of who answers there holds only later."""


@dataclass(frozen=True)
class Clock:
    """A coordinator's clock, seen from here.

    Attributes:
        ahead_s: how far this machine's is ahead of it; less than 0 if behind.
        doubt_s: how far that may be wrong, either way.
        answer_s: how long the answer took.
    """

    ahead_s: float
    doubt_s: float
    answer_s: float


def compare_clocks(date: str, sent_at: float, answered_at: float) -> Clock:
    """From a Date header, and this machine's clock (Unix seconds) around the request. Raises ValueError."""
    answer_s = answered_at - sent_at
    theirs = parsedate_to_datetime(date).timestamp() + _DATE_STEP_S / 2
    return Clock((sent_at + answered_at) / 2 - theirs, (answer_s + _DATE_STEP_S) / 2, answer_s)


async def ask_clock(base_url: str) -> Clock:
    """Raises UnreachableError, NotYetValidError among them, or ProtocolError if the answer has no date."""
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:
        return await _clock(http, base_url)


async def greet(base_url: str) -> Clock:
    """Raises UnreachableError; ProtocolError if it is no coordinator, or one with another version of the protocol."""
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:
        await _check_protocol(http, base_url)
        return await _clock(http, base_url)  # on the same connection: nothing but the answer takes time


async def _clock(http: aiohttp.ClientSession, base_url: str) -> Clock:
    url = f"{base_url}/healthz"
    sent_at = time.time()
    try:
        async with http.get(url) as response:
            return compare_clocks(response.headers.get("Date", ""), sent_at, time.time())
    except aiohttp.ClientConnectorCertificateError as error:
        is_early = getattr(error.certificate_error, "verify_code", None) == _NOT_YET_VALID
        raise (NotYetValidError if is_early else UnreachableError)(failure_reason(error), field=base_url) from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UnreachableError(failure_reason(error), field=base_url) from error
    except ValueError as error:
        raise ProtocolError("the answer has no date", field=url) from error


async def _check_protocol(http: aiohttp.ClientSession, base_url: str) -> None:
    """A registration without a sign-in is refused, but first the version in it is looked at."""
    url = f"{base_url}/api/v1/sessions/-/participants"
    try:
        async with http.post(url, json={"protocol": PROTOCOL_VERSION}) as response:
            problem = await response.json(content_type=None)
            status = response.status
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UnreachableError(failure_reason(error), field=base_url) from error
    except ValueError as error:
        raise _no_coordinator(base_url) from error
    code = problem.get("code") if isinstance(problem, dict) else None
    if code == ProtocolError.code:
        raise error_from_problem(status, problem, url=url)
    if code != "not-authorized":
        raise _no_coordinator(base_url)


def _no_coordinator(base_url: str) -> ProtocolError:
    return ProtocolError("who answers there is no coordinator", field=base_url, hint="check the address")
