"""Health, readiness and measures, for whoever watches over the coordinator; and the measuring of every request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping
from typing import Any, Literal, TypeVar

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from sqlalchemy import func, select

from coordinator.api.events import events
from coordinator.api.operations import Answer, operation
from coordinator.api.requests import json_answer
from coordinator.api.uplink import stream
from coordinator.chain.machine import EntryState
from coordinator.context import COORDINATOR, Coordinator
from coordinator.database import database_failures
from coordinator.json_log import FIELDS
from coordinator.models import SessionRow
from coordinator.observability import ABORTED, OTHER, LearningCounts, Standing, StreamKind
from cotrain.request import CamelModel
from cotrain.status import State

routes = web.RouteTableDef()

_AnswerT = TypeVar("_AnswerT")

_logger = logging.getLogger(__name__)
_DATABASE_LIMIT_S = 2.0
_STREAMS: Mapping[Any, StreamKind] = {events: "listener", stream: "uplink"}
_UPGRADED = "101"
_READS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})


class Health(CamelModel):
    """That the process answers."""

    status: Literal["ok"] = "ok"


class Readiness(CamelModel):
    """What a coordinator that is ready has, and whether it is there."""

    status: Literal["ready", "starting"]
    database: bool
    checkpointer: bool
    missing: list[str]
    """What is not there, and where to look, for people."""


@routes.get("/healthz")
@operation("operations", answers={200: Answer("it does", Health)})
async def healthz(_request: web.Request) -> web.Response:
    """The process answers."""
    return json_answer(Health())


@routes.get("/readyz")
@operation("operations", answers={200: Answer("ready", Readiness), 503: Answer("not yet", Readiness)})
async def readyz(request: web.Request) -> web.Response:
    """The database and the checkpointer are there; 503 with what is missing otherwise."""
    coordinator = request.app[COORDINATOR]
    found = readiness(
        database=await sessions_by_state(coordinator) is not None,
        checkpointer=coordinator.checkpointer.ready is not None,
    )
    return json_answer(found, status=503 if found.missing else 200)


@routes.get("/metrics")
@operation("operations", answers={200: Answer("Prometheus' text format", media="text/plain")})
async def measures(request: web.Request) -> web.Response:
    """Measures for Prometheus."""
    coordinator = request.app[COORDINATOR]
    standing = Standing(
        sessions=await sessions_by_state(coordinator), learning=await _learning_counts(coordinator),
        participants_connected=len(coordinator.uplinks),
        checkpointer_up=coordinator.checkpointer.ready is not None, chain_entries=await _chain_entries(coordinator),
        chain_last_error_at=coordinator.recorder.last_error_at,
    )  # fmt: skip
    body = coordinator.metrics.exposition(standing)
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_PLAIN_0_0_4})


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count and time every request; a line in the log for those that change something or fail by our fault."""
    started, status, closed_with = time.perf_counter(), ABORTED, None
    kind = _STREAMS.get(request.match_info.handler)
    metrics = request.app[COORDINATOR].metrics
    try:
        if kind is None:
            response = await handler(request)
        else:
            with metrics.stream(kind).track_inprogress():
                response = await handler(request)
        status = str(response.status)
        if isinstance(response, web.WebSocketResponse):
            closed_with = response.close_code
        return response
    except web.HTTPException as error:  # a redirect
        status = str(error.status)
        raise
    finally:
        seconds = time.perf_counter() - started
        route = route_template(request)
        metrics.answered(request.method, route, status, None if kind else seconds)
        if kind == "uplink" and status in (_UPGRADED, ABORTED):
            metrics.uplink_closed(closed_with)
        _log_request(request, route, status, seconds)


def route_template(request: web.Request) -> str:
    """The request's route as it was declared, or OTHER; never what the client made of it."""
    resource = request.match_info.route.resource
    return OTHER if resource is None else resource.canonical


def readiness(*, database: bool, checkpointer: bool) -> Readiness:
    """What is there, and what is missing. Pure."""
    missing = []
    if not database:
        missing.append("the database does not answer: see the coordinator's log")
    if not checkpointer:
        missing.append("the checkpointer is not up: see logs/system/checkpointer.log in the data folder")
    return Readiness(
        status="starting" if missing else "ready", database=database, checkpointer=checkpointer, missing=missing
    )


async def sessions_by_state(coordinator: Coordinator) -> dict[State, int] | None:
    """How many sessions are in each state; None where the database does not say so in time."""
    query = select(SessionRow.state, func.count()).group_by(SessionRow.state)

    async def ask() -> dict[State, int]:
        async with coordinator.store.read() as rows:
            return {row[0]: row[1] for row in await rows.execute(query)}

    return await _in_time(ask())


async def _chain_entries(coordinator: Coordinator) -> dict[EntryState, int] | None:
    """How many entries of records are in each state; None without a chain, too."""
    return await _in_time(coordinator.records.by_state()) if coordinator.settings.config.chain.enabled else None


async def _in_time(asking: Awaitable[_AnswerT]) -> _AnswerT | None:
    """What the database answers; None where it does not do so in time."""
    try:
        async with asyncio.timeout(_DATABASE_LIMIT_S):
            return await asking
    except database_failures() as error:  # a time that is over is an OSError, too
        _logger.warning("the database does not answer (%s)", type(error).__name__)
        return None


async def _learning_counts(coordinator: Coordinator) -> LearningCounts | None:
    try:
        async with asyncio.timeout(_DATABASE_LIMIT_S):
            return await coordinator.learning.cycles.counts()
    except database_failures() as error:
        _logger.warning("the database does not answer (%s)", type(error).__name__)
        return None


def _log_request(request: web.Request, route: str, status: str, seconds: float) -> None:
    level = logging.DEBUG if request.method in _READS and not status.startswith("5") else logging.INFO
    if _logger.isEnabledFor(level):
        fields = {"method": request.method, "route": route, "status": status, "durationS": round(seconds, 6)}
        _logger.log(
            level, "%s %s: %s in %.3f s", request.method, route, status, seconds, extra={FIELDS: fields}
        )  # fmt: skip
