"""`kill -9` of the coordinator at random moments, while nodes send and somebody listens: nothing acknowledged is lost.

After each restart the event log is read whole. What a node was told is stored must be there once and in order, and what
a listener has heard must still stand under its number: no event is told before it is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from coordinator.database import URL_VARIABLE
from cotrain.protocol import StatusMessage
from cotrain.status import Record, now
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import (
    LIMIT_S,
    WALLET,
    bearer,
    make_peer,
    registration,
    sign_in,
    status_of,
)
from tests.integration.test_coordinator_restart import SESSIONS, serving, wait_for_status

pytestmark = [pytest.mark.chaos]

FEW, MANY = 3, 20
SEED = 6
VOLUNTEERS = 4
IN_FLIGHT = 16
"""Snapshots that a volunteer has sent and that are not acknowledged, at most."""
LONGEST_LIFE_S = 0.8
"""From the first acknowledgement of a life to its end, at most."""
WINDOW = 4
"""Records in a snapshot: the newest ones, as in a node's."""

Known = dict[int, tuple[str, str, int]]
"""Events by their number: type, source and the record's number, as far as they have them."""


async def messages_of(socket: aiohttp.ClientWebSocketResponse) -> AsyncIterator[dict[str, Any]]:
    """What comes, until the connection ends in whatever way."""
    while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
        yield dict(json.loads(message.data))


class Volunteer:
    """One node's uplink: sends again what was not acknowledged, as a spool does."""

    def __init__(self, session: str, peer: str, answer: dict[str, Any]):
        self._session, self._peer = session, peer
        self.participant = str(answer["participant"])
        self._token = str(answer["token"])
        self.acknowledged = 0
        self._moved = asyncio.Event()
        self._welcomed = asyncio.Event()

    async def talk(self, http: aiohttp.ClientSession, url: str, first_ack: asyncio.Event) -> None:
        """Until the coordinator is gone."""
        path = f"{url}{SESSIONS}/{self._session}/participants/{self.participant}/stream"
        headers = {"Authorization": bearer(self._token)}
        self._welcomed.clear()
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            async with http.ws_connect(path, headers=headers) as socket:
                await socket.send_json({"type": "hello"})
                sending = asyncio.create_task(self._send(socket))
                try:
                    async for told in messages_of(socket):
                        self._hear(told)
                        if told["type"] == "ack":
                            first_ack.set()
                finally:
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)

    def _hear(self, told: dict[str, Any]) -> None:
        if told["type"] == "welcome":
            stored = told["acknowledged"].get("run-1", 0)
            assert stored >= self.acknowledged
            self._welcomed.set()
        else:
            assert told["type"] == "ack", told
            stored = told["seq"]
            assert stored > self.acknowledged
        self.acknowledged = stored
        self._moved.set()

    async def _send(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        await self._welcomed.wait()
        sent = self.acknowledged
        while True:
            while sent - self.acknowledged < IN_FLIGHT:
                sent += 1
                await socket.send_str(self._snapshot(sent))
            self._moved.clear()
            await self._moved.wait()

    def _snapshot(self, seq: int) -> str:
        records = [
            Record(number=number, time=now(), kind="log", message=f"record {number}")
            for number in range(max(1, seq - WINDOW + 1), seq + 1)
        ]
        status = status_of(self._session, self._peer, sequence=seq, records=records)
        return StatusMessage(run=status.run, seq=seq, status=status).model_dump_json(by_alias=True)


def entry_of(event: dict[str, Any]) -> tuple[str, str, int]:
    data = event["data"]
    return event["type"], str(data.get("source", "")), int(data.get("number", 0))


async def listen(http: aiohttp.ClientSession, url: str, session: str, heard: Known) -> None:
    """Go on hearing where the listener was, until the coordinator is gone."""
    last = max(heard, default=0)
    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
        async with http.ws_connect(f"{url}{SESSIONS}/{session}/events?after={last}") as socket:
            async for event in messages_of(socket):
                if event["type"] == "snapshot":
                    continue
                last += 1
                assert event["seq"] == last
                heard[last] = entry_of(event)


async def stored_events(http: aiohttp.ClientSession, url: str, session: str) -> Known:
    """The whole log; its numbers rise."""
    found: Known = {}
    async with http.ws_connect(f"{url}{SESSIONS}/{session}/events?after=0") as socket:
        newest = (await socket.receive_json(timeout=LIMIT_S))["seq"]
        while max(found, default=0) < newest:
            event = await socket.receive_json(timeout=LIMIT_S)
            assert event["seq"] > max(found, default=0)
            found[event["seq"]] = entry_of(event)
    return found


async def opened(http: aiohttp.ClientSession, url: str) -> tuple[str, list[Volunteer]]:
    """A session that can be joined, and those who have joined it."""
    http.headers["Authorization"] = bearer(await sign_in(http, WALLET, base=url))
    async with http.post(f"{url}{SESSIONS}", json={"name": "x"}) as response:
        session = str((await response.json())["id"])
    await (await http.post(f"{url}{SESSIONS}/{session}/start")).read()
    await wait_for_status(http, url, session, "waiting")
    volunteers = []
    for number in range(VOLUNTEERS):
        peer = make_peer(f"volunteer-{number}")
        body = registration(session, peer=peer, coordinator=url)
        async with http.post(f"{url}{SESSIONS}/{session}/participants", json=body) as response:
            assert response.status == 201, await response.text()
            volunteers.append(Volunteer(session, peer.peer_id, await response.json()))
    return session, volunteers


def check_log(stored: Known, heard: Known, volunteers: list[Volunteer]) -> None:
    """Everything that was acknowledged stands there once, and whatever was heard stands where it was heard."""
    for volunteer in volunteers:
        numbers = [number for kind, source, number in stored.values()
                   if kind == "training.log" and source == volunteer.participant]  # fmt: skip
        assert numbers == list(range(1, len(numbers) + 1)), Counter(numbers).most_common(3)
        assert len(numbers) >= volunteer.acknowledged
    # old progress is pruned, nothing else
    kept = {seq: entry for seq, entry in heard.items() if seq in stored or entry[0] != "training.progress"}
    assert {seq: stored.get(seq) for seq in kept} == kept


async def kill_again_and_again(root: Path, kills: int) -> tuple[Known, list[Volunteer]]:
    """Returns what a listener has heard in all these lives, and the volunteers."""
    chance = random.Random(SEED)
    session, volunteers, heard = "", [], {}
    for life in range(kills + 1):
        with serving(root) as (process, url):
            async with aiohttp.ClientSession() as http:
                if life == 0:
                    session, volunteers = await opened(http, url)
                check_log(await stored_events(http, url, session), heard, volunteers)
                if life == kills:
                    break
                first_ack = asyncio.Event()
                load = [asyncio.create_task(volunteer.talk(http, url, first_ack)) for volunteer in volunteers]
                load.append(asyncio.create_task(listen(http, url, session, heard)))
                await asyncio.wait_for(first_ack.wait(), LIMIT_S)
                await asyncio.wait(load, timeout=chance.uniform(0.0, LONGEST_LIFE_S))
                process.kill()
                await asyncio.wait_for(asyncio.gather(*load), LIMIT_S)
    return heard, volunteers


@BOTH
@pytest.mark.parametrize("kills", [FEW, pytest.param(MANY, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
async def test_every_acknowledged_event_is_there_once_after_each_kill(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    monkeypatch.setenv(URL_VARIABLE, database_url)
    heard, volunteers = await kill_again_and_again(tmp_path, kills)
    assert all(volunteer.acknowledged >= kills for volunteer in volunteers)
    assert any(kind == "training.log" for kind, _, _ in heard.values())
