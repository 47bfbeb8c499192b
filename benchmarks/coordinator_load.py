"""Nodes and listeners as a coordinator sees them: what they send, what they hear, and what is missing of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

import aiohttp

from benchmarks.coordinator_stage import Seat
from cotrain.protocol import StatusMessage
from cotrain.status import Record, Status

LIMIT_S = 30.0
_OPENING_AT_ONCE = 32
_RUN = "run-1"


def snapshot_template(seat: Seat) -> str:
    """A node's snapshot in the middle of its training, with marks where the numbers go."""
    status = Status(
        session=seat.session, peer=seat.peer, run=_RUN, sequence=1, updated_at=1.0, status="training",
        phase="training", process_rate=20.0, step=1234, round=12, loss=2.5, learning_rate=2e-3, batch_size=8,
        samples_committed=98_304, samples_pending=512, samples_wanted=400_000, tokens=12_000_000,
        tokens_per_second=5321.5, compute_seconds=2200.0, wall_seconds=2300.0, peers=20, digest="a" * 64,
        bytes_sent=10**9, bytes_received=10**9, parameters=1_000_000, device="cpu",
        addresses=["/ip4/192.0.2.7/tcp/31337/p2p/" + "1" * 52],
    )  # fmt: skip
    told = StatusMessage(run=_RUN, seq=1, status=status).model_dump(mode="json", by_alias=True)
    told["seq"], told["status"]["records"] = "@SEQ@", "@RECORDS@"
    return json.dumps(told).replace('"@SEQ@"', "@SEQ@").replace('"@RECORDS@"', "@RECORDS@")


def record_template() -> str:
    """A round's record, with marks for its number and time."""
    data: dict[str, str | int | float | bool | list[str] | None] = {
        "round": 12, "samples": 8192, "members": 20, "digest": "a" * 64, "seconds": 0.7, "dropped": [],
    }  # fmt: skip
    record = Record(number=1, time=1.0, kind="round", message="round 12 is averaged", data=data)
    told = record.model_dump(mode="json", by_alias=True)
    told["number"], told["time"] = "@NUMBER@", "@TIME@"
    return json.dumps(told).replace('"@NUMBER@"', "@NUMBER@").replace('"@TIME@"', "@TIME@")


_RECORD = record_template()


@dataclass
class Faults:
    """What must not be. Zero each, if all is well."""

    out_of_order: int = 0
    not_acknowledged: int = 0
    not_heard: int = 0
    closed: int = 0

    def total(self) -> int:
        return self.out_of_order + self.not_acknowledged + self.not_heard + self.closed


class Uplink:
    """One node's connection."""

    def __init__(self, seat: Seat, faults: Faults):
        self.seat = seat
        self.sent = 0
        self.records = 0
        self.acknowledged = 0
        self.heard_back = asyncio.Event()
        self._faults = faults
        self._template = snapshot_template(seat)
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reading: asyncio.Task[None] | None = None

    async def open(self, http: aiohttp.ClientSession, url: str) -> None:
        """Connect and be welcomed."""
        seat = self.seat
        path = f"{url}/api/v1/sessions/{seat.session}/participants/{seat.participant}/stream"
        headers = {"Authorization": f"Bearer {seat.token}"}
        self._socket = await http.ws_connect(path, headers=headers)
        await self._socket.send_str('{"type":"hello"}')
        welcome = await self._socket.receive_json(timeout=LIMIT_S)
        # a later measure goes on where the one before it ended
        self.sent = self.acknowledged = welcome["acknowledged"].get(_RUN, 0)
        self._reading = asyncio.create_task(self._read(self._socket))

    async def send(self, *, with_record: bool) -> None:
        """A snapshot, with the next record if that is wanted."""
        assert self._socket is not None
        self.sent += 1
        records = "[]"
        if with_record:
            # its number is that of the snapshot: numbers must rise, and may leave some out
            self.records += 1
            number, told_at = str(self.sent), repr(time.time())
            records = f"[{_RECORD.replace('@NUMBER@', number).replace('@TIME@', told_at)}]"
        await self._socket.send_str(self._template.replace("@SEQ@", str(self.sent)).replace("@RECORDS@", records))

    async def flood(self, until: float, in_flight: int) -> None:
        """Send with a record each, as quickly as acknowledgements come, until `time.monotonic()` is that late."""
        while time.monotonic() < until:
            while self.sent - self.acknowledged < in_flight:
                await self.send(with_record=True)
            self.heard_back.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.heard_back.wait(), max(0.0, until - time.monotonic()))

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            told = json.loads(message.data)
            if told["type"] != "ack" or told["seq"] <= self.acknowledged:
                self._faults.out_of_order += 1
                continue
            self.acknowledged = told["seq"]
            self.heard_back.set()

    async def close(self) -> None:
        """Leave; what was not acknowledged by now is missing."""
        self._faults.not_acknowledged += self.sent - self.acknowledged
        if self._socket is not None and self._reading is not None:
            self._faults.closed += self._socket.closed
            await self._socket.close()
            await self._reading


@dataclass
class Heard:
    """What listeners were told, and how late.

    Attributes:
        record_delays_s: from a node's sending of a record to a listener's receipt.
        progress_times: of each session's progress, by its first listener: when the coordinator wrote it, when it came.
        states: changes of state that first listeners heard, by kind.
    """

    record_delays_s: list[float] = field(default_factory=list)
    progress_times: defaultdict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    states: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    records: int = 0
    """Records that first listeners heard."""


class Listener:
    """One browser. The first one of each session notes what there is; all of them look for gaps."""

    def __init__(self, session: str, heard: Heard, faults: Faults, *, first: bool):
        self.session = session
        self.records = 0
        self._heard, self._faults, self._first = heard, faults, first
        self._last = 0
        self._numbers: defaultdict[str, int] = defaultdict(int)
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reading: asyncio.Task[None] | None = None

    async def open(self, http: aiohttp.ClientSession, url: str) -> None:
        """Connect; events are heard from the snapshot on."""
        self._socket = await http.ws_connect(f"{url}/api/v1/sessions/{self.session}/events", max_msg_size=0)
        snapshot = await self._socket.receive_json(timeout=LIMIT_S)
        self._last = snapshot["seq"]
        self._reading = asyncio.create_task(self._read(self._socket))

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            text: str = message.data
            seq = int(text[text.index(":") + 1 : text.index(",")])
            self._faults.out_of_order += seq != self._last + 1
            self._last = seq
            if '"type":"training.log"' in text:
                self._note_record(json.loads(text)["data"])
            elif self._first:
                self._note(json.loads(text))

    def _note_record(self, data: dict[str, object]) -> None:
        source, number, told_at = str(data["source"]), data["number"], data["time"]
        assert isinstance(number, int)
        assert isinstance(told_at, float)
        self._heard.record_delays_s.append(time.time() - told_at)
        self._faults.out_of_order += number <= self._numbers[source]
        self._numbers[source] = number
        self.records += 1
        self._heard.records += self._first

    def _note(self, event: dict[str, object]) -> None:
        if event["type"] == "training.progress":
            written_at = event["time"]
            assert isinstance(written_at, float)
            self._heard.progress_times[self.session].append((written_at, time.time()))
        else:
            self._heard.states[str(event["type"])] += 1

    async def close(self) -> None:
        """Leave."""
        if self._socket is not None and self._reading is not None:
            self._faults.closed += self._socket.closed
            await self._socket.close()
            await self._reading


async def open_all(http: aiohttp.ClientSession, url: str, ends: Iterable[Uplink | Listener]) -> None:
    """Connect them, some at a time."""
    turns = asyncio.Semaphore(_OPENING_AT_ONCE)

    async def open_one(end: Uplink | Listener) -> None:
        async with turns:
            await end.open(http, url)

    await asyncio.gather(*(open_one(end) for end in ends))


async def send_each_second(
    uplinks: Sequence[Uplink], duration_s: float, record_every: int, *, slots: int = 100
) -> float:
    """A snapshot of each every second, evenly spread; every so many seconds one has a record.

    Returns how late the latest was sent, in seconds: more than a few hundredths says that this side was too slow.
    """
    began, latest = time.monotonic(), 0.0
    for slot in itertools.count():
        due = began + slot / slots
        if due - began >= duration_s:
            return latest
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        for at in range(slot % slots, len(uplinks), slots):
            await uplinks[at].send(with_record=(slot // slots + at) % record_every == 0)
        latest = max(latest, time.monotonic() - due)
    raise AssertionError("slots do not end")


async def settle(uplinks: Sequence[Uplink], listeners: Sequence[Listener], faults: Faults) -> None:
    """Wait until all is acknowledged and heard, or the limit has passed; note what is not."""
    records: defaultdict[str, int] = defaultdict(int)
    for uplink in uplinks:
        records[uplink.seat.session] += uplink.records
    waiting = time.monotonic() + LIMIT_S
    while time.monotonic() < waiting:
        acknowledged = all(uplink.sent == uplink.acknowledged for uplink in uplinks)
        if acknowledged and all(one.records >= records[one.session] for one in listeners):
            break
        await asyncio.sleep(0.05)
    faults.not_heard += sum(abs(records[one.session] - one.records) for one in listeners)


@contextlib.asynccontextmanager
async def connected(
    url: str, uplinks: Sequence[Uplink], listeners: Sequence[Listener]
) -> AsyncIterator[aiohttp.ClientSession]:
    """All of them, and their ends."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:
        await open_all(http, url, uplinks)
        await open_all(http, url, listeners)
        try:
            yield http
        finally:
            await asyncio.gather(*(one.close() for one in listeners), *(one.close() for one in uplinks))
