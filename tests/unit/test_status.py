"""status.json and control.json: whole, bounded, strict; the published ranges of progress."""

from __future__ import annotations

import json
import threading
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.sections import LARGEST_INTEGER
from cotrain.status import (
    MAX_STATUS_BYTES,
    PHASE_PERCENT,
    Control,
    Phase,
    Record,
    Status,
    iso_now,
    process_rate,
    read_control,
    read_json_object,
    read_status,
    replace_file,
    write_control,
    write_status,
)


def status(**fields: object) -> Status:
    facts = {"session": "s", "peer": "p", "run": "r", "sequence": 1, "updatedAt": 0.0, "status": "training"}
    return Status.model_validate({**facts, "phase": "training", **fields})


def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path) -> None:
    path, snapshot = tmp_path / "status.json", status(loss=2.5, baselines={"bytes": 3.15}, addresses=["/ip4/1"])
    write_status(path, snapshot)
    assert read_status(path) == snapshot
    assert {"processRate", "lastTrainAt", "errorMsg", "samplesCommitted"} <= json.loads(path.read_text()).keys()
    assert [entry.name for entry in tmp_path.iterdir()] == ["status.json"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b'{"session": "s", "peer', "Unterminated string"),
        (b"[]", "does not hold a JSON object"),
        (b"3", "does not hold a JSON object"),
        (b'{"loss": NaN}', "holds NaN"),
        (b'{"loss": -Infinity}', "holds -Infinity"),
        (b'{"loss": 1e999}', "validation error"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff\xfe{}", "codec can't decode|Expecting value"),
        (b"{" + b" " * MAX_STATUS_BYTES, "has more than"),
        (b"{}", "validation error"),
    ],
)
def test_what_is_no_snapshot_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "status.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_status(path)


@pytest.mark.parametrize(
    "fields",
    [{"sequence": -1}, {"status": "asleep"}, {"phase": "lunch"}, {"processRate": 100.1}, {"loss": float("nan")},
     {"unknown": 1}, {"records": [{"number": 0}]}],
)  # fmt: skip
def test_a_snapshot_out_of_range_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        status(**fields)


COUNTS = (
    "sequence", "step", "round", "validationRound", "batchSize", "samplesCommitted", "samplesPending", "samplesWanted",
    "tokens", "peers", "bytesSent", "bytesReceived", "parameters",
)  # fmt: skip


def test_every_whole_number_of_a_snapshot_is_bounded() -> None:
    schema = Status.model_json_schema()["properties"]
    options = {name: said.get("anyOf", [said]) for name, said in schema.items()}
    assert {name for name, said in options.items() if any(o.get("type") == "integer" for o in said)} == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_fits_into_a_database(name: str) -> None:
    assert status(**{name: LARGEST_INTEGER}).model_dump(by_alias=True)[name] == LARGEST_INTEGER
    for value in (-1, LARGEST_INTEGER + 1, 10**400):
        with pytest.raises(ValueError, match="validation error"):
            status(**{name: value})


def test_the_numbers_of_a_record_fit_into_a_database() -> None:
    record = {"number": 1, "time": 0.0, "kind": "round", "message": "m"}
    for number in (10**12 + 1, 2**63):
        with pytest.raises(ValueError, match="validation error"):
            Record.model_validate({**record, "number": number})
    data = {"round": LARGEST_INTEGER, "low": -LARGEST_INTEGER, "huge": 2**70, "yes": True, "loss": 2.5}
    read = Record.model_validate_json(json.dumps({**record, "data": data}), strict=True).data
    assert read == {**data, "huge": float(2**70)}
    assert [type(read[name]) for name in data] == [int, int, float, bool, float]
    with pytest.raises(ValueError, match="validation error"):
        Record.model_validate_json(json.dumps({**record, "data": {"huge": 10**400}}))


def test_links_are_not_followed_and_absence_is_an_os_error(tmp_path: Path) -> None:
    write_status(tmp_path / "real.json", status())
    (tmp_path / "status.json").symlink_to(tmp_path / "real.json")
    for name in ("status.json", "absent.json"):
        with pytest.raises(OSError, match=r"symbolic links|No such file"):
            read_status(tmp_path / name)


def test_the_limit_is_the_callers(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_text('{"a": 1}')
    assert read_json_object(path, limit_bytes=8) == {"a": 1}
    with pytest.raises(ValueError, match="more than 7 bytes"):
        read_json_object(path, limit_bytes=7)


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    contents = {b"a" * 200_000, b"b" * 100_000}
    replace_file(path, b"a" * 200_000)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                replace_file(path, content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert {path.read_bytes() for _ in range(200)} <= contents
    finally:
        stop.set()
        writer.join()


# ---------------------------------------------------------------------------------------------- wishes
def test_a_wish_arrives_and_without_a_readable_one_it_is_run(tmp_path: Path) -> None:
    path = tmp_path / "run" / "control.json"
    assert read_control(path) == Control()
    write_control(path, Control(wish="pause", reason="lunch"))
    assert read_control(path) == Control(wish="pause", reason="lunch")
    path.write_text('{"wish": "dance"}')
    assert read_control(path).wish == "run"


# ---------------------------------------------------------------------------------------------- progress
phases = st.sampled_from(list(PHASE_PERCENT))


@given(phases, st.integers(0, 2**60), st.integers(0, 2**60))
def test_progress_stays_in_the_range_of_its_phase(phase: Phase, samples: int, wanted: int) -> None:
    low, high = PHASE_PERCENT[phase]
    assert low <= process_rate(phase, samples, wanted) <= high


@given(phases, st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 1000))
def test_progress_rises_with_the_samples(phase: Phase, some: int, more: int, wanted: int) -> None:
    some, more = sorted((some, more))
    assert process_rate(phase, some, wanted) <= process_rate(phase, more, wanted)


def test_published_figures() -> None:
    assert process_rate("training", 0, 100) == 5.0
    assert process_rate("training", 50, 100) == 51.5
    assert process_rate("training", 100, 100) == process_rate("finishing", 0, 100) == 98.0
    assert process_rate("done", 0, 0) == 100.0
    assert process_rate("training", 7, 0) == 5.0


def test_times_are_utc_with_seconds() -> None:
    assert datetime.fromisoformat(iso_now()).utcoffset().total_seconds() == 0  # type: ignore[union-attr]
    assert "." not in iso_now()
