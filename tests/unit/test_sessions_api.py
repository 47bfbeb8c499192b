"""How `cotrain sessions` asks: pages, repetitions, streams that break off; against a server that misbehaves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cotrain.backoff import Backoff
from cotrain.errors import NotAuthorizedError, NotFoundError, ProtocolError, RateLimitedError
from node.sessions import api as api_module
from node.sessions.api import SessionsApi

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def asking(method: str, path: str, handler: Handler, **options: Any) -> AsyncIterator[SessionsApi]:
    """A client of a server with one route."""
    app = web.Application()
    app.router.add_route(method, f"/api/v1/{path}", handler)
    async with TestServer(app, host="127.0.0.1") as server, SessionsApi(origin(server), **options) as api:
        yield api


def origin(server: TestServer[web.Application]) -> str:
    return str(server.make_url("")).rstrip("/")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "STREAM_BACKOFF", Backoff(0.01, 0.01))


def problem(status: int, code: str) -> web.Response:
    return web.json_response({"code": code, "detail": "is so"}, status=status, content_type="application/problem+json")


async def test_a_list_is_read_page_by_page_up_to_what_was_asked_for() -> None:
    asked: list[dict[str, str]] = []

    async def page(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        first = int(request.query.get("cursor", "0"))
        count = min(int(request.query["limit"]), 100)
        following = first + count
        items = [{"id": number} for number in range(first, following)]
        return web.json_response({"items": items, "nextCursor": str(following) if following < 250 else None})

    async with asking("GET", "sessions", page) as api:
        assert [item["id"] for item in await api.items("sessions", most=230)] == list(range(230))
        assert asked == [{"limit": "200"}, {"limit": "130", "cursor": "100"}, {"limit": "30", "cursor": "200"}]
        assert len(await api.items("sessions", most=1000)) == 300


async def test_a_change_whose_answer_was_lost_is_asked_for_again_under_the_same_key() -> None:
    keys: list[str] = []

    async def change(request: web.Request) -> web.Response:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"id": "x"})

    async with asking("POST", "sessions", change) as api:
        assert await api.post("sessions", {}) == {"id": "x"}
        await api.post("sessions", {})
    assert keys[0] == keys[1] != keys[2]


async def test_what_lets_in_is_sent_and_goes_nowhere_else() -> None:
    seen: list[tuple[str | None, str | None]] = []

    async def elsewhere(request: web.Request) -> web.Response:
        seen.append((request.headers.get("Authorization"), request.headers.get("Cotrain-Invitation")))
        raise web.HTTPFound("http://127.0.0.2:1/")

    async with asking("GET", "sessions/x", elsewhere, token="t", invitation="i") as api:
        with pytest.raises(ProtocolError):
            await api.get("sessions/x")
    assert seen == [("Bearer t", "i")]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(401, "not-authorized", NotAuthorizedError), (429, "rate-limited", RateLimitedError), (404, "x", NotFoundError)],
)
async def test_what_is_refused_is_said_with_its_kind(status: int, code: str, kind: type[Exception]) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return problem(status, code)

    async with asking("GET", "x", refuse) as api:
        with pytest.raises(kind, match="is so") as raised:
            await api.get("x")
        if status == 401:
            assert f"cotrain sessions login {api.base_url}" in str(raised.value)


async def test_a_stream_goes_on_after_its_last_event_however_it_ends() -> None:
    asked: list[str | None] = []
    waits: list[str] = []

    async def stream(request: web.Request) -> web.StreamResponse:
        asked.append(request.query.get("after"))
        if len(asked) == 2:
            return problem(503, "x")
        if len(asked) == 5:
            return problem(404, "not-found")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        number = 10 * len(asked)
        await response.write(f': here\n\nid: {number}\nevent: training.log\ndata: {{"seq": {number}}}\n\n'.encode())
        if len(asked) == 1:
            assert request.transport is not None
            request.transport.close()
        elif len(asked) == 3:
            await response.write(b'event: end\ndata: {"code": 1001}\n\n')
        return response

    numbers: list[int | None] = []

    async def read(api: SessionsApi) -> None:
        async with aclosing(api.events("x", after=3)) as events:
            async for event in events:
                numbers.append(event.number)

    async with asking("GET", "sessions/x/events", stream, on_wait=waits.append) as api:
        with pytest.raises(NotFoundError):
            await read(api)
    assert numbers == [10, 30, 40]
    assert asked == ["3", "10", "10", "30", "40"]
    assert len(waits) == 4
