"""/api/v1/learning: how the community's chats become data, and data the next version of its model."""

from __future__ import annotations

from aiohttp import web

from coordinator.api.callers import caller_of
from coordinator.api.operations import CURSOR, LIMIT, Answer, operation
from coordinator.api.requests import POSITION, encode_cursor, json_answer, page_limit, read_cursor
from coordinator.api.seen import versions_seen
from coordinator.auth.permissions import require
from coordinator.context import COORDINATOR
from coordinator.learning.views import CycleView, LearningView
from coordinator.views import Page

routes = web.RouteTableDef()


@routes.get("/api/v1/learning")
@operation("learning", answers={200: Answer("found", LearningView)})
async def get_learning(request: web.Request) -> web.Response:
    """Which model learns from its chats, how much there is to learn from, and what the last cycle came to."""
    return json_answer(await request.app[COORDINATOR].learning.view(await versions_seen(request)))


@routes.get("/api/v1/learning/log")
@operation("learning", answers={200: Answer("a page", Page[CycleView])}, parameters=(LIMIT, CURSOR))
async def list_cycles(request: web.Request) -> web.Response:
    """The cycles, of the model that learns, newest first: what they found, took and refused, and which version came
    out. Empty for whoever may not see the model."""
    before, limit = read_cursor(request, POSITION), page_limit(request)
    items, following = await request.app[COORDINATOR].learning.log(await versions_seen(request), before, limit)
    return json_answer(Page[CycleView](items=items, next_cursor=encode_cursor(following)))


@routes.post("/api/v1/learning/cycle")
@operation("learning", who="account", answers={202: Answer("it begins", LearningView)}, errors=(403, 404, 409))
async def begin_cycle(request: web.Request) -> web.Response:
    """202: a cycle begins, unless too few chats have come. By an operator; 409 while one is under way."""
    require("learn", await caller_of(request))
    learning = request.app[COORDINATOR].learning
    await learning.ask()
    return json_answer(await learning.view(await versions_seen(request)), status=202)
