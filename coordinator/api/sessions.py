"""/api/v1/sessions: make, list, read, steer and delete sessions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from aiohttp import web
from pydantic import TypeAdapter
from sqlalchemy import select

from coordinator.api.callers import caller_of
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
    LARGEST_INTEGER,
    encode_cursor,
    integer_parameter,
    json_answer,
    page_limit,
    parse_model,
    read_body,
    read_cursor,
)
from coordinator.api.shared import shared
from coordinator.auth.permissions import Act, require
from coordinator.context import COORDINATOR
from coordinator.lifecycle import USER_ACTIONS, UserAction
from coordinator.metrics import MAX_POINTS, curve
from coordinator.models import LogRow
from coordinator.preview import outlook, preview
from coordinator.sessions import Position, find_session
from coordinator.views import (
    LogView,
    MetricView,
    OpenedView,
    Page,
    PreviewView,
    ProgressView,
    SessionView,
    log_view,
    metric_view,
)
from cotrain.errors import NotFoundError
from cotrain.protocol import Asset
from cotrain.request import SessionRequest

routes = web.RouteTableDef()

_POSITION: TypeAdapter[Position] = TypeAdapter(Position)
_LOG_POSITION: TypeAdapter[int] = TypeAdapter(int)
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
_RANGE = Parameter("Range", {"type": "string"}, "bytes to begin or end with (RFC 9110, 14)", place="header")


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
    shared, account = request.app[COORDINATOR].settings.shared, caller.account or ""
    expected = outlook(wanted, shared)
    create = partial(request.app[COORDINATOR].sessions.create, wanted, account)
    view = await once(request, account, SessionView, create)
    response = json_answer(OpenedView(**view.model_dump(), **expected.model_dump()), status=201)
    response.headers["Location"] = f"/api/v1/sessions/{view.id}"
    return response


@routes.post("/api/v1/configs/preview")
@operation(
    "sessions", body=SessionRequest, answers={200: Answer("worked out", PreviewView)}, parameters=(_MEMORY,)
)  # fmt: skip
async def preview_config(request: web.Request) -> web.Response:
    """What a session would be: its TOML, what it asks of each node, and what to know about it; nothing is stored."""
    memory_bytes = integer_parameter(request, "memoryBytes", default=0, low=0, high=LARGEST_INTEGER)
    wanted = parse_model(await read_body(request), SessionRequest)
    return json_answer(preview(wanted, request.app[COORDINATOR].settings.shared, memory_bytes))


@routes.get("/api/v1/sessions")
@operation("sessions", answers={200: Answer("a page", Page[SessionView])}, parameters=(LIMIT, CURSOR))
@shared
async def list_sessions(request: web.Request) -> Page[SessionView]:
    """The sessions, newest first."""
    before = read_cursor(request, _POSITION)
    items, following = await request.app[COORDINATOR].sessions.newest_first(before, page_limit(request))
    return Page[SessionView](items=items, next_cursor=encode_cursor(following))


@routes.get("/api/v1/sessions/{id}")
@operation("sessions", answers={200: Answer("found", SessionView)})
@shared
async def get_session(request: web.Request) -> SessionView:
    """One session."""
    return await request.app[COORDINATOR].sessions.get(request.match_info["id"])


@routes.delete("/api/v1/sessions/{id}")
@operation("sessions", who="account", answers=NO_CONTENT, errors=(409,))
async def delete_session(request: web.Request) -> web.Response:
    """204; 409 while the session is under way."""
    await _require_of_session(request, "delete")
    await request.app[COORDINATOR].sessions.delete(request.match_info["id"])
    return web.Response(status=204)


async def _require_of_session(request: web.Request, act: Act) -> str:
    """The account that asks. Raises NotFoundError, NotAuthorizedError or ForbiddenError."""
    caller = await caller_of(request)
    if caller.account is None:
        require(act, caller)  # without a sign-in nobody needs to know whether there is such a session
    # a session never changes hands: what is read here still holds when the act is done
    row = await request.app[COORDINATOR].sessions.row(request.match_info["id"])
    require(act, caller, owner=row.owner)
    return caller.account or ""


_ACTION_WORDS: Mapping[UserAction, str] = {
    "start": "Open a drafted session to participants.",
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
        account = await _require_of_session(request, "steer")
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
    known = request.if_none_match or ()
    response = web.Response(status=304) if any(etag.value in (tag, "*") for etag in known) else web.Response(
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


@routes.get("/api/v1/sessions/{id}/assets")
@operation("assets", answers={200: Answer("all of them", Page[Asset])})
async def list_assets(request: web.Request) -> web.Response:
    """The files that every node of the session needs."""
    row = await request.app[COORDINATOR].sessions.row(request.match_info["id"])
    return json_answer(Page[Asset](items=[Asset.model_validate(asset) for asset in row.assets]))


@routes.get("/api/v1/sessions/{id}/assets/{sha256}")
@operation(
    "assets", parameters=(_RANGE,), errors=(416,),
    answers={
        200: Answer("the file", media="application/octet-stream"),
        206: Answer("the range of it that was asked for", media="application/octet-stream"),
    },
)  # fmt: skip
async def get_asset(request: web.Request) -> web.StreamResponse:
    """One of those files, by content; ranges are served."""
    row = await request.app[COORDINATOR].sessions.row(request.match_info["id"])
    assets = (Asset.model_validate(asset) for asset in row.assets)
    asset = next((a for a in assets if a.sha256 == request.match_info["sha256"]), None)
    # an asset's name holds no separator, so the path stays in the folder
    path = Path(row.asset_folder) / asset.name if asset else None
    if asset is None or path is None or not path.is_file():
        raise NotFoundError("the session has no such file", field="sha256", hint="…/assets lists the files")
    return web.FileResponse(
        path,
        headers={
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f'attachment; filename="{asset.name}"',
        },
    )
