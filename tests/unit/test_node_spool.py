"""The spool: what may be lost and what never, order, bounds, and the file that tells the same story."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotrain.protocol import MAX_MESSAGE_BYTES, Goodbye, StatusMessage
from cotrain.status import MAX_RECORDS, Record, RecordKind, Status
from node import spool_file
from node.events import MISSING, Event, fit_message, merged, missing_in, size_of, thinned
from node.spool import Entry, Mark, Spool
from node.spool_file import Line, SpoolFile, dump_line, dump_spool, load_lines
from tests.integration.node_fixtures import until

RUNS = ["first", "second"]
KINDS: tuple[RecordKind, ...] = ("phase", "round", "log", "evaluation")


def snapshot(
    run: str, sequence: int, newest_record: int, *, text: str = "", kinds: Sequence[RecordKind] = ()
) -> Status:
    """A snapshot whose records are the newest 32 up to `newest_record`; kinds: of all of the run's records."""
    first = max(1, newest_record - MAX_RECORDS + 1)
    records = [
        Record(number=n, time=0.0, kind=kinds[n - 1] if kinds else "log", message=text or str(n))
        for n in range(first, newest_record + 1)
    ]
    return Status(
        session="s", peer="p", run=run, sequence=sequence, updated_at=0.0, status="training",
        phase="training", records=records,
    )  # fmt: skip


def events_of(spool: Spool) -> list[Event]:
    return [entry.event for entry in spool.entries]


class Delivered:
    """What the coordinator makes of events that arrive: each once, and of each run the records that are newer."""

    def __init__(self) -> None:
        self.applied = dict.fromkeys(RUNS, 0)
        self.records: dict[str, list[Record]] = {run: [] for run in RUNS}
        self.goodbyes: list[tuple[str, int]] = []
        self.newest = dict.fromkeys(RUNS, -1)

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.seq <= self.applied[event.run]:
                continue
            self.applied[event.run] = event.seq
            if isinstance(event, Goodbye):
                self.goodbyes.append((event.run, event.seq))
                continue
            self.newest[event.run] = event.status.sequence
            numbers = [record.number for record in event.status.records]
            assert numbers == sorted(set(numbers))
            known = self.records[event.run][-1].number if self.records[event.run] else 0
            self.records[event.run] += [record for record in event.status.records if record.number > known]


class Played:
    """A spool to which things happen; beside it what happened, and what the coordinator has got of it."""

    def __init__(self, spool: Spool, text: str = ""):
        self.spool = spool
        self.kinds: dict[str, list[RecordKind]] = {run: [] for run in RUNS}
        self.sequences = dict.fromkeys(RUNS, 0)
        self.goodbyes: list[tuple[str, int]] = []
        self.delivered = Delivered()
        self._text = text

    def carry_out(self, script: Iterable[Action]) -> Played:
        for action, run, count, kind in script:
            if action == "add":
                self.kinds[run] += [kind] * count
                self.sequences[run] += 1
                newest = len(self.kinds[run])
                self.spool.add_status(
                    snapshot(run, self.sequences[run], newest, text=self._text, kinds=self.kinds[run])
                )
            elif action == "goodbye":
                self.goodbyes.append((run, self.spool.add_goodbye(run, "finished").seq))
            else:
                self._send(run, count, acknowledged=action == "acknowledge")
        return self

    def _send(self, run: str, count: int, *, acknowledged: bool) -> None:
        """The oldest events arrive; whether they did may get lost on the way back."""
        sent = [event for event in events_of(self.spool) if event.run == run][:count]
        self.delivered.take(sent)
        if sent and acknowledged:
            self.spool.acknowledge(run, sent[-1].seq)

    def arrived(self) -> Delivered:
        """Once everything that is still queued has come, too."""
        self.delivered.take(events_of(self.spool))
        return self.delivered


Action = tuple[str, str, int, RecordKind]
"""What happens: a snapshot with so many new records of this kind; so many of the oldest events arrive; a run ends."""
adds = st.tuples(st.just("add"), st.sampled_from(RUNS), st.integers(0, MAX_RECORDS), st.sampled_from(KINDS))
acknowledged = st.tuples(st.just("acknowledge"), st.sampled_from(RUNS), st.integers(0, 5), st.just("log"))
arrivals = st.tuples(st.just("arrive"), st.sampled_from(RUNS), st.integers(0, 5), st.just("log"))
goodbyes = st.tuples(st.just("goodbye"), st.sampled_from(RUNS), st.just(0), st.just("log"))
actions = st.lists(st.one_of(adds, adds, adds, adds, acknowledged, arrivals, goodbyes), max_size=60)
steady = st.lists(st.one_of(adds, adds, adds, acknowledged, goodbyes), max_size=60)
"""Without arrivals that the node does not hear of."""
texts = st.sampled_from(["", "x" * 300])
spools = st.builds(
    Spool,
    max_events=st.integers(1, 12),
    max_bytes=st.integers(0, 60_000),
    message_bytes=st.sampled_from([8_000, 2**16]),
)


def may_not_go(spool: Spool) -> bool:
    """Whether nothing in it could be merged or be without its progress and smaller."""
    for index, entry in enumerate(spool.entries):
        if not isinstance(entry.event, StatusMessage):
            continue
        following = next(
            (other.event for other in spool.entries[index + 1 :] if other.event.run == entry.event.run), None
        )
        later = following if isinstance(following, StatusMessage) else None
        known = spool._known(index)
        if later is not None and size_of(merged(entry.event, later, known=known)) <= spool.message_bytes:
            return False
        thin = thinned(entry.event, later, known=known)
        if spool.size_bytes > spool.max_bytes and min(map(size_of, thin)) < entry.size_bytes:
            return False
    return True


@settings(max_examples=150)
@given(actions, spools, texts)
def test_changes_of_state_and_goodbyes_arrive_once_and_in_order_whatever_happens(
    script: list[Action], spool: Spool, text: str
) -> None:
    played = Played(spool, text).carry_out(script)
    arrived = played.arrived()
    for run in RUNS:
        numbers = [record.number for record in arrived.records[run]]
        assert numbers == sorted(set(numbers))
        changes = [record.number for record in arrived.records[run] if record.kind == "phase"]
        assert changes == [n for n, kind in enumerate(played.kinds[run], 1) if kind == "phase"]
        assert max(numbers, default=0) == len(played.kinds[run])
        assert arrived.newest[run] == (played.sequences[run] or -1)
    assert sorted(arrived.goodbyes) == sorted(played.goodbyes)


@settings(max_examples=150)
@given(actions, spools, texts)
def test_the_bounds_hold_but_for_what_may_not_go(script: list[Action], spool: Spool, text: str) -> None:
    Played(spool, text).carry_out(script)
    assert all(entry.size_bytes == size_of(entry.event) <= spool.message_bytes for entry in spool.entries)
    places = [entry.place for entry in spool.entries]
    assert places == sorted(set(places))
    assert not spool.is_over or may_not_go(spool)


@settings(max_examples=100)
@given(steady, spools, texts)
def test_what_is_missing_is_counted_here_and_there(script: list[Action], spool: Spool, text: str) -> None:
    played = Played(spool, text).carry_out(script)
    arrived = played.arrived()
    told = sum(missing_in(record) for run in RUNS for record in arrived.records[run])
    own = sum(missing_in(record) == 0 for run in RUNS for record in arrived.records[run])
    assert told == spool.dropped
    assert told + own == sum(map(len, played.kinds.values()))


@settings(max_examples=60)
@given(actions, st.integers(1, 12))
def test_a_coordinator_that_is_away_for_hours_costs_no_record(script: list[Action], bound: int) -> None:
    """As long as messages have room: then the bound of events alone merges snapshots, and no more."""
    played = Played(Spool(max_events=bound, message_bytes=2**22)).carry_out(script)
    assert played.spool.dropped == 0
    arrived = played.arrived()
    for run in RUNS:
        assert [record.kind for record in arrived.records[run]] == played.kinds[run]


def test_after_days_the_newest_progress_is_there_and_the_oldest_is_counted() -> None:
    rounds, text = 1200, "r" * 500
    spool = Spool(max_bytes=2**18)
    kinds: list[RecordKind] = ["phase", *["round"] * (rounds - 2), "phase"]
    for number in range(1, rounds + 1):
        spool.add_status(snapshot("first", number, number, text=text, kinds=kinds))
        assert not spool.is_over
    arrived = Delivered()
    arrived.take(events_of(spool))
    begun, *progress, ended = arrived.records["first"]
    assert (begun.kind, ended.kind) == ("phase", "phase")
    gaps = [record for record in progress if missing_in(record)]
    assert progress[: len(gaps)] == gaps
    assert 1 <= len(gaps) <= 2
    assert gaps[0].message.startswith(f"{gaps[0].data[MISSING]} records are missing: ")
    newest = progress[len(gaps) :]
    assert [record.number for record in newest] == list(range(gaps[-1].number + 1, rounds))
    assert 200 < len(newest) == rounds - 2 - spool.dropped


@settings(max_examples=40)
@given(actions, st.integers(0, 200))
def test_file_restores_the_queue_even_if_its_last_line_is_half_written(script: list[Action], cut: int) -> None:
    spool = Played(Spool()).carry_out(script).spool
    content = dump_spool(spool)
    restored, broken = load_lines(content)
    assert (events_of(restored), restored.marks, broken) == (events_of(spool), spool.marks, 0)
    lines = content.splitlines(keepends=True)
    if lines:
        shortened = b"".join(lines[:-1]) + lines[-1][: cut % (len(lines[-1]) - 1)]
        partly, _ = load_lines(shortened)
        assert events_of(partly) == events_of(spool)[: len(events_of(partly))]
        assert len(events_of(spool)) - len(events_of(partly)) <= 1


def test_many_snapshots_without_new_records_stay_within_the_bound() -> None:
    spool = Spool(max_events=10)
    for sequence in range(1000):
        spool.add_status(snapshot("run", sequence, 5))
    assert len(spool.entries) == 10
    assert [entry.event.seq for entry in spool.entries] == list(range(991, 1001))


def test_snapshot_is_queued_once() -> None:
    spool = Spool()
    assert len(spool.add_status(snapshot("run", 3, 1))) == 1
    assert spool.add_status(snapshot("run", 3, 1)) == []
    assert spool.add_status(snapshot("run", 2, 1)) == []


def test_too_large_message_is_divided_and_keeps_every_record() -> None:
    status = snapshot("run", 1, MAX_RECORDS, text="ی" * 1000)
    wide = status.model_copy(
        update={"records": [r.model_copy(update={"data": {"trace": "x" * 3000}}) for r in status.records]}
    )
    parts = fit_message(StatusMessage(run="run", seq=7, status=wide))
    assert len(parts) > 1
    assert [part.seq for part in parts] == list(range(7, 7 + len(parts)))
    assert [r.number for part in parts for r in part.status.records] == list(range(1, MAX_RECORDS + 1))
    assert all(len(part.model_dump_json(by_alias=True).encode()) <= MAX_MESSAGE_BYTES for part in parts)


def test_giant_record_loses_its_data_not_its_place() -> None:
    record = Record(number=1, time=0.0, kind="log", message="m", data={"dump": "x" * (2 * MAX_MESSAGE_BYTES)})
    status = snapshot("run", 1, 0).model_copy(update={"records": [record]})
    (part,) = fit_message(StatusMessage(run="run", seq=1, status=status))
    assert part.status.records == [record.model_copy(update={"data": {}})]


def test_marks_of_old_runs_are_forgotten() -> None:
    spool = Spool()
    for number in range(100):
        spool.restore_mark(f"run-{number}", Mark(seq=1))
    assert len(spool.marks) == 16
    assert "run-99" in spool.marks


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "session.jsonl"


def test_spool_file_outlives_its_process(path: Path) -> None:
    first = SpoolFile(path)
    for sequence in range(5):
        first.add_status(snapshot("run", sequence, sequence))
    first.acknowledge("run", 2)
    first.add_goodbye("run", "killed")  # the process ends here: nothing is closed or flushed
    second = SpoolFile(path)
    place, found = -1, []
    while (entry := second.next_after(place)) is not None:
        place = entry.place
        found.append((type(entry.event), entry.event.seq))
    assert found == [(StatusMessage, 3), (StatusMessage, 4), (StatusMessage, 5), (Goodbye, 6)]
    second.add_status(snapshot("run", 4, 4))
    assert len(second) == 4
    assert path.stat().st_mode & 0o077 == 0
    first.close()
    second.close()


def size_of_file(path: Path) -> int:
    return path.stat().st_size


def entries_in(path: Path) -> list[Entry]:
    return load_lines(path.read_bytes())[0].entries


async def test_file_stays_small_when_everything_is_acknowledged(path: Path) -> None:
    spool = SpoolFile(path)
    flushing = asyncio.create_task(spool.flush_forever())
    for sequence in range(600):
        spool.add_status(snapshot("run", sequence, sequence))
        spool.acknowledge("run", sequence + 1)
    grown = size_of_file(path)
    await until(lambda: size_of_file(path) < grown, what="the shorter file")
    assert size_of_file(path) < 1000
    assert spool.is_empty
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    spool.close()


async def test_a_long_absence_is_told_and_leaves_a_bounded_file(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_file, "_REWRITE_AFTER_BYTES", 2**20)
    spool = SpoolFile(path)
    spool._spool.max_bytes = 2**17
    flushing = asyncio.create_task(spool.flush_forever())
    number = 0
    while len(caplog.records) < 2:  # the second is told when what is given up has doubled
        short = size_of_file(path)
        while size_of_file(path) <= short + 2**20:
            number += 1
            spool.add_status(snapshot("run", number, number, text="x" * 1000))
        await until(lambda: size_of_file(path) < 2**18, what="a file as short as its queue")
    assert number < 20_000
    told = [record.getMessage() for record in caplog.records]
    assert all("the oldest progress is given up" in line for line in told)
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    spool.close()
    again = SpoolFile(path)
    assert sum(len(dump_line(Line(event=entry.event))) for entry in entries_in(path)) < 2**18
    assert len(again) >= 1
    again.close()


async def test_broken_disk_costs_no_event(path: Path) -> None:
    spool = SpoolFile(path)
    os.close(spool._descriptor)  # from now on every write fails, as on a disk that went away
    spool.add_status(snapshot("run", 0, 1))
    assert len(spool) == 1
    assert entries_in(path) == []
    spool._descriptor = os.open(os.devnull, os.O_WRONLY)
    flushing = asyncio.create_task(spool.flush_forever())
    await until(lambda: entries_in(path), what="the event in the new file")
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    spool.close()
