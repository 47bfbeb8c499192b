"""The event log over WebSocket and SSE: in order, without gaps, resumable, not held up by a slow listener."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket as sockets
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cotrain.protocol import Event
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import (
    LIMIT_S,
    Client,
    client,
    coordinator_client,
    create_session,
    get_json,
    post_json,
    receive,
    register,
    services,
    settings_for,
    slow_websocket,
    status_message,
    until,
    uplink,
    waiting_session,
    welcomed,
    write_checkpointer_status,
)

__all__ = ["client"]

SESSIONS = "/api/v1/sessions"


async def next_event(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    return dict(await socket.receive_json(timeout=LIMIT_S))


async def test_a_snapshot_comes_first_and_live_events_follow(client: Client) -> None:
    session = await create_session(client)
    async with client.ws_connect(f"{SESSIONS}/{session}/events") as socket:
        snapshot = await next_event(socket)
        assert snapshot["type"] == "snapshot"
        assert snapshot["data"]["session"]["status"] == "draft"
        assert snapshot["data"]["progress"]["sessionId"] == session
        await post_json(client, f"{SESSIONS}/{session}/start")
        following = [await next_event(socket), await next_event(socket)]
    assert [event["data"]["status"] for event in following] == ["pending", "waiting"]
    assert [event["seq"] for event in following] == [snapshot["seq"] + 1, snapshot["seq"] + 2]


@BOTH
async def test_after_replays_what_was_missed(client: Client) -> None:
    session = await waiting_session(client)
    async with client.ws_connect(f"{SESSIONS}/{session}/events?after=1") as socket:
        assert (await next_event(socket))["type"] == "snapshot"
        replayed = [await next_event(socket), await next_event(socket)]
        assert [event["seq"] for event in replayed] == [2, 3]
        await post_json(client, f"{SESSIONS}/{session}/pause")
        live = await next_event(socket)
        assert (live["seq"], live["data"]["status"]) == (4, "paused")


async def test_a_long_history_is_replayed_whole(client: Client) -> None:
    session = await create_session(client)
    async with services(client).store.write() as transaction:
        for number in range(1200):
            await transaction.emit(session, "training.log", {"number": number})
    async with client.ws_connect(f"{SESSIONS}/{session}/events?after=0") as socket:
        await next_event(socket)
        seen = [(await next_event(socket))["seq"] for _ in range(1201)]
    assert seen == list(range(1, 1202))


async def test_nothing_is_missed_by_who_comes_while_much_is_stored(client: Client) -> None:
    session = await create_session(client)

    async def store_much() -> None:
        for _ in range(5):  # more in each commit than a listener may have waiting, and than a page of the replay
            async with services(client).store.write() as transaction:
                for number in range(700):
                    await transaction.emit(session, "training.log", {"number": number})

    async def listen() -> list[int]:
        async with client.ws_connect(f"{SESSIONS}/{session}/events?after=0") as socket:
            await next_event(socket)
            return [(await next_event(socket))["seq"] for _ in range(3501)]

    *listened, _ = await asyncio.gather(listen(), listen(), store_much())
    assert listened == [list(range(1, 3502))] * 2


async def test_changes_of_state_are_never_merged(client: Client) -> None:
    session = await waiting_session(client)
    async with client.ws_connect(f"{SESSIONS}/{session}/events") as socket:
        await next_event(socket)
        for action in ("pause", "resume") * 5:
            services(client).pump.mark(session)
            await post_json(client, f"{SESSIONS}/{session}/{action}")
        states: list[str] = []
        while len(states) < 10:
            event = await next_event(socket)
            if event["type"] == "session.state":
                states.append(event["data"]["status"])
    assert states == ["paused", "waiting"] * 5


async def test_progress_is_in_the_agreed_form_and_bounded_in_rate(client: Client, tmp_path: Path) -> None:
    session = await waiting_session(client)
    async with client.ws_connect(f"{SESSIONS}/{session}/events") as socket:
        await next_event(socket)
        progress: list[dict[str, Any]] = []
        for sequence in range(1, 31):
            write_checkpointer_status(
                tmp_path, session, sequence=sequence, samples_committed=sequence, samples_wanted=60
            )
            await asyncio.sleep(0.02)
        while not progress or progress[-1]["data"]["metrics"]["samplesCommitted"] < 30:
            progress.append(await next_event(socket))
    assert {event["type"] for event in progress} == {"training.progress"}
    assert set(progress[-1]["data"]) == {"sessionId", "progress", "loss", "participants", "metrics"}
    gaps = [later["time"] - earlier["time"] for earlier, later in itertools.pairwise(progress)]
    assert all(gap > 0.2 for gap in gaps), gaps


@BOTH
async def test_participants_and_their_records_are_announced_once(client: Client) -> None:
    session = await waiting_session(client)
    answer = await register(client, session)
    async with client.ws_connect(f"{SESSIONS}/{session}/events") as listener:
        await next_event(listener)
        async with uplink(client, answer) as socket:
            await welcomed(socket)
            for _ in range(2):
                await socket.send_str(status_message(session, 1, records=2))
                await receive(socket, "ack")
        seen: list[tuple[str, Any]] = []
        while not seen or seen[-1] != ("participant.state", "offline"):
            event = await next_event(listener)
            data = event["data"]
            if event["type"] != "training.progress":
                seen.append((event["type"], data.get("state") or data.get("status") or data.get("number")))
    assert seen == [
        ("participant.state", "joining"),
        ("training.log", 1),
        ("training.log", 2),
        ("participant.state", "online"),
        ("session.state", "training"),
        ("participant.state", "offline"),
    ]


async def read_sse(response: aiohttp.ClientResponse, count: int) -> list[tuple[int, str, dict[str, Any]]]:
    """(id, event, data) of the next `count` events."""
    found: list[tuple[int, str, dict[str, Any]]] = []
    fields: dict[str, str] = {}
    while len(found) < count:
        line = (await asyncio.wait_for(response.content.readline(), LIMIT_S)).decode().rstrip("\n")
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
            fields = {}
    return found


async def test_sse_resumes_by_last_event_id(client: Client) -> None:
    session = await waiting_session(client)
    path = f"{SESSIONS}/{session}/events"
    async with client.get(path) as response:
        assert response.content_type == "text/event-stream"
        [(newest, kind, _)] = await read_sse(response, 1)
        assert (newest, kind) == (3, "snapshot")
    async with client.get(path, headers={"Last-Event-ID": "1"}) as response:
        found = await read_sse(response, 3)
    assert [(number, kind) for number, kind, _ in found] == [
        (1, "snapshot"), (2, "session.state"), (3, "session.state"),
    ]  # fmt: skip


@pytest.mark.parametrize("after", ["-1", "x", "1e3", "9" * 30])
async def test_a_wrong_resume_point_is_refused(client: Client, after: str) -> None:
    session = await create_session(client)
    await get_json(client, f"{SESSIONS}/{session}/events?after={after}", status=422)


async def test_a_foreign_page_cannot_open_a_socket(client: Client) -> None:
    session = await create_session(client)
    with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
        await client.ws_connect(f"{SESSIONS}/{session}/events", origin="http://evil.test")
    assert raised.value.status == 403


async def test_a_slow_listener_is_dropped_and_the_others_are_not(client: Client) -> None:
    session = await create_session(client)
    hub = services(client).hub
    path = f"{SESSIONS}/{session}/events"
    received: list[int] = []
    async with client.ws_connect(path) as quick:
        await next_event(quick)
        slow = await slow_websocket(client.host, client.port, path)
        try:
            await until(lambda: len(hub._listeners[session]) == 2)
            filler = "x" * 20_000
            for number in range(2, 4002):
                hub.publish(session, [Event(seq=number, time=0, type="training.log", data={"filler": filler})])
                received.append((await next_event(quick))["seq"])
                if len(hub._listeners[session]) == 1:
                    break
            else:
                raise AssertionError("the slow listener was never dropped")
            tail = await read_to_end(slow)
        finally:
            slow.close()
    assert received == list(range(2, received[-1] + 1))
    close_frame, reason = tail.rsplit(b"too slow: resume with after=", 1)
    assert close_frame.endswith((1013).to_bytes(2, "big"))
    assert 1 <= int(reason) < received[-1]


async def test_events_keep_their_order_whether_they_wait_or_not(client: Client) -> None:
    session = await create_session(client)
    hub, filler = services(client).hub, "x" * 20_000
    numbers = itertools.count(2)
    async with client.ws_connect(f"{SESSIONS}/{session}/events") as socket:
        await next_event(socket)
        await until(lambda: len(hub._listeners[session]) == 1)
        listener, waited, expected = next(iter(hub._listeners[session])), 0, 2
        for burst in (1, 200, 3, 150, 1, 250):  # more than the sockets hold, and fewer than end a listener
            for _ in range(burst):
                event = Event(seq=next(numbers), time=0, type="training.log", data={"filler": filler})
                hub.publish(session, [event])
            waited += len(listener)
            for _ in range(burst):
                assert (await next_event(socket))["seq"] == expected
                expected += 1
            assert len(listener) == 0
        assert waited > 0  # else all of it was written at once
        assert not listener.ended.is_set()


async def read_to_end(raw: sockets.socket) -> bytes:
    """Everything that is still to come, until the other side closes."""
    loop = asyncio.get_running_loop()
    received = bytearray()
    while chunk := await asyncio.wait_for(loop.sock_recv(raw, 1 << 20), LIMIT_S):
        received += chunk
    return bytes(received)


async def test_listeners_hear_that_the_coordinator_goes_away(tmp_path: Path) -> None:
    async with coordinator_client(settings_for(tmp_path)) as client:
        session = await create_session(client)
        socket = await client.ws_connect(f"{SESSIONS}/{session}/events")
        await next_event(socket)
        closing = asyncio.create_task(client.server.close())
        closed = await socket.receive(timeout=LIMIT_S)
        assert closed.data == 1001
        await closing
