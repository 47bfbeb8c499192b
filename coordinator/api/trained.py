"""/api/v1/sessions/{id}/checkpoints and /training: what a session's training leaves on disk."""

from __future__ import annotations

import asyncio

from aiohttp import web

from coordinator.api.operations import NO_CONTENT, Answer, operation
from coordinator.api.requests import json_answer
from coordinator.api.sessions import require_of_session
from coordinator.checkpoints import CheckpointView, read_checkpoints
from coordinator.context import COORDINATOR
from coordinator.views import Page

routes = web.RouteTableDef()


@routes.get("/api/v1/sessions/{id}/checkpoints")
@operation("sessions", answers={200: Answer("all of them", Page[CheckpointView])})
async def list_checkpoints(request: web.Request) -> web.Response:
    """The checkpoints that there are, newest first: the last ones, and the best."""
    row = await request.app[COORDINATOR].sessions.row(request.match_info["id"])
    folder = request.app[COORDINATOR].settings.shared.checkpoints / row.id
    return json_answer(Page[CheckpointView](items=await asyncio.to_thread(read_checkpoints, folder)))


@routes.delete("/api/v1/sessions/{id}/training")
@operation("sessions", who="account", answers=NO_CONTENT, errors=(409,))
async def clean_up(request: web.Request) -> web.Response:
    """204: checkpoints, assets, and data that no other session uses, are gone; the final model stays.

    409 while the session is under way.
    """
    await require_of_session(request, "delete")
    await request.app[COORDINATOR].cleanup.training(request.match_info["id"])
    return web.Response(status=204)
