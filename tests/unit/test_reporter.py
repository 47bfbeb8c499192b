"""What a run tells: status.json is whole, numbered, prompt for what matters; control.json is read when it changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cotrain.paths import CONTROL_FILE, STATUS_FILE
from cotrain.status import MAX_RECORDS, Control, Phase, Status, read_status, write_control
from cotrain.train.reporter import ControlFile, StatusReporter
from tests.waiting import wait_for, wait_until


@pytest.fixture
def reporter(tmp_path: Path) -> Iterator[StatusReporter]:
    """One whose interval is so long that only what is urgent gets written."""
    made = StatusReporter(tmp_path / "run", session="s", peer="p", interval_s=60.0)
    yield made
    made.stop()


def written(folder: Path) -> Status:
    return read_status(folder / "run" / STATUS_FILE)


def test_a_change_of_phase_and_a_record_are_written_at_once_and_figures_are_not(
    reporter: StatusReporter, tmp_path: Path
) -> None:
    reporter.phase("joining")
    reporter.start()
    wait_until(lambda: (tmp_path / "run" / STATUS_FILE).exists())
    reporter.update(step=7)
    reporter.record("log", "hello", data={"peers": 3})
    wait_until(lambda: len(written(tmp_path).records) == 1)
    status = written(tmp_path)
    assert (status.step, status.phase, status.records[0].message) == (7, "joining", "hello")
    reporter.update(step=8)
    reporter.phase("joining")  # the same again: nothing urgent
    assert written(tmp_path).step == 7
    reporter.phase("training", "training")
    wait_until(lambda: written(tmp_path).phase == "training")
    assert written(tmp_path).step == 8


def test_figures_are_written_within_the_interval(tmp_path: Path) -> None:
    reporter = StatusReporter(tmp_path / "run", session="s", peer="p", interval_s=0.1)
    reporter.start()
    try:
        reporter.update(step=7)
        wait_until((tmp_path / "run" / STATUS_FILE).exists, limit_s=30.0)
        assert wait_for(lambda: written(tmp_path).step, limit_s=30.0) == 7
    finally:
        reporter.stop()


def test_the_last_snapshot_is_on_the_disk_after_stop(reporter: StatusReporter, tmp_path: Path) -> None:
    reporter.start()
    reporter.update(step=9)
    reporter.stop()
    assert written(tmp_path).step == 9


def test_it_may_be_stopped_without_having_been_started(reporter: StatusReporter, tmp_path: Path) -> None:
    reporter.phase("done", "failed", error_msg="the disk is full", error_code="storage")
    reporter.stop()
    assert (written(tmp_path).status, written(tmp_path).error_code) == ("failed", "storage")


def test_snapshots_are_numbered_and_each_run_has_an_id_of_its_own(tmp_path: Path) -> None:
    runs, sequences = set(), []
    for _ in range(2):
        reporter = StatusReporter(tmp_path / "run", session="s", peer="p")
        for step in range(3):
            reporter.update(step=step)
            reporter._write()
            sequences.append(written(tmp_path).sequence)
        runs.add(written(tmp_path).run)
    assert len(runs) == 2
    assert sequences == [1, 2, 3, 1, 2, 3]


def test_last_train_at_is_set_only_by_training(reporter: StatusReporter, tmp_path: Path) -> None:
    reporter._write()
    assert written(tmp_path).last_train_at is None
    reporter.phase("training", "training")
    reporter._write()
    stamp = written(tmp_path).last_train_at
    assert stamp is not None
    reporter.phase("training", "paused")
    reporter._write()
    assert written(tmp_path).last_train_at == stamp


def test_records_are_numbered_bounded_and_cut(reporter: StatusReporter) -> None:
    for number in range(MAX_RECORDS + 5):
        reporter.record("log", f"record {number} " + "x" * 2000)
    reporter._write()
    records = reporter.status.records
    assert [record.number for record in records] == list(range(6, MAX_RECORDS + 6))
    assert all(len(record.message) == 1000 for record in records)


def test_records_of_large_groups_do_not_make_a_snapshot_that_nobody_reads(
    reporter: StatusReporter, tmp_path: Path
) -> None:
    members = [f"12D3KooW{number:044d} {number}" for number in range(500)]
    for number in range(MAX_RECORDS):
        reporter.record("round", f"round {number}", data={"credits": members})
    reporter._write()
    numbers = [record.number for record in written(tmp_path).records]
    assert numbers == list(range(numbers[0], MAX_RECORDS + 1))
    assert 4 <= len(numbers) < MAX_RECORDS


def test_a_wait_is_recorded_once_and_has_its_beginning(reporter: StatusReporter) -> None:
    for _ in range(3):
        reporter.wait("2 nodes, 1 are here")
    first = reporter.status
    assert first.waiting_for == "2 nodes, 1 are here"
    assert first.waiting_since is not None
    assert first.waiting_since <= time.time()
    reporter.idle("the others")  # another wait is more exact
    assert reporter.status.waiting_for == first.waiting_for
    reporter.wait("2 nodes, 2 are here")
    assert reporter.status.waiting_since is not None
    reporter.wait("")
    assert (reporter.status.waiting_for, reporter.status.waiting_since) == ("", None)
    reporter.idle("the others")
    assert reporter.status.waiting_for == "the others"
    reporter.phase("done", "stopped")
    assert reporter.status.waiting_for == ""
    messages = [record.message for record in reporter.status.records]
    assert messages == ["waiting for 2 nodes, 1 are here", "waiting for 2 nodes, 2 are here"]


phases = st.sampled_from(["starting", "joining", "downloading", "training", "averaging", "finishing", "done"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.tuples(phases, st.integers(0, 1000), st.integers(0, 1000)), max_size=12))
def test_the_process_rate_never_falls(tmp_path: Path, changes: list[tuple[Phase, int, int]]) -> None:
    reporter = StatusReporter(tmp_path, session="s", peer="p")
    rates = []
    for phase, committed, wanted in changes:
        reporter.phase(phase, samples_committed=committed, samples_wanted=wanted)
        rates.append(reporter.status.process_rate)
    assert rates == sorted(rates)
    assert all(0.0 <= rate <= 100.0 for rate in rates)


def test_a_folder_that_is_gone_does_not_end_the_run(reporter: StatusReporter, tmp_path: Path) -> None:
    (tmp_path / "run").rmdir()
    reporter.record("log", "nobody will read this")
    reporter._write()
    (tmp_path / "run").mkdir()
    reporter.record("log", "but this")
    reporter._write()
    assert [record.number for record in written(tmp_path).records] == [1, 2]


def test_threads_may_report_at_the_same_time(reporter: StatusReporter) -> None:
    reporter.start()

    def report() -> None:
        for _ in range(50):
            reporter.record("log", "x")

    threads = [threading.Thread(target=report) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reporter.stop()
    assert reporter.status.records[-1].number == 200


# ---------------------------------------------------------------------------------------------- wishes
def test_a_wish_is_seen_when_it_is_written_and_run_is_the_wish_without_a_file(tmp_path: Path) -> None:
    control = ControlFile(tmp_path)
    assert control.wish() == "run"
    for wish in ("pause", "run", "stop", "cancel"):
        write_control(tmp_path / CONTROL_FILE, Control(wish=wish))
        assert control.wish() == wish
        assert control.wish() == wish
    (tmp_path / CONTROL_FILE).unlink()
    assert control.wish() == "run"


@pytest.mark.parametrize("content", ["", "{", '{"wish": "explode"}', '{"wish": "stop", "more": 1}', "[]", "[" * 5000])
def test_what_is_no_wish_changes_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / CONTROL_FILE).write_text(content)
    assert ControlFile(tmp_path).wish() == "run"
