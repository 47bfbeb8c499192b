"""/api/v1/sessions/{id}/participants: who takes part."""

from __future__ import annotations

from functools import partial

from aiohttp import hdrs, web

from coordinator.api.callers import caller_of
from coordinator.api.operations import CURSOR, IDEMPOTENCY_KEY, LIMIT, NO_CONTENT, Answer, operation
from coordinator.api.repeats import once
from coordinator.api.requests import (
    POSITION,
    check_version,
    encode_cursor,
    json_answer,
    page_limit,
    parse_model,
    read_body,
    read_cursor,
)
from coordinator.auth.permissions import may, require
from coordinator.auth.tokens import bearer_token, given_token
from coordinator.context import COORDINATOR
from coordinator.views import ParticipantsPage
from cotrain.errors import ForbiddenError, NotAuthorizedError
from cotrain.identity.account import Account
from cotrain.protocol import (
    LinkRequest,
    RegisterAnswer,
    RegisterRequest,
    RenewAnswer,
    ResumeRequest,
)

routes = web.RouteTableDef()


@routes.post("/api/v1/sessions/{id}/participants")
@operation(
    "participants", who="account", body=RegisterRequest, errors=(409, 426, 503),
    answers={201: Answer("registered", RegisterAnswer, names={"participant": "/participant"})},
    parameters=(IDEMPOTENCY_KEY,),
)  # fmt: skip
async def register(request: web.Request) -> web.Response:
    """201 with what a node needs to begin; 401 without a sign-in.

    A device code whose statement a wallet has signed (`POST /api/v1/links`) registers the peer that it was made for.
    """
    body = await read_body(request)
    # first the version: a newer node may send fields that this coordinator would call unknown
    check_version(body)
    coordinator, device_code = request.app[COORDINATOR], given_token(request.headers.get(hdrs.AUTHORIZATION))
    link = coordinator.links.signed(device_code)
    account = await _account_of(request) if link is None or link.signed is None else link.signed.account
    wanted = parse_model(body, RegisterRequest)
    session = request.match_info["id"]
    if link is not None:
        coordinator.limits.write(str(account))
        check_linked(link.wanted, session, wanted)
    work = partial(coordinator.participants.register, session, wanted, account)
    answer = await once(request, str(account), RegisterAnswer, work, secret=True)
    coordinator.links.end(device_code)
    return json_answer(answer, status=201)


async def _account_of(request: web.Request) -> Account:
    """The account that has signed in, and may register."""
    caller = await caller_of(request)
    require("register", caller)
    assert caller.account is not None
    return Account.parse(caller.account)


def check_linked(link: LinkRequest, session: str, wanted: RegisterRequest) -> None:
    """Raises ForbiddenError unless this is the registration that a wallet elsewhere was asked for."""
    if (link.session, link.peer_id, link.terms.nonce) != (session, wanted.peer_id, wanted.bond.nonce):
        raise ForbiddenError(
            "this device code is for another peer, session or statement", field=hdrs.AUTHORIZATION,
            hint="a wallet in a browser lets one peer into one session",
        )  # fmt: skip


@routes.get("/api/v1/sessions/{id}/participants")
@operation("participants", answers={200: Answer("a page", ParticipantsPage)}, parameters=(LIMIT, CURSOR))
async def list_participants(request: web.Request) -> web.Response:
    """Everybody who registered, oldest first, and the checkpointer's own state."""
    after = read_cursor(request, POSITION)
    page, following = await request.app[COORDINATOR].participants.oldest_first(
        request.match_info["id"], after, page_limit(request)
    )
    return json_answer(page.model_copy(update={"next_cursor": encode_cursor(following)}))


@routes.post("/api/v1/sessions/{id}/participants/{participant}/renew")
@operation("participants", who="participant", answers={200: Answer("renewed", RenewAnswer)}, errors=(409,))
async def renew(request: web.Request) -> web.Response:
    """200 with a new certificate, by the participant's own token."""
    session, participant = request.match_info["id"], request.match_info["participant"]
    participants = request.app[COORDINATOR].participants
    token = bearer_token(request.headers.get(hdrs.AUTHORIZATION))
    await participants.authenticate(session, participant, token)
    return json_answer(await participants.renew(session, participant))


@routes.post("/api/v1/sessions/{id}/participants/{participant}/resume")
@operation(
    "participants", who="participant", body=ResumeRequest, answers={200: Answer("goes on", RegisterAnswer)},
    errors=(409, 426, 503),
)  # fmt: skip
async def resume(request: web.Request) -> web.Response:
    """200 with what a node needs to begin, by the participant's own token, which stays: nothing is signed anew."""
    body = await read_body(request)
    check_version(body)
    session, participant = request.match_info["id"], request.match_info["participant"]
    participants = request.app[COORDINATOR].participants
    token = bearer_token(request.headers.get(hdrs.AUTHORIZATION))
    await participants.authenticate(session, participant, token)
    return json_answer(await participants.resume(session, participant, token, parse_model(body, ResumeRequest)))


@routes.delete("/api/v1/sessions/{id}/participants/{participant}")
@operation("participants", who="account", answers=NO_CONTENT)
async def leave_or_remove(request: web.Request) -> web.Response:
    """204. By its own token or its own wallet a participant leaves; the session's owner removes it for good."""
    session, participant = request.match_info["id"], request.match_info["participant"]
    coordinator = request.app[COORDINATOR]
    if await _is_own_token(request):
        await coordinator.participants.leave(session, participant)
        return web.Response(status=204)
    owner = (await coordinator.sessions.row(session)).owner
    row = await coordinator.participants.find(session, participant)
    caller = await caller_of(request)
    if may("leave", caller, participant=row.account):
        await coordinator.participants.leave(session, participant)
    else:
        require("remove", caller, owner=owner)
        await coordinator.participants.remove(session, participant)
    return web.Response(status=204)


async def _is_own_token(request: web.Request) -> bool:
    """Whether the request brings the token of the participant that it is about."""
    if hdrs.AUTHORIZATION not in request.headers:
        return False
    token = bearer_token(request.headers[hdrs.AUTHORIZATION])
    try:
        await request.app[COORDINATOR].participants.authenticate(
            request.match_info["id"], request.match_info["participant"], token
        )
    except NotAuthorizedError:
        return False
    return True
