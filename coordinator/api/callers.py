"""Who sent a request: an account by its bearer token or its cookie, or a visitor."""

from __future__ import annotations

from aiohttp import hdrs, web

from coordinator.auth.addresses import client_address
from coordinator.auth.origins import cookie_origin_allowed
from coordinator.auth.permissions import VISITOR, Caller
from coordinator.auth.sign_ins import NewSignIn, SignIn
from coordinator.auth.tokens import bearer_token, given_token
from coordinator.context import COORDINATOR
from coordinator.settings import Settings
from cotrain.errors import ForbiddenError, NotAuthorizedError

SAFE_METHODS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})

_COOKIE = "cotrain"
_HOST_COOKIE = f"__Host-{_COOKIE}"


async def caller_of(request: web.Request) -> Caller:
    """The caller. To be asked once a request: a change by an account counts against its limit.

    Raises:
        NotAuthorizedError: a bearer token that stands for nobody. A cookie that stands for nobody makes a visitor.
        ForbiddenError: a cookie that would authorize a change, without an Origin of this coordinator's own page.
        RateLimitedError: too many changes by this account.
    """
    coordinator = request.app[COORDINATOR]
    token = token_of(request)
    found = None if token is None else await coordinator.sign_ins.find(token)
    if found is None:
        if hdrs.AUTHORIZATION in request.headers:
            raise unknown_token()
        return VISITOR
    if request.method not in SAFE_METHODS:
        coordinator.limits.write(found.account)
    return _caller(found, coordinator.settings)


async def reader_of(request: web.Request) -> Caller:
    """Who reads what everybody may read and some see more of; a token that stands for nobody makes a visitor."""
    coordinator = request.app[COORDINATOR]
    cookie = request.cookies.get(cookie_name(coordinator.settings), "")
    token = given_token(request.headers[hdrs.AUTHORIZATION]) if hdrs.AUTHORIZATION in request.headers else cookie
    found = await coordinator.sign_ins.find(token) if token else None
    return VISITOR if found is None else _caller(found, coordinator.settings)


def token_of(request: web.Request) -> str | None:
    """The token that the request brings, whatever it is worth; a header goes before a cookie. Raises as `caller_of`."""
    if hdrs.AUTHORIZATION in request.headers:
        return bearer_token(request.headers[hdrs.AUTHORIZATION])
    settings = request.app[COORDINATOR].settings
    token = request.cookies.get(cookie_name(settings))
    if token is not None and request.method not in SAFE_METHODS:
        _check_origin(request, settings)
    return token


def unknown_token() -> NotAuthorizedError:
    """The one answer to a token that is unknown, expired or ended."""
    return NotAuthorizedError(
        "this token is not known", field=hdrs.AUTHORIZATION, hint="it may have expired: sign in again"
    )


def caller_address(request: web.Request) -> str:
    """The address that limits count this request under."""
    forwarded = request.headers.getall(hdrs.X_FORWARDED_FOR, [])
    proxies = request.app[COORDINATOR].settings.config.server.proxies
    return client_address(request.remote or "", forwarded, proxies)


def cookie_name(settings: Settings) -> str:
    """With TLS one that no other host and no plain page can set (the prefix `__Host-`)."""
    return _HOST_COOKIE if settings.over_https else _COOKIE


def set_cookie(response: web.Response, sign_in: NewSignIn, settings: Settings) -> None:
    """Let the browser keep the token where no script can read it."""
    response.set_cookie(
        cookie_name(settings), sign_in.token, max_age=int(settings.config.sign_in.token_lifetime_s), path="/",
        secure=settings.over_https, httponly=True, samesite="Strict",
    )  # fmt: skip


def delete_cookie(response: web.Response, settings: Settings) -> None:
    """Let the browser forget it."""
    response.del_cookie(cookie_name(settings), path="/", secure=settings.over_https, httponly=True, samesite="Strict")


def _check_origin(request: web.Request, settings: Settings) -> None:
    origin = request.headers.get(hdrs.ORIGIN)
    if not cookie_origin_allowed(origin, request.host, settings.public_url):
        raise ForbiddenError(
            "a cookie authorizes changes by the coordinator's own page only", field=hdrs.ORIGIN,
            hint="programs send the token as `Authorization: Bearer <token>`",
        )  # fmt: skip


def _caller(found: SignIn, settings: Settings) -> Caller:
    operator = found.account in settings.config.sign_in.operators
    return Caller(found.account, operator=operator, expires_at=found.expires_at)
