"""/api/v1/sessions: make, list, read, steer and delete sessions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial

from aiohttp import web
from pydantic import TypeAdapter
from sqlalchemy import select

from coordinator.api.callers import caller_address, caller_of, reader_of
from coordinator.api.operations import (
    CURSOR,
    IDEMPOTENCY_KEY,
    IF_NONE_MATCH,
    LIMIT,
    NO_CONTENT,
    Answer,
    Parameter,
    operation,
)
from coordinator.api.repeats import once
from coordinator.api.requests import (
    POSITION,
    encode_cursor,
    integer_parameter,
    is_known,
    json_answer,
    page_limit,
    parse_model,
    read_body,
    read_cursor,
)
from coordinator.api.seen import hidden_folders
from coordinator.api.shared import shared, shared_by_reader
from coordinator.auth.permissions import Act, Caller, require, require_priority
from coordinator.catalog_entries import with_sources
from coordinator.context import COORDINATOR
from coordinator.invitations import visible_to
from coordinator.lifecycle import USER_ACTIONS, UserAction
from coordinator.metrics import MAX_POINTS, curve
from coordinator.models import LogRow
from coordinator.preview import Surroundings, outlook, preview
from coordinator.sessions import find_session
from coordinator.views import (
    LogView,
    MetricView,
    OfferView,
    OpenedView,
    Page,
    PreviewView,
    ProgressView,
    SessionView,
    log_view,
    metric_view,
)
from cotrain.request import SessionRequest
from cotrain.sections import LARGEST_INTEGER, Count

routes = web.RouteTableDef()

_LOG_POSITION: TypeAdapter[int] = TypeAdapter(Count)
_SESSION = "/api/v1/sessions/{id:(?!open$)[^/]+}"
"""`open` is no session: else it would take the methods of one."""
_ROUND = {"type": "integer", "minimum": 0, "maximum": LARGEST_INTEGER}
_FROM = Parameter("from", _ROUND, "the first round")
_TO = Parameter("to", _ROUND, "the last round")
_POINTS = Parameter(
    "points", {"type": "integer", "minimum": 1, "maximum": MAX_POINTS, "default": MAX_POINTS},
    "how many points at most; of more than that, some that are evenly spread",
)  # fmt: skip
_MEMORY = Parameter(
    "memoryBytes", {"type": "integer", "minimum": 0, "maximum": LARGEST_INTEGER, "default": 0},
    "memory of a node that would take part; 0: not asked",
)  # fmt: skip
_GPU_MEMORY = Parameter(
    "gpuMemoryBytes", {"type": "integer", "minimum": 0, "maximum": LARGEST_INTEGER, "default": 0},
    "memory of its smallest GPU; 0: it has none, or does not know",
)  # fmt: skip


@routes.post("/api/v1/sessions")
@operation(
    "sessions", who="account", body=SessionRequest, errors=(409,), parameters=(IDEMPOTENCY_KEY,),
    answers={201: Answer("opened", OpenedView, headers={"Location": "where it is"}, names={"id": "/id"})},
)  # fmt: skip
async def create_session(request: web.Request) -> web.Response:
    """201 with the new session in state draft, and what it will ask of each node; it belongs to the caller."""
    caller = await caller_of(request)
    require("open", caller)
    wanted = parse_model(await read_body(request), SessionRequest)
    coordinator, account = request.app[COORDINATOR], caller.account or ""
    require_priority(wanted.schedule.priority, caller, highest=coordinator.settings.highest_priority)
    around = await _surroundings(request, wanted)
    expected = outlook(wanted, around)
    create = partial(coordinator.sessions.create, with_sources(wanted, around.catalog, around.shared), account)
    view = await once(request, account, SessionView, create)
    response = json_answer(OpenedView(**view.model_dump(), **expected.model_dump()), status=201)
    response.headers["Location"] = f"/api/v1/sessions/{view.id}"
    return response


@routes.post("/api/v1/configs/preview")
@operation(
    "sessions", body=SessionRequest, answers={200: Answer("worked out", PreviewView)}, parameters=(_MEMORY,),
    errors=(429,),
)  # fmt: skip
async def preview_config(request: web.Request) -> web.Response:
    """What a session would be: its TOML, what it asks of each node, and what to know about it; nothing is stored."""
    coordinator = request.app[COORDINATOR]
    coordinator.limits.preview(caller_address(request))
    memory_bytes = integer_parameter(request, "memoryBytes", default=0, low=0, high=LARGEST_INTEGER)
    wanted = parse_model(await read_body(request), SessionRequest)
    return json_answer(preview(wanted, await _surroundings(request, wanted), memory_bytes))


async def _surroundings(request: web.Request, wanted: SessionRequest) -> Surroundings:
    coordinator = request.app[COORDINATOR]
    return Surroundings(
        coordinator.settings.shared, await coordinator.catalog.for_request(wanted),
        await coordinator.participants.known_memory(), await hidden_folders(request),
    )  # fmt: skip


@routes.get("/api/v1/sessions")
@operation("sessions", answers={200: Answer("a page", Page[SessionView])}, parameters=(LIMIT, CURSOR))
@shared_by_reader
async def list_sessions(request: web.Request, reader: Caller) -> Page[SessionView]:
    """The sessions, newest first; of private ones those that the caller may see."""
    before = read_cursor(request, POSITION)
    seen = visible_to(reader.account, operator=reader.operator)
    items, following = await request.app[COORDINATOR].sessions.newest_first(before, page_limit(request), seen)
    return Page[SessionView](items=items, next_cursor=encode_cursor(following))


@routes.get("/api/v1/sessions/open")
@operation("sessions", answers={200: Answer("found", Page[OfferView])}, parameters=(_MEMORY, _GPU_MEMORY, LIMIT))
async def list_open_sessions(request: web.Request) -> web.Response:
    """The sessions that a node can join, the best one first; those that it is too small for are left out.

    First those that lack nodes to begin, the nearest to its start first; then priority, then age. There is one page.
    """
    memory_bytes = integer_parameter(request, "memoryBytes", default=0, low=0, high=LARGEST_INTEGER)
    gpu_bytes = integer_parameter(request, "gpuMemoryBytes", default=0, low=0, high=LARGEST_INTEGER)
    reader = await reader_of(request)
    seen = visible_to(reader.account, operator=reader.operator)
    found = await request.app[COORDINATOR].sessions.open_to(memory_bytes, gpu_bytes, page_limit(request), seen)
    return json_answer(Page[OfferView](items=found))


@routes.get(_SESSION)
@operation("sessions", answers={200: Answer("found", SessionView)})
@shared
async def get_session(request: web.Request) -> SessionView:
    """One session."""
    return await request.app[COORDINATOR].sessions.get(request.match_info["id"])


@routes.delete(_SESSION)
@operation("sessions", who="account", answers=NO_CONTENT, errors=(409,))
async def delete_session(request: web.Request) -> web.Response:
    """204, with all that its training left on disk but for the final model; 409 while the session is under way."""
    await require_of_session(request, "delete")
    # afterwards nobody could ask for that any more
    await request.app[COORDINATOR].cleanup.training(request.match_info["id"])
    await request.app[COORDINATOR].sessions.delete(request.match_info["id"])
    return web.Response(status=204)


async def require_of_session(request: web.Request, act: Act) -> str:
    """The account that asks. Raises NotFoundError, NotAuthorizedError or ForbiddenError."""
    caller = await caller_of(request)
    if caller.account is None:
        require(act, caller)  # without a sign-in nobody needs to know whether there is such a session
    # a session never changes hands: what is read here still holds when the act is done
    row = await request.app[COORDINATOR].sessions.row(request.match_info["id"])
    require(act, caller, owner=row.owner)
    return caller.account or ""


_ACTION_WORDS: Mapping[UserAction, str] = {
    "start": "Put a drafted session into the queue; it opens to participants as soon as there is room.",
    "pause": "Let all participants pause; their work is kept.",
    "resume": "Let a paused session go on.",
    "stop": "End a session after its present round, and save the model.",
    "cancel": "End a session at once, without a model.",
}


def _action_route(action: UserAction) -> web.RouteDef:
    @operation(
        "sessions", who="account", answers={200: Answer("done", SessionView)}, errors=(409,),
        parameters=(IDEMPOTENCY_KEY,),
    )  # fmt: skip
    async def act(request: web.Request) -> web.Response:
        account = await require_of_session(request, "steer")
        work = partial(request.app[COORDINATOR].sessions.act, request.match_info["id"], action)
        return json_answer(await once(request, account, SessionView, work))

    act.__doc__ = _ACTION_WORDS[action]
    return web.post(f"/api/v1/sessions/{{id}}/{action}", act)


action_routes = [_action_route(action) for action in USER_ACTIONS]


@routes.get("/api/v1/sessions/{id}/config")
@operation(
    "sessions", parameters=(IF_NONE_MATCH,),
    answers={
        200: Answer("the config", media="application/toml", headers={"ETag": "of this text"}),
        304: Answer("as it was when it had that ETag"),
    },
)  # fmt: skip
async def get_config(request: web.Request) -> web.Response:
    """The TOML that the session's runs train from."""
    row = await request.app[COORDINATOR].sessions.row(request.match_info["id"])
    tag = hashlib.sha256(row.config.encode()).hexdigest()
    response = web.Response(status=304) if is_known(request, tag) else web.Response(
        text=row.config, content_type="application/toml"
    )  # fmt: skip
    response.etag = tag
    return response


@routes.get("/api/v1/sessions/{id}/progress")
@operation("sessions", answers={200: Answer("the newest", ProgressView)})
@shared
async def get_progress(request: web.Request) -> ProgressView:
    """How far the session is."""
    return await request.app[COORDINATOR].sessions.progress(request.match_info["id"])


@routes.get("/api/v1/sessions/{id}/logs")
@operation("sessions", answers={200: Answer("a page", Page[LogView])}, parameters=(LIMIT, CURSOR))
async def get_logs(request: web.Request) -> web.Response:
    """The training log of all peers, newest first."""
    session, limit = request.match_info["id"], page_limit(request)
    before = read_cursor(request, _LOG_POSITION)
    query = select(LogRow).where(LogRow.session_id == session).order_by(LogRow.id.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(LogRow.id < before)
    async with request.app[COORDINATOR].store.read() as rows:
        await find_session(rows, session)
        found = list(await rows.scalars(query))
    following = found[limit - 1].id if len(found) > limit else None
    items = [log_view(row) for row in found[:limit]]
    return json_answer(Page[LogView](items=items, next_cursor=encode_cursor(following)))


@routes.get("/api/v1/sessions/{id}/metrics")
@operation("sessions", answers={200: Answer("the points", Page[MetricView])}, parameters=(_FROM, _TO, _POINTS))
async def get_metrics(request: web.Request) -> web.Response:
    """The curves, a point a round at most, in order; rounds long past have fewer points."""
    session = request.match_info["id"]
    first = integer_parameter(request, "from", default=0, low=0, high=LARGEST_INTEGER)
    last = integer_parameter(request, "to", default=LARGEST_INTEGER, low=0, high=LARGEST_INTEGER)
    most = integer_parameter(request, "points", default=MAX_POINTS, low=1, high=MAX_POINTS)
    async with request.app[COORDINATOR].store.read() as rows:
        await find_session(rows, session)
        found = await curve(rows, session, first=first, last=last, most=most)
    return json_answer(Page[MetricView](items=[metric_view(row) for row in found]))
