"""…/events: a session's event log, live, over WebSocket or SSE; first a snapshot, then what is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from aiohttp import WSMsgType, web

from coordinator.api.callers import caller_address
from coordinator.api.operations import Answer, Parameter, operation
from coordinator.api.requests import parse_integer
from coordinator.auth.limits import SlidingWindow
from coordinator.context import COORDINATOR, Coordinator
from coordinator.frames import FrameWriter
from coordinator.hub import CLOSE_GOING_AWAY, CLOSE_TRY_AGAIN, Frame, Listener
from coordinator.progress import current_projection
from coordinator.projection import progress_event
from coordinator.sessions import find_session
from coordinator.store import events_after, last_seq
from cotrain.protocol import Event
from cotrain.sections import LARGEST_INTEGER
from cotrain.status import now

routes = web.RouteTableDef()

_SEQUENCE_NUMBER = {"type": "integer", "minimum": 0, "maximum": LARGEST_INTEGER}
_AFTER = Parameter("after", _SEQUENCE_NUMBER, "the last event that is known: those after it follow")
_LAST_EVENT_ID = Parameter("Last-Event-ID", _SEQUENCE_NUMBER, "the same, as browsers say it", place="header")
_HEARTBEAT_S = 15.0
_CLOSE_TIMEOUT_S = 2.0
_REPLAY_PAGE = 500
_MAX_INCOMING_BYTES = 4096
_MOST_MESSAGES_A_SECOND = 20
_POLICY_VIOLATION = 1008
_SSE_RETRY_MS = 2000


@routes.get("/api/v1/sessions/{id}/events")
@operation(
    "sessions", parameters=(_AFTER, _LAST_EVENT_ID),
    answers={
        101: Answer("a WebSocket of JSON objects, where an upgrade was asked for"),
        200: Answer("server-sent events", media="text/event-stream"),
    },
    errors=(429,),
)  # fmt: skip
async def events(request: web.Request) -> web.StreamResponse:
    """WebSocket where an upgrade is asked for, else SSE. `after` (or Last-Event-ID) resumes."""
    coordinator = request.app[COORDINATOR]
    session = request.match_info["id"]
    await coordinator.sessions.row(session)
    name = "after" if "after" in request.query else "Last-Event-ID"
    given = request.query.get("after", request.headers.get("Last-Event-ID"))
    after = None if given is None else parse_integer(given, name)
    with coordinator.limits.listener(caller_address(request)), coordinator.hub.listener(session) as listener:
        frames = _frames(coordinator, session, after, listener)
        serve = _serve_websocket if web.WebSocketResponse().can_prepare(request) else _serve_sse
        try:
            return await serve(request, frames, listener)
        finally:
            if listener.close_code == CLOSE_TRY_AGAIN:
                coordinator.metrics.listeners_dropped.inc()


async def _frames(
    coordinator: Coordinator, session: str, after: int | None, listener: Listener
) -> AsyncIterator[Frame | None]:
    """Snapshot, stored events after `after`, live ones; None now and then while nothing happens."""
    snapshot, newest = await _snapshot(coordinator, session)
    listener.sent = newest if after is None else min(after, newest)
    # who resumes must not skip, by the snapshot's number, what is still to be replayed
    yield Frame(listener.sent, "snapshot", snapshot)
    attached = False
    while True:
        stored = await _stored(coordinator, session, listener.sent)
        for event in stored:
            listener.sent = event.seq
            yield Frame.of(event)
        if attached and len(stored) < _REPLAY_PAGE:
            break
        if not stored:  # caught up: listen first, then look once more (to the end), so that nothing falls between
            coordinator.hub.attach(session, listener)
            attached = True
    listener.caught_up = True
    while True:
        live = await listener.next(_HEARTBEAT_S)
        if live is None:
            yield None
        elif live.seq > listener.sent:
            listener.sent = live.seq
            yield live


async def _snapshot(coordinator: Coordinator, session: str) -> tuple[bytes, int]:
    """The session as it is, and the number of the newest event that it includes."""
    async with coordinator.store.read() as rows:
        row = await find_session(rows, session)
        newest = await last_seq(rows, session)
        view = await coordinator.sessions.view(rows, row)
    projection = current_projection(row, coordinator.uplinks)
    data = {
        "session": view.model_dump(by_alias=True),
        "progress": progress_event(session, projection).model_dump(by_alias=True),
    }
    return json.dumps({"seq": newest, "time": now(), "type": "snapshot", "data": data}).encode(), newest


async def _stored(coordinator: Coordinator, session: str, after: int) -> list[Event]:
    async with coordinator.store.read() as rows:
        return await events_after(rows, session, after, _REPLAY_PAGE)


async def _serve_websocket(
    request: web.Request, frames: AsyncIterator[Frame | None], listener: Listener
) -> web.StreamResponse:
    socket = web.WebSocketResponse(
        max_msg_size=_MAX_INCOMING_BYTES, heartbeat=_HEARTBEAT_S, timeout=_CLOSE_TIMEOUT_S, compress=False
    )
    await socket.prepare(request)
    listener.writer = FrameWriter(socket, request)

    async def send() -> None:
        async for frame in frames:
            if frame is not None:
                await socket.send_frame(frame.payload, WSMsgType.TEXT)

    async def discard() -> None:
        window = SlidingWindow(_MOST_MESSAGES_A_SECOND, 1.0)
        async for _ in socket:  # listeners have nothing to say; reading answers their pings and sees their close
            if window.take("") > 0.0:
                listener.end(_POLICY_VIOLATION)
                return

    await _until_first(send(), discard(), listener.ended.wait())
    if listener.ended.is_set():
        reasons = {
            CLOSE_TRY_AGAIN: f"too slow: resume with after={listener.sent}",
            CLOSE_GOING_AWAY: "the coordinator is going away",
            _POLICY_VIOLATION: "too many messages",
        }
        reason = reasons.get(listener.close_code, "the end")
        # a listener that does not read cannot be waited for
        await socket.close(code=listener.close_code, message=reason.encode(), drain=False)
    return socket


async def _serve_sse(
    request: web.Request, frames: AsyncIterator[Frame | None], listener: Listener
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    await response.write(f"retry: {_SSE_RETRY_MS}\n\n".encode())

    async def send() -> None:
        async for frame in frames:
            await response.write(b": still here\n\n" if frame is None else _sse_bytes(frame))

    await _until_first(send(), listener.ended.wait())
    if listener.close_code == CLOSE_TRY_AGAIN and request.transport is not None:
        request.transport.abort()  # what is queued would never be read; the browser resumes by Last-Event-ID
    elif listener.ended.is_set():
        # without an id, so that whoever comes back resumes where it was; one that does not read is not waited for
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await response.write(f'event: end\ndata: {{"code": {listener.close_code}}}\n\n'.encode())
    return response


def _sse_bytes(frame: Frame) -> bytes:
    return f"id: {frame.seq}\nevent: {frame.kind}\ndata: ".encode() + frame.payload + b"\n\n"


async def _until_first(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Run side by side until one ends, then cancel the others; a fault is raised, a lost peer is not."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, ConnectionError):
            raise result
