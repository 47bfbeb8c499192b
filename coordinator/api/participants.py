"""/api/v1/sessions/{id}/participants: who takes part."""

from __future__ import annotations

from aiohttp import web

from coordinator.api.requests import json_answer, parse_model, read_body
from coordinator.auth import bearer_token
from coordinator.context import COORDINATOR
from coordinator.participants import check_protocol
from cotrain.protocol import PROTOCOL_VERSION, RegisterRequest
from cotrain.request import CamelModel

routes = web.RouteTableDef()


class _Versioned(CamelModel, extra="ignore"):
    """The one field that every version of a registration has."""

    protocol: int = PROTOCOL_VERSION


@routes.post("/api/v1/sessions/{id}/participants")
async def register(request: web.Request) -> web.Response:
    """201 with what a node needs to begin."""
    body = await read_body(request)
    # first the version: a newer node may send fields that this coordinator would call unknown
    check_protocol(parse_model(body, _Versioned).protocol)
    wanted = parse_model(body, RegisterRequest)
    answer = await request.app[COORDINATOR].participants.register(request.match_info["id"], wanted)
    return json_answer(answer, status=201)


@routes.get("/api/v1/sessions/{id}/participants")
async def list_participants(request: web.Request) -> web.Response:
    """Everybody who registered, and the checkpointer's own state."""
    return json_answer(await request.app[COORDINATOR].participants.page(request.match_info["id"]))


@routes.delete("/api/v1/sessions/{id}/participants/{participant}")
async def leave(request: web.Request) -> web.Response:
    """204: the participant's token is no longer known."""
    session, participant = request.match_info["id"], request.match_info["participant"]
    participants = request.app[COORDINATOR].participants
    await participants.authenticate(session, participant, bearer_token(request.headers.get("Authorization")))
    await participants.leave(session, participant)
    return web.Response(status=204)
