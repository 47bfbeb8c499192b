"""The node's pure parts: addresses, exit codes, wishes, display, lock."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.display import (
    JsonDisplay,
    LiveDisplay,
    PlainDisplay,
    format_bytes,
    format_seconds,
    live_rows,
    plain_line,
    sparkline,
    summary_line,
)
from cotrain.errors import (
    ConfigError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
)
from cotrain.figures import Figures
from cotrain.paths import CONTROL_FILE
from cotrain.status import Control, Status, WishName, read_control, write_control
from node.client import invitation_token, parse_join_url, parse_session_url, version_mismatch
from node.hardware import DriverAnswer, detect_hardware, parse_cpu_model, parse_gpu
from node.job import Job, read_job, write_job
from node.lock import AGENT_FILE, AgentRecord, agent_lock, read_agent, running_agent
from node.options import JoinOptions
from node.supervisor import final_error, judge_exit, lost_gpus, recent_exits
from node.wishes import (
    LOCAL_WISH_FILE,
    SOURCES,
    STANDING_WISHES_FILE,
    Source,
    Wishes,
    combined,
    read_standing,
    standing,
)


def snapshot(**more: object) -> Status:
    facts = {
        "session": "s", "peer": "p", "run": "r", "sequence": 1, "updatedAt": 0.0, "status": "training",
        "phase": "training", "loss": 2.5, "round": 3, "processRate": 12.5, "tokensPerSecond": 1234.5,
        "peers": 4, "bytesSent": 1_500_000, "bytesReceived": 999,
    }  # fmt: skip
    return Status.model_validate(facts | more)


# ---------------------------------------------------------------------------------------------- client
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://host.example/s/abc", ("https://host.example", "abc")),
        ("http://127.0.0.1:8000/s/a-1/", ("http://127.0.0.1:8000", "a-1")),
        (" http://[::1]:80/s/x ", ("http://[::1]:80", "x")),
        ("https://host/under/here/s/x?from=mail", ("https://host/under/here", "x")),
    ],
)
def test_session_url_is_parsed(url: str, expected: tuple[str, str]) -> None:
    assert parse_session_url(url) == expected


@pytest.mark.parametrize(
    "url",
    ["", "abc", "ftp://host/s/x", "http://host", "http://host/s/", "http://host/s/UPPER", "http:///s/x",
     "http://host:port/s/x", "http://u:p@host/s/x", "http://[::1/s/x", "http://host/s/x/y"],
)  # fmt: skip
def test_wrong_session_url_shows_the_right_form(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_session_url(url)
    assert "/s/my-session" in caught.value.hint


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://host.example/s/abc", ("https://host.example", "abc")),
        (" https://host.example ", ("https://host.example", None)),
        ("http://127.0.0.1:8000/", ("http://127.0.0.1:8000", None)),
        ("https://host/under/here/", ("https://host/under/here", None)),
    ],
)
def test_a_join_takes_a_sessions_address_or_a_coordinators(url: str, expected: tuple[str, str | None]) -> None:
    assert parse_join_url(url) == expected


@pytest.mark.parametrize("url", ["", "ftp://host", "http://host/s/", "http://host/s/UPPER", "http://host/s/x/y"])
def test_a_sessions_address_that_was_copied_badly_is_taken_for_no_coordinators(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_join_url(url)
    assert "/s/my-session" in caught.value.hint


@pytest.mark.parametrize(
    ("given_token", "url", "token"),
    [
        ("", "https://host.example/s/abc", None),
        ("", "https://host.example/s/abc#top", None),
        ("", " https://host.example/s/abc#invitation=a-B_9 ", "a-B_9"),
        ("mine", "https://host.example/s/abc#invitation=other", "mine"),
    ],
)
def test_an_invitation_is_given_or_stands_in_the_address(given_token: str, url: str, token: str | None) -> None:
    assert invitation_token(given_token, url) == token
    assert parse_session_url(url)[1] == "abc"
    assert "a-B_9" not in repr(JoinOptions(url=url, invitation=given_token))


@pytest.mark.parametrize(("given_token", "fragment"), [("a b", ""), ("", "#invitation=%00"), ("x" * 101, "")])
def test_what_is_no_invitation_is_refused_before_anything_is_sent(given_token: str, fragment: str) -> None:
    with pytest.raises(InvalidRequestError, match="--invitation"):
        invitation_token(given_token, f"https://host.example/s/abc{fragment}")


@given(st.text(max_size=60))
def test_any_text_is_a_session_url_or_a_config_error(url: str) -> None:
    try:
        base, session = parse_session_url(url)
    except ConfigError:
        return
    assert base.startswith("http")
    assert session


def test_version_mismatch_names_the_older_side() -> None:
    assert "run here: pip install --upgrade" in version_mismatch(99).hint
    assert "on the coordinator" in version_mismatch(0).hint


# ---------------------------------------------------------------------------------------------- supervisor
@pytest.mark.parametrize("code", [2, 65, 76, 78])
def test_final_failures_are_not_restarted(code: int) -> None:
    assert judge_exit(code, is_stop_wished=False) == "failed"
    assert judge_exit(code, is_stop_wished=True) == "failed"


@given(st.integers(-64, 255))
def test_every_exit_has_one_verdict(code: int) -> None:
    if code in (2, 65, 76, 78):
        return
    assert judge_exit(code, is_stop_wished=False) == ("finished" if code == 0 else "restart")
    assert judge_exit(code, is_stop_wished=True) == "finished"


def test_only_recent_exits_count() -> None:
    assert recent_exits([0.0, 50.0, 100.0], 150.0, window_s=100.0) == [50.0, 100.0]


def test_a_training_process_that_has_lost_a_gpu_is_not_started_again() -> None:
    gpu = ("NVIDIA H100", 80 * 2**30)
    assert lost_gpus(1, DriverAnswer([gpu])) is None
    assert lost_gpus(1, DriverAnswer([gpu, gpu])) is None
    one_of_two = lost_gpus(2, DriverAnswer([gpu]))
    assert one_of_two is not None
    assert one_of_two.message.endswith("of 2 GPUs that it began with the driver shows 1")
    silent = lost_gpus(1, DriverAnswer([], trouble="No devices were found"))
    assert silent is not None
    assert (silent.exit_code, silent.field) == (78, "gpu")
    assert silent.message.endswith("shows 0: No devices were found")


def test_final_error_is_the_last_line_of_a_trace() -> None:
    log = "starting\nTraceback (most recent call last):\n  File x\n    y\nValueError: too small\n  note\n\n"
    assert final_error(log) == "ValueError: too small"
    assert final_error("") == ""


# ---------------------------------------------------------------------------------------------- wishes
NAMES: list[WishName] = ["run", "pause", "stop", "cancel"]


@given(st.dictionaries(st.sampled_from(SOURCES), st.builds(Control, wish=st.sampled_from(NAMES))))
def test_the_strongest_wish_holds_whoever_has_it(wishes: dict[Source, Control]) -> None:
    holds = combined(wishes).wish
    assert NAMES.index(holds) == max((NAMES.index(one.wish) for one in wishes.values()), default=0)
    told = standing(wishes)
    assert {one.source: one.wish for one in told} == {s: c.wish for s, c in wishes.items() if c.wish != "run"}
    assert [NAMES.index(one.wish) for one in told] == sorted((NAMES.index(one.wish) for one in told), reverse=True)


def test_a_node_trains_only_if_nobody_wants_it_to_rest(tmp_path: Path) -> None:
    told: list[Control] = []
    wishes = Wishes(tmp_path, on_change=told.append)
    write_control(tmp_path / LOCAL_WISH_FILE, Control(wish="pause", reason="dinner"))
    wishes.read_local()
    wishes.set("schedule", Control(wish="pause", reason="until 22:00"))
    wishes.set("coordinator", Control(wish="run"))
    assert read_control(tmp_path / CONTROL_FILE) == Control(wish="pause", reason="dinner")
    assert [str(one) for one in read_standing(tmp_path)] == [
        "pause by the volunteer (dinner)", "pause by the schedule (until 22:00)",
    ]  # fmt: skip
    wishes.set("volunteer", Control())
    assert read_control(tmp_path / CONTROL_FILE) == Control(wish="pause", reason="until 22:00")
    wishes.set("schedule", Control())
    wishes.set("schedule", Control())
    assert read_control(tmp_path / CONTROL_FILE) == Control()
    assert read_standing(tmp_path) == []
    wishes.set("coordinator", Control(wish="stop"))
    wishes.set("coordinator", Control(wish="stop"))
    assert read_control(tmp_path / CONTROL_FILE).wish == "stop"
    assert [control.wish for control in told] == ["pause", "pause", "run", "stop"]


def test_who_wants_what_is_nobody_where_it_cannot_be_read(tmp_path: Path) -> None:
    assert read_standing(tmp_path) == []
    (tmp_path / STANDING_WISHES_FILE).write_text('{"wishes": [{"source": "moon", "wish": "pause"}]}')
    assert read_standing(tmp_path) == []


def test_wishes_of_an_earlier_run_are_withdrawn(tmp_path: Path) -> None:
    write_control(tmp_path / LOCAL_WISH_FILE, Control(wish="pause"))
    write_control(tmp_path / CONTROL_FILE, Control(wish="stop"))
    wishes = Wishes(tmp_path, on_change=lambda control: None)
    wishes.read_local()
    assert read_control(tmp_path / CONTROL_FILE).wish == "run"


# ---------------------------------------------------------------------------------------------- display
@given(st.lists(st.floats(-1e6, 1e6), max_size=50))
def test_sparkline_has_a_bar_for_each_value(values: list[float]) -> None:
    line = sparkline(values)
    assert len(line) == len(values)
    if len(set(values)) > 1 and max(values) - min(values) > 1e-3:
        assert line[values.index(min(values))] == "▁"
        assert line[values.index(max(values))] == "█"


NO_FIGURES = Figures()
FIGURES = Figures(
    rounds=8, work_share=0.253, last_sync_at=90.0, round_bytes_sent=1_200_000, round_bytes_received=900_000,
    remaining_seconds=80.0,
)  # fmt: skip


def test_what_the_last_rounds_tell_stands_in_lines_and_in_the_live_view() -> None:
    now = snapshot(updatedAt=102.0)
    line = plain_line(now, FIGURES)
    for fact in ("my share 25.3 % of the last 8 rounds' work", "last sync 12 s ago", "a round 1.2 MB up, 900.0 kB down",
                 "about 1 min 20 s left"):  # fmt: skip
        assert fact in line
    rows = live_rows(now, [], FIGURES)
    assert ("my share", "25.3 % of the last 8 rounds' work") in rows
    assert ("last sync", "12 s ago") in rows
    assert ("a round", "1.2 MB up, 900.0 kB down") in rows
    assert "12.5 %, round 3, about 1 min 20 s left" in dict(rows)["progress"]
    alone = live_rows(snapshot(peer="local"), [], FIGURES)
    assert {"my share", "last sync", "a round"}.isdisjoint(dict(alone))


def test_plain_line_has_the_facts() -> None:
    line = plain_line(snapshot(), NO_FIGURES)
    for fact in (
        "training/training",
        "round 3",
        "12.5 %",
        "loss 2.5000",
        "4 peers",
        "sent 1.5 MB, received 999 B",
    ):
        assert fact in line
    assert "waiting for" not in line
    waiting = snapshot(waitingFor="3 nodes, 2 are here", waitingSince=10.0, updatedAt=75.0)
    assert "waiting for 3 nodes, 2 are here, 1 min 05 s" in plain_line(waiting, NO_FIGURES)
    assert ("waiting for", "3 nodes, 2 are here, 1 min 05 s") in live_rows(waiting, [], NO_FIGURES)
    assert "error: no memory" in plain_line(snapshot(status="failed", errorMsg="no memory"), NO_FIGURES)


def test_plain_display_tells_changes_of_phase_at_once_and_the_rest_seldom() -> None:
    out = io.StringIO()
    display = PlainDisplay(out)
    for _ in range(5):
        display.show(snapshot())
    display.show(snapshot(phase="averaging"))
    assert len(out.getvalue().splitlines()) == 2


def test_json_display_keeps_notices_apart() -> None:
    out, err = io.StringIO(), io.StringIO()
    display = JsonDisplay(out, err)
    display.show(snapshot())
    display.notice("hello")
    told = json.loads(out.getvalue())
    assert Figures.model_validate(told.pop("figures")) == NO_FIGURES
    assert Status.model_validate(told) == snapshot()
    assert err.getvalue() == "hello\n"


def test_live_display_draws_the_facts() -> None:
    from rich.console import Console

    out = io.StringIO()
    display = LiveDisplay(Console(file=out, force_terminal=True, width=100))
    display.open()
    display.notice("a [notice]")
    display.show(snapshot(samplesCommitted=10, samplesWanted=100))
    display.show(snapshot(samplesCommitted=20, samplesWanted=100, updatedAt=10.0, validationLoss=2.0))
    display.close()
    for fact in ("a [notice]", "round 3, about 1 min 20 s left", "2.5000", "2.0000", "1.5 MB"):
        assert fact in out.getvalue()


def test_live_rows_show_an_error() -> None:
    assert ("error", "no memory") in live_rows(snapshot(errorMsg="no memory"), [], NO_FIGURES)


def test_formats() -> None:
    assert [format_bytes(n) for n in (0, 999, 1000, 999_960, 2 * 10**15)] == [
        "0 B", "999 B", "1.0 kB", "1.0 MB", "2000.0 TB",
    ]  # fmt: skip
    assert [format_seconds(n) for n in (0, 59.4, 65, 7620)] == ["0 s", "59 s", "1 min 05 s", "2 h 07 min"]
    assert summary_line(None) == "left before training began"
    assert summary_line(snapshot(status="completed", step=7)).startswith("completed after 3 rounds and 7 inner")


# ---------------------------------------------------------------------------------------------- lock and job
def test_second_agent_is_refused_and_a_dead_ones_place_taken(tmp_path: Path) -> None:
    with agent_lock(tmp_path, session="one", run_dir=tmp_path):
        assert running_agent(tmp_path).pid == os.getpid()
        with (
            pytest.raises(ConflictError, match=f"process {os.getpid()} already"),
            agent_lock(tmp_path, session="two", run_dir=tmp_path),
        ):
            pytest.fail("a second agent was let in")
    assert read_agent(tmp_path) is None
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    dead = AgentRecord(pid=process.pid, start_time=1.0, session="one", run_dir=tmp_path)
    reused = AgentRecord(pid=os.getpid(), start_time=1.0, session="one", run_dir=tmp_path)
    for stale in (dead.model_dump_json(by_alias=True), reused.model_dump_json(by_alias=True), "{", ""):
        (tmp_path / AGENT_FILE).write_text(stale)
        with agent_lock(tmp_path, session="two", run_dir=tmp_path):
            assert running_agent(tmp_path).session == "two"
    with pytest.raises(NotFoundError, match="no agent"):
        running_agent(tmp_path)


def test_job_round_trip_and_clear_errors(tmp_path: Path) -> None:
    job = Job(
        session="s", peer_id="p", identity_path=tmp_path, config_path=tmp_path, shared=tmp_path,
        membership_path=tmp_path, run_dir=tmp_path, initial_peers=["/ip4/127.0.0.1/tcp/1"], dataset_path=tmp_path,
    )  # fmt: skip
    path = tmp_path / "job.json"
    write_job(path, job)
    assert read_job(path) == job
    for content in ("{", "[]", '{"session": "s"}', path.read_text().replace("peerId", "peer")):
        path.write_text(content)
        with pytest.raises(ConfigError, match=r"job\.json"):
            read_job(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_job(tmp_path / "absent")


def test_hardware_is_found_out() -> None:
    found = detect_hardware()
    assert found.memory_bytes == psutil.virtual_memory().total
    assert found.cpu_count >= 1
    assert found.device
    assert parse_cpu_model("processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\n") == "Fast CPU @ 3 GHz"
    assert parse_cpu_model("Hardware: x\n") == ""
    assert parse_gpu("81559, NVIDIA H100 80GB HBM3") == ("NVIDIA H100 80GB HBM3", 81559 * 2**20)
    assert parse_gpu("[N/A], NVIDIA Jetson") == ("NVIDIA Jetson", 0)
