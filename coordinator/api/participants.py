"""/api/v1/sessions/{id}/participants: who takes part."""

from __future__ import annotations

from functools import partial

from aiohttp import hdrs, web

from coordinator.api.callers import caller_of
from coordinator.api.operations import CURSOR, IDEMPOTENCY_KEY, LIMIT, NO_CONTENT, Answer, operation
from coordinator.api.repeats import once
from coordinator.api.requests import (
    POSITION,
    encode_cursor,
    json_answer,
    page_limit,
    parse_model,
    read_body,
    read_cursor,
)
from coordinator.auth.permissions import may, require
from coordinator.auth.tokens import bearer_token
from coordinator.context import COORDINATOR
from coordinator.participants import check_protocol
from coordinator.views import ParticipantsPage
from cotrain.errors import NotAuthorizedError
from cotrain.identity.account import Account
from cotrain.protocol import PROTOCOL_VERSION, RegisterAnswer, RegisterRequest, RenewAnswer
from cotrain.request import CamelModel

routes = web.RouteTableDef()


class _Versioned(CamelModel, extra="ignore"):
    """The one field that every version of a registration has."""

    protocol: int = PROTOCOL_VERSION


@routes.post("/api/v1/sessions/{id}/participants")
@operation(
    "participants", who="account", body=RegisterRequest, errors=(409, 426, 503),
    answers={201: Answer("registered", RegisterAnswer, names={"participant": "/participant"})},
    parameters=(IDEMPOTENCY_KEY,),
)  # fmt: skip
async def register(request: web.Request) -> web.Response:
    """201 with what a node needs to begin; 401 without a sign-in."""
    body = await read_body(request)
    # first the version: a newer node may send fields that this coordinator would call unknown
    check_protocol(parse_model(body, _Versioned).protocol)
    caller = await caller_of(request)
    require("register", caller)
    assert caller.account is not None
    wanted = parse_model(body, RegisterRequest)
    work = partial(
        request.app[COORDINATOR].participants.register, request.match_info["id"], wanted, Account.parse(caller.account)
    )
    return json_answer(await once(request, caller.account, RegisterAnswer, work, secret=True), status=201)


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
