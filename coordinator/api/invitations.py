"""/api/v1/sessions/{id}/invitations; and that a private session is not there for whoever was not let in."""

from __future__ import annotations

from functools import partial

from aiohttp import hdrs, web
from pydantic import TypeAdapter

from coordinator.api.operations import CURSOR, IDEMPOTENCY_KEY, LIMIT, NO_CONTENT, Answer, operation
from coordinator.api.repeats import once
from coordinator.api.requests import encode_cursor, json_answer, page_limit, parse_model, read_body, read_cursor
from coordinator.api.seen import may_see_session
from coordinator.api.sessions import require_of_session
from coordinator.context import COORDINATOR
from coordinator.invitations import InvitationRequest, InvitationView, NewInvitationView
from coordinator.sessions import Position
from coordinator.views import Page

routes = web.RouteTableDef()

_POSITION: TypeAdapter[Position] = TypeAdapter(Position)
_ABOUT_A_SESSION = ("/api/v1/sessions/{id}", "/s/{id}")
_REGISTRATION = (hdrs.METH_POST, "/api/v1/sessions/{id}/participants")
_NOWHERE = "-"


async def hide_private_session(request: web.Request) -> None:
    """Who may not see a private session is answered as if there were none."""
    resource = request.match_info.route.resource
    path = "" if resource is None else resource.canonical
    # a registration may bring an invitation in its body: it is checked where it is counted
    if (
        path.startswith(_ABOUT_A_SESSION)
        and (request.method, path) != _REGISTRATION
        and not await may_see_session(request)
    ):
        # no session has this id: whatever the handler does, it cannot tell the two apart
        request.match_info["id"] = _NOWHERE


@routes.post("/api/v1/sessions/{id}/invitations")
@operation(
    "invitations", who="account", body=InvitationRequest, errors=(409,), parameters=(IDEMPOTENCY_KEY,),
    answers={201: Answer("invited", NewInvitationView, names={"invitation": "/id"})},
)  # fmt: skip
async def invite(request: web.Request) -> web.Response:
    """201 with an invitation to a private session, by its owner; the token is in this answer and never again.

    Whoever has the token may read the session with it in the header `Cotrain-Invitation`, and join with it.
    """
    account = await require_of_session(request, "invite")
    wanted = parse_model(await read_body(request), InvitationRequest)
    work = partial(request.app[COORDINATOR].invitations.create, request.match_info["id"], wanted)
    return json_answer(await once(request, account, NewInvitationView, work, secret=True), status=201)


@routes.get("/api/v1/sessions/{id}/invitations")
@operation(
    "invitations", who="account", errors=(403,), parameters=(LIMIT, CURSOR),
    answers={200: Answer("a page", Page[InvitationView])},
)  # fmt: skip
async def list_invitations(request: web.Request) -> web.Response:
    """The session's invitations, oldest first, by its owner."""
    await require_of_session(request, "invite")
    after, limit = read_cursor(request, _POSITION), page_limit(request)
    items, following = await request.app[COORDINATOR].invitations.oldest_first(request.match_info["id"], after, limit)
    return json_answer(Page[InvitationView](items=items, next_cursor=encode_cursor(following)))


@routes.delete("/api/v1/sessions/{id}/invitations/{invitation}")
@operation("invitations", who="account", answers=NO_CONTENT)
async def end_invitation(request: web.Request) -> web.Response:
    """204: it lets nobody in any more. Who has joined stays, until the owner removes them."""
    await require_of_session(request, "invite")
    await request.app[COORDINATOR].invitations.end(request.match_info["id"], request.match_info["invitation"])
    return web.Response(status=204)
