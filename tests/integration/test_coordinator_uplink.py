"""A participant's uplink: what is acknowledged is stored, once, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from coordinator.views import iso_time
from cotrain.protocol import MAX_MESSAGE_BYTES, StatusMessage, WishMessage
from cotrain.sections import LARGEST_INTEGER
from cotrain.status import Record, now
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import (
    LIMIT_S,
    PEER_ID,
    Client,
    client,
    commands,
    get_json,
    post_json,
    receive,
    register,
    services,
    slow_websocket,
    state_of,
    status_message,
    status_of,
    until,
    until_state,
    uplink,
    waiting_session,
    welcomed,
    write_checkpointer_status,
)

__all__ = ["client"]

SESSIONS = "/api/v1/sessions"


async def participant_of(client: Client, session: str) -> dict[str, object]:
    return dict((await get_json(client, f"{SESSIONS}/{session}/participants"))["items"][0])


@BOTH
async def test_a_status_is_applied_once_and_makes_the_session_train(client: Client) -> None:
    session = await waiting_session(client)
    answer = await register(client, session)
    assert (await participant_of(client, session))["state"] == "offline"
    async with uplink(client, answer) as socket:
        assert (await welcomed(socket))["acknowledged"] == {}
        assert (await participant_of(client, session))["state"] == "joining"
        for _ in range(2):
            await socket.send_str(status_message(session, 1, records=3))
            assert (await receive(socket, "ack"))["seq"] == 1
        assert await state_of(client, session) == "training"
        participant = await participant_of(client, session)
        assert (participant["state"], participant["step"], participant["loss"]) == ("online", 10, 2.5)
        progress = await get_json(client, f"{SESSIONS}/{session}/progress")
        assert (progress["peers"], progress["loss"], progress["tokensPerSecond"]) == (1, 2.5, 100.0)
    logs = (await get_json(client, f"{SESSIONS}/{session}/logs"))["items"]
    assert [entry["number"] for entry in logs] == [3, 2, 1]


async def test_a_point_of_the_curves_has_what_those_said_who_trained_then(client: Client, tmp_path: Path) -> None:
    session = await waiting_session(client)
    closed = {"number": 1, "time": 5.0, "kind": "round", "message": "round 1", "data": {"round": 1, "samples": 64}}
    async with uplink(client, await register(client, session)) as socket:
        await welcomed(socket)
        await socket.send_str(status_message(session, 1, learning_rate=0.002))
        await receive(socket, "ack")
        write_checkpointer_status(tmp_path, session, round=1, learning_rate=0.5, records=[closed])

        async def points() -> list[dict[str, Any]]:
            return list((await get_json(client, f"{SESSIONS}/{session}/metrics"))["items"])

        async def is_there() -> bool:
            return await points() != []

        await until(is_there)
        (point,) = await points()
    assert (point["round"], point["samples"], point["loss"]) == (1, 64, 2.5)
    assert (point["tokensPerSecond"], point["learningRate"]) == (100.0, 0.002)


@BOTH
async def test_a_participant_shows_how_it_is_reached_and_when_it_last_synchronized(client: Client) -> None:
    session = await waiting_session(client)
    answer = await register(client, session)

    async def told(seq: int, *records: Record, **changes: Any) -> tuple[object, object]:
        status = status_of(session, PEER_ID, sequence=seq, records=list(records), **changes)
        await socket.send_str(StatusMessage(run=status.run, seq=seq, status=status).model_dump_json(by_alias=True))
        await receive(socket, "ack")
        found = await participant_of(client, session)
        return found["connection"], found["lastSyncAt"]

    def round_(number: int, time: float) -> Record:
        return Record(number=number, time=time, kind="round", message="closed", data={"round": number})

    async with uplink(client, answer) as socket:
        await welcomed(socket)
        assert await told(1) == (None, None)
        before = now()
        assert await told(2, round_(1, before), addresses=["/ip4/9.9.9.9/tcp/4"]) == ("direct", iso_time(before))
        relayed = ["/ip4/9.9.9.9/tcp/4/p2p/12D3KooWRelay/p2p-circuit"]
        assert await told(3, addresses=relayed) == ("relayed", iso_time(before))
        _, wrong = await told(4, round_(2, 1e30))
        assert iso_time(before) <= str(wrong) <= iso_time(now())


@BOTH
async def test_a_new_connection_resumes_where_the_old_one_was(client: Client) -> None:
    session = await waiting_session(client)
    answer = await register(client, session)
    async with uplink(client, answer) as socket:
        await welcomed(socket)
        for seq in range(1, 6):
            await socket.send_str(status_message(session, seq, records=seq))
        while (await receive(socket, "ack"))["seq"] < 5:
            pass
    async with uplink(client, answer) as socket:
        assert (await welcomed(socket))["acknowledged"] == {"run-1": 5}
        for seq in (4, 5, 6):  # two of them are old news
            await socket.send_str(status_message(session, seq, records=seq))
        while (await receive(socket, "ack"))["seq"] < 6:
            pass
    logs = (await get_json(client, f"{SESSIONS}/{session}/logs"))["items"]
    assert [entry["number"] for entry in logs] == [6, 5, 4, 3, 2, 1]

    async def offline() -> bool:
        return (await participant_of(client, session))["state"] == "offline"

    await until(offline)


async def test_a_newer_connection_takes_over(client: Client) -> None:
    session = await waiting_session(client)
    answer = await register(client, session)
    async with uplink(client, answer) as old, uplink(client, answer) as new:
        await welcomed(old)
        await welcomed(new)
        assert (await old.receive(timeout=LIMIT_S)).type is WSMsgType.CLOSE
        assert (await get_json(client, f"{SESSIONS}/{session}"))["peers"] == 1


@pytest.mark.parametrize("token", ["", "Bearer wrong", "Basic abc"])
async def test_without_the_token_there_is_no_upgrade(client: Client, token: str) -> None:
    session = await waiting_session(client)
    answer = await register(client, session)
    path = f"{SESSIONS}/{session}/participants/{answer['participant']}/stream"
    with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
        await client.ws_connect(path, headers={"Authorization": token})
    assert raised.value.status == 401


async def test_three_bad_messages_end_the_uplink(client: Client) -> None:
    session = await waiting_session(client)
    async with uplink(client, await register(client, session)) as socket:
        await welcomed(socket)
        foreign = status_of(session, "12D3KooWSomebodyElse").model_dump_json(by_alias=True)
        nan = json.loads(status_message(session, 1))
        nan["status"]["loss"] = float("nan")
        bad = ["{", json.dumps(nan), f'{{"type":"status","run":"run-1","seq":1,"status":{foreign}}}']
        for text in bad:
            await socket.send_str(text)
            assert (await receive(socket, "error"))["code"] == "protocol"
        closed = await socket.receive(timeout=LIMIT_S)
        assert (closed.type, closed.data) == (WSMsgType.CLOSE, 1008)
    assert await state_of(client, session) == "waiting"


@BOTH
async def test_what_a_database_might_refuse_is_stored_or_refused_before(client: Client) -> None:
    session = await waiting_session(client)
    async with uplink(client, await register(client, session)) as socket:
        await welcomed(socket)
        message = json.loads(status_message(session, 10**12, records=1, samples_committed=LARGEST_INTEGER))
        data = {"round": LARGEST_INTEGER, "text": "a\0b"}
        message["status"]["records"][0] |= {"number": 10**12, "kind": "round", "message": "a\0b", "data": data}
        for place in (message, message["status"]["records"][0]):
            kept = dict(place)
            place["seq" if "seq" in place else "number"] = 2**63
            await socket.send_json(message)
            assert (await receive(socket, "error"))["code"] == "protocol"
            place.update(kept)
        await socket.send_json(message)
        assert (await receive(socket, "ack"))["seq"] == 10**12
    (record,) = (await get_json(client, f"{SESSIONS}/{session}/logs"))["items"]
    assert (record["number"], record["message"], record["data"]) == (10**12, "a\ufffdb", data)


@pytest.mark.parametrize("wrong", [{"seq": 2**63}, {"run": "a\x00b"}, {"number": 2**63}], ids=["seq", "run", "record"])
async def test_what_no_database_can_hold_is_refused(client: Client, wrong: dict[str, Any]) -> None:
    session = await waiting_session(client)
    async with uplink(client, await register(client, session)) as socket:
        await welcomed(socket)
        message = json.loads(status_message(session, 1, records=1))
        if "number" in wrong:
            message["status"]["records"][0] |= wrong
        elif "run" in wrong:
            message["run"] = message["status"]["run"] = wrong["run"]
        else:
            message |= wrong
        await socket.send_json(message)
        assert (await receive(socket, "error"))["code"] == "protocol"
        await socket.send_str(status_message(session, 1))  # the uplink goes on
        assert (await receive(socket, "ack"))["seq"] == 1


async def test_a_status_before_hello_is_refused(client: Client) -> None:
    session = await waiting_session(client)
    async with uplink(client, await register(client, session)) as socket:
        await socket.send_str(status_message(session, 1))
        assert "hello" in (await receive(socket, "error"))["message"]


async def test_a_message_that_is_too_large_ends_the_uplink(client: Client) -> None:
    session = await waiting_session(client)
    async with uplink(client, await register(client, session)) as socket:
        await welcomed(socket)
        await socket.send_str("x" * (MAX_MESSAGE_BYTES + 1))
        closed = await socket.receive(timeout=LIMIT_S)
        assert (closed.type, closed.data) == (WSMsgType.CLOSE, 1009)


async def test_wishes_reach_those_who_are_here_and_those_who_come_later(client: Client) -> None:
    session = await waiting_session(client)
    answer = await register(client, session)
    async with uplink(client, answer) as socket:
        assert (await welcomed(socket))["wish"] == "run"
        for action, wish in (("pause", "pause"), ("resume", "run"), ("pause", "pause")):
            await post_json(client, f"{SESSIONS}/{session}/{action}")
            assert (await receive(socket, "wish"))["wish"] == wish
    async with uplink(client, answer) as socket:
        assert (await welcomed(socket))["wish"] == "pause"


async def test_a_stopping_session_waits_for_its_participants(client: Client, tmp_path: Path) -> None:
    session = await waiting_session(client)
    async with uplink(client, await register(client, session)) as socket:
        await welcomed(socket)
        await socket.send_str(status_message(session, 1))
        await receive(socket, "ack")
        await post_json(client, f"{SESSIONS}/{session}/stop")
        assert (await receive(socket, "wish"))["wish"] == "stop"
        assert ("finish", session) not in commands(tmp_path)
        await socket.send_str(status_message(session, 2, status="stopped", phase="done"))
        await until_state(client, session, "stopped")
    assert commands(tmp_path).count(("finish", session)) == 1


async def test_a_participant_that_does_not_read_is_let_go(client: Client) -> None:
    session = await waiting_session(client)
    answer = await register(client, session)
    path = f"{SESSIONS}/{session}/participants/{answer['participant']}/stream"
    stuck = await slow_websocket(client.host, client.port, path, f"Authorization: Bearer {answer['token']}\r\n")
    try:
        await asyncio.get_running_loop().sock_sendall(stuck, masked_text(b'{"type":"hello"}'))
        uplinks = services(client).uplinks
        await until(lambda: len(uplinks) == 1)
        (link,) = uplinks.connected(session).values()
        for _ in range(2000):
            uplinks.push(session, WishMessage(wish="run", reason="x" * 10_000))
            await asyncio.sleep(0)
        assert link.ended.is_set()
        await until(lambda: len(uplinks) == 0)
    finally:
        stuck.close()


def masked_text(payload: bytes) -> bytes:
    """A short text frame as a client sends it, masked with zeros."""
    return bytes((0x81, 0x80 | len(payload))) + bytes(4) + payload


async def test_leaving_closes_the_uplink(client: Client) -> None:
    session = await waiting_session(client)
    answer = await register(client, session)
    async with uplink(client, answer) as socket:
        await welcomed(socket)
        path = f"{SESSIONS}/{session}/participants/{answer['participant']}"
        async with client.delete(path, headers={"Authorization": f"Bearer {answer['token']}"}) as response:
            assert response.status == 204
        assert (await socket.receive(timeout=LIMIT_S)).type is WSMsgType.CLOSE
