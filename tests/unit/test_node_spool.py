"""The spool: no record is ever lost, order is kept, the bound holds, and the file tells the same story."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotrain.protocol import MAX_MESSAGE_BYTES, Goodbye, StatusMessage
from cotrain.status import MAX_RECORDS, Record, Status
from node.spool import Entry, Event, Mark, Spool, fit_message, is_superseded
from node.spool_file import SpoolFile, dump_spool, load_lines
from tests.integration.node_fixtures import until

RUNS = ["first", "second"]


def snapshot(run: str, sequence: int, newest_record: int, *, text: str = "") -> Status:
    """A snapshot whose records are the newest 32 up to `newest_record`."""
    first = max(1, newest_record - MAX_RECORDS + 1)
    records = [Record(number=n, time=0.0, kind="log", message=text or str(n)) for n in range(first, newest_record + 1)]
    return Status(
        session="s", peer="p", run=run, sequence=sequence, updated_at=0.0, status="training",
        phase="training", records=records,
    )  # fmt: skip


def record_numbers(events: Iterable[Event]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for event in events:
        if isinstance(event, StatusMessage):
            found.setdefault(event.run, set()).update(record.number for record in event.status.records)
    return found


def events_of(spool: Spool) -> list[Event]:
    return [entry.event for entry in spool.entries]


def assert_in_order(events: list[Event]) -> None:
    for run in {event.run for event in events}:
        numbers = [event.seq for event in events if event.run == run]
        assert numbers == sorted(set(numbers))


# An action adds a snapshot with so many new records in a run, or acknowledges so many of the oldest events.
adds = st.tuples(st.just("add"), st.sampled_from(RUNS), st.integers(0, MAX_RECORDS))
acknowledgements = st.tuples(st.just("acknowledge"), st.sampled_from(RUNS), st.integers(0, 5))
actions = st.lists(st.one_of(adds, adds, adds, acknowledgements), max_size=60)


def play(spool: Spool, script: list[tuple[str, str, int]]) -> tuple[dict[str, int], list[Event]]:
    """Carry the actions out; returns the number of records written in each run, and what was acknowledged."""
    written = dict.fromkeys(RUNS, 0)
    sequences = dict.fromkeys(RUNS, 0)
    delivered: list[Event] = []
    for action, run, count in script:
        if action == "add":
            written[run] += count
            sequences[run] += 1
            spool.add_status(snapshot(run, sequences[run], written[run]))
            continue
        queued = [event for event in events_of(spool) if event.run == run][:count]
        delivered += queued
        if queued:
            spool.acknowledge(run, queued[-1].seq)
    return written, delivered


@settings(max_examples=60)
@given(actions, st.integers(1, 12))
def test_no_record_is_lost_and_order_is_kept(script: list[tuple[str, str, int]], bound: int) -> None:
    spool = Spool(max_events=bound)
    written, delivered = play(spool, script)
    everything = delivered + events_of(spool)
    assert_in_order(everything)
    found = record_numbers(everything)
    for run in RUNS:
        assert found.get(run, set()) == set(range(1, written[run] + 1))


@settings(max_examples=60)
@given(actions, st.integers(1, 12))
def test_bound_is_only_exceeded_by_what_is_needed(script: list[tuple[str, str, int]], bound: int) -> None:
    spool = Spool(max_events=bound)
    play(spool, script)
    events = events_of(spool)
    if len(events) > bound:
        assert not any(is_superseded(event, events[index + 1 :]) for index, event in enumerate(events))


@settings(max_examples=40)
@given(actions)
def test_newest_snapshot_of_each_run_stays(script: list[tuple[str, str, int]]) -> None:
    spool = Spool(max_events=1)
    added = [item for item in script if item[0] == "add"]
    play(spool, added)
    for run in {run for _, run, _ in added}:
        newest = max(event.seq for event in events_of(spool) if event.run == run)
        assert newest == spool.marks[run].seq


@settings(max_examples=40)
@given(actions, st.integers(0, 200))
def test_file_restores_the_queue_even_if_its_last_line_is_half_written(
    script: list[tuple[str, str, int]], cut: int
) -> None:
    spool = Spool()
    play(spool, script)
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


def size_of(path: Path) -> int:
    return path.stat().st_size


def entries_in(path: Path) -> list[Entry]:
    return load_lines(path.read_bytes())[0].entries


async def test_file_stays_small_when_everything_is_acknowledged(path: Path) -> None:
    spool = SpoolFile(path)
    flushing = asyncio.create_task(spool.flush_forever())
    for sequence in range(600):
        spool.add_status(snapshot("run", sequence, sequence))
        spool.acknowledge("run", sequence + 1)
    grown = size_of(path)
    await until(lambda: size_of(path) < grown, what="the shorter file")
    assert size_of(path) < 1000
    assert spool.is_empty
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    spool.close()


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
