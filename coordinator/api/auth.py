"""/api/v1/auth: signing in with a wallet, and out."""

from __future__ import annotations

import logging
from functools import partial

from aiohttp import hdrs, web

from coordinator.api.callers import (
    caller_address,
    caller_of,
    delete_cookie,
    set_cookie,
    token_of,
    unknown_token,
)
from coordinator.api.operations import NO_CONTENT, Answer, operation
from coordinator.api.requests import json_answer, parse_model, private, read_body
from coordinator.auth.login import LoginRefusedError
from coordinator.auth.sign_ins import NewSignIn
from coordinator.context import COORDINATOR
from coordinator.views import iso_time
from cotrain.errors import NotAuthorizedError
from cotrain.protocol import ChallengeAnswer, ChallengeRequest, LoginAnswer, LoginRequest
from cotrain.request import CamelModel

routes = web.RouteTableDef()

_logger = logging.getLogger(__name__)


class MeAnswer(CamelModel):
    """Who is signed in."""

    account: str
    operator: bool
    expires_at: str


@routes.post("/api/v1/auth/challenge")
@operation("sign-in", body=ChallengeRequest, answers={200: Answer("to be signed", ChallengeAnswer)}, errors=(429,))
async def challenge(request: web.Request) -> web.Response:
    """A text to sign."""
    wanted = parse_model(await read_body(request), ChallengeRequest)
    coordinator = request.app[COORDINATOR]
    coordinator.limits.challenge(caller_address(request))
    issued = await coordinator.challenges.issue(wanted.chain, wanted.address)
    return private(
        json_answer(ChallengeAnswer(nonce=issued.nonce, message=issued.message, expires_at=iso_time(issued.expires_at)))
    )


@routes.post("/api/v1/auth/login")
@operation("sign-in", body=LoginRequest, answers={200: Answer("signed in", LoginAnswer)}, errors=(401, 429))
async def login(request: web.Request) -> web.Response:
    """A token for a signature; one and the same 401 for whatever is wrong with it."""
    answered = parse_model(await read_body(request), LoginRequest)
    coordinator = request.app[COORDINATOR]
    coordinator.limits.login(caller_address(request))
    try:
        sign_in = await coordinator.logins.log_in(
            answered.nonce, answered.signature, answered.public_key,
            on_new_account=partial(coordinator.limits.new_account, caller_address(request)),
        )  # fmt: skip
    except LoginRefusedError as error:
        _logger.info("sign-in refused: %s", error.message)
        # the reason must not travel with it
        raise NotAuthorizedError(
            "the sign-in was refused",
            hint="ask for a new challenge and sign its message with the wallet of the address",
        ) from None
    return _signed_in(request, sign_in)


@routes.post("/api/v1/auth/logout")
@operation("sign-in", answers=NO_CONTENT, errors=(401,))
async def logout(request: web.Request) -> web.Response:
    """204: the token has ended, or there was none. Counts against no limit, so that nobody can keep a thief in."""
    coordinator = request.app[COORDINATOR]
    token = token_of(request)
    ended = token is not None and await coordinator.sign_ins.revoke(token)
    if not ended and hdrs.AUTHORIZATION in request.headers:
        raise unknown_token()
    response = private(web.Response(status=204))
    delete_cookie(response, coordinator.settings)
    return response


@routes.post("/api/v1/auth/rotate")
@operation("sign-in", who="account", answers={200: Answer("a new token", LoginAnswer)})
async def rotate(request: web.Request) -> web.Response:
    """A new token; the one that the request brought has ended."""
    await caller_of(request)
    sign_in = await request.app[COORDINATOR].sign_ins.rotate(token_of(request) or "")
    if sign_in is None:
        raise unknown_token()
    return _signed_in(request, sign_in)


@routes.get("/api/v1/auth/me")
@operation("sign-in", who="account", answers={200: Answer("signed in", MeAnswer)})
async def me(request: web.Request) -> web.Response:
    """The account that is signed in."""
    caller = await caller_of(request)
    if caller.account is None:
        raise NotAuthorizedError("nobody is signed in", field=hdrs.AUTHORIZATION, hint="sign in with your wallet")
    return private(
        json_answer(MeAnswer(account=caller.account, operator=caller.operator, expires_at=iso_time(caller.expires_at)))
    )


def _signed_in(request: web.Request, sign_in: NewSignIn) -> web.Response:
    answer = LoginAnswer(token=sign_in.token, account=sign_in.account, expires_at=iso_time(sign_in.expires_at))
    response = private(json_answer(answer))
    set_cookie(response, sign_in, request.app[COORDINATOR].settings)
    return response
