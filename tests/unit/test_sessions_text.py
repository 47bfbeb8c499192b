"""What `cotrain sessions` prints, and how it reads streams. The views' shapes are the coordinator's own."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from coordinator.chain.records import RecordView
from coordinator.credits import Credit
from coordinator.jobs import JobView
from coordinator.lifecycle import possible_actions
from coordinator.model_views import EvaluationView, ModelView, VersionView
from coordinator.models import ParticipantRow, SessionRow
from coordinator.projection import Projection, progress_event
from coordinator.scheduler import Reason
from coordinator.views import LogView, offer_view, participant_view, session_view
from cotrain.display import bar_and_rows
from cotrain.errors import ProtocolError
from cotrain.sse import EventReader, ServerEvent
from cotrain.status import State
from node.sessions import text
from node.sessions.views import JsonView, LiveView, PlainView
from node.sessions.watched import Watched

SESSION = "poems-1234"


def view_of(state: State = "waiting", *, name: str = "Poems", waits: Reason | None = None, **progress: Any) -> Any:
    row = SessionRow(
        id=SESSION, name=name, description="", owner="eip155:1:0xabc", visibility="public", state=state, error_msg="",
        created_at=0.0, updated_at=0.0, model_path="", priority=5, memory_bytes=2_500_000_000,
    )  # fmt: skip
    return session_view(row, Projection(**progress), "http://host", waits)


def session(state: State = "waiting", **given: Any) -> dict[str, Any]:
    return dict(view_of(state, **given).model_dump(by_alias=True))


def event(number: int, kind: str, data: dict[str, Any], *, time: float = 0.0, newest: int | None = None) -> ServerEvent:
    message = {"seq": number if newest is None else newest, "time": time, "type": kind, "data": data}
    return ServerEvent(number, kind, json.loads(json.dumps(message)))


def progress(**facts: Any) -> dict[str, Any]:
    return progress_event(SESSION, Projection(**facts)).model_dump(by_alias=True)


def snapshot(number: int, state: State, *, newest: int | None = None, time: float = 0.0, **facts: Any) -> ServerEvent:
    data = {"session": session(state), "progress": progress(**facts)}
    return event(number, "snapshot", data, newest=newest, time=time)


def state_of(number: int, state: State, **facts: Any) -> ServerEvent:
    data = {"status": state, "errorMsg": "", "modelPath": "", "possibleActions": possible_actions(state), **facts}
    return event(number, "session.state", data)


# ------------------------------------------------------------------------------------------------- lines
def test_a_table_has_a_line_for_each_session_under_its_header() -> None:
    header, first, second = text.sessions_table([session(loss=2.5, peers=3), session("draft", name="a" * 30)])
    assert header.split() == ["SESSION", "STATUS", "%", "ROUND", "NODES", "LOSS", "NAME"]
    assert first.split() == [SESSION, "waiting", "0.0", "0", "3", "2.5000", "Poems"]
    assert second.index("a" * 30) == first.index("Poems") == header.index("NAME")


def test_one_session_is_shown_with_what_it_waits_for_and_without_what_is_empty() -> None:
    lines = text.session_lines(session(waits=Reason("peers", "it needs 2 more nodes")))
    assert "waits for     peers: it needs 2 more nodes" in lines
    assert "join with     cotrain node join http://host/s/poems-1234" in lines
    assert "node needs    2.5 GB" in lines
    assert not any(line.startswith(("error", "description", "model")) for line in lines)


def test_a_session_tells_of_its_record() -> None:
    record = RecordView(session_id=SESSION, status="off")
    assert text.session_lines(session() | {"record": record.model_dump(by_alias=True)}) == text.session_lines(session())
    opened = {"status": "waiting", "chain": "eip155:8453", "open_tx": "0xab", "message": "no answer"}
    lines = text.session_lines(session() | {"record": record.model_copy(update=opened).model_dump(by_alias=True)})
    assert "record        waiting on eip155:8453, transaction 0xab: no answer" in lines


def test_what_strangers_have_written_steers_no_terminal() -> None:
    evil = "\x1b[2J\x1b]0;x\x07a\nb\u202e"
    shown = "\n".join([*text.sessions_table([session(name=evil)]), *text.session_lines(session(name=evil))])
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "�[2J" in shown
    assert len(text.session_lines(session(name=evil))) == len(text.session_lines(session()))


def test_offers_say_what_they_lack() -> None:
    offers = [offer_view(view_of(), 2).model_dump(by_alias=True)]
    assert text.offers_table(offers)[1].split() == [SESSION, "waiting", "2", "2.5", "GB", "Poems"]


def test_an_action_says_what_became_of_it() -> None:
    assert text.action_line(session("paused")) == "session poems-1234: paused"
    waiting = session("pending", waits=Reason("dataset", "another session trains on it"))
    assert text.action_line(waiting).endswith("pending, waits for dataset: another session trains on it")


def test_participants_and_models_have_their_figures() -> None:
    row = ParticipantRow(
        id="p-1", peer_id="12D3", account="eip155:1:0xabc", name="kitchen", hardware={"device": "cpu"}, status=None,
        created_at=0.0, last_seen_at=None,
    )  # fmt: skip
    view = participant_view(row, Credit(samples=64, rounds=2), connected=False, clock=1.0).model_dump(by_alias=True)
    assert text.participants_table([view])[1].split() == ["p-1", "offline", "-", "0", "64", "-", "-", "kitchen", "cpu"]
    version = VersionView(
        model="m-1", version=2, session_id=None, data_fingerprint="", contributors=[], uncredited_rounds=0,
        evaluation=EvaluationView(round=3, samples=9, metrics={"validationLoss": 1.25}), round=3, parameters=7,
        size_bytes=4000, available=True, pinned=False, created_at="2030-01-01",
    )  # fmt: skip
    models = [
        ModelView(id=name, name="Poems", owner="", versions=1, newest=newest, created_at="").model_dump(by_alias=True)
        for name, newest in (("m-1", version), ("m-2", None))
    ]
    assert text.models_table(models)[1].split() == ["m-1", "1", "1.2500", "4.0", "kB", "2030-01-01", "Poems"]
    assert text.models_table(models)[2].split() == ["m-2", "1", "-", "-", "-", "Poems"]


def test_records_and_jobs_are_one_line() -> None:
    record = LogView(source="p-1", run="r", number=1, time=3661.0, kind="log", level="warning", message="x", data={})
    assert text.log_line(record.model_dump(by_alias=True)) == "01:01:01 p-1 log: warning: x"
    job = JobView(
        id="j-1", kind="save", status="completed", session_id=SESSION, model="m-1", version=2, asked=None, result=None,
        message="", hint="", created_at="", updated_at="",
    )  # fmt: skip
    assert text.job_line(job.model_dump(by_alias=True)) == "job j-1: save completed: m-1 version 2"


# ------------------------------------------------------------------------------------------------- the stream
def test_events_are_read_line_by_line() -> None:
    reader = EventReader()
    lines = ["retry: 2000", "", "id: 7", "event: session.state", 'data: {"seq": 7}', "", ": still here", "", "id: 8"]
    found = [event for line in lines if (event := reader.feed(line)) is not None]
    assert found == [ServerEvent(7, "session.state", {"seq": 7})]
    reader.feed("event: end")
    reader.feed('data:{"code": 1001}')
    assert reader.feed("") == ServerEvent(8, "end", {"code": 1001})


@pytest.mark.parametrize("lines", [["data: {"], ["data: []"], ["id: x", "data: {}"]])
def test_a_stream_of_something_else_is_refused(lines: list[str]) -> None:
    reader = EventReader()
    for line in lines:
        reader.feed(line)
    with pytest.raises(ProtocolError):
        reader.feed("")


def test_a_watched_session_is_what_its_events_say() -> None:
    watched = Watched()
    assert watched.apply(snapshot(4, "waiting", time=50.0, samples_wanted=100)) == ""
    assert not watched.ended
    assert watched.apply(state_of(5, "training")) == "the session is training"
    for number, (loss, samples) in enumerate([(3.0, 10), (2.0, 20)], start=6):
        facts = progress(loss=loss, samples_committed=samples, samples_wanted=100, process_rate=20.0, peers=2, round=1)
        watched.apply(event(number, "training.progress", facts, time=float(number * 10)))
    assert watched.line() == "training  round 1  20.0 %  loss 2.0000  2 nodes"
    rows = dict(watched.rows())
    assert rows["progress"] == "20.0 %, round 1, about 1 min 20 s left"
    assert rows["loss"] == "2.0000  █▁"
    assert "waits for" not in rows
    joined = event(8, "participant.state", {"participant": "p-1", "name": "kitchen", "state": "online"})
    assert watched.apply(joined) == "kitchen is online"
    assert watched.apply(state_of(9, "failed", errorMsg="no data")) == "the session is failed: no data"
    assert watched.ended
    assert dict(watched.rows())["error"] == "no data"


def test_a_resumed_session_has_ended_once_all_that_was_missed_has_come() -> None:
    watched = Watched()
    watched.apply(snapshot(3, "completed", newest=5))
    assert not watched.ended
    watched.apply(state_of(4, "training"))
    watched.apply(state_of(5, "completed"))
    assert watched.ended


def test_plain_lines_show_changes_at_once_and_progress_now_and_then() -> None:
    out, watched = io.StringIO(), Watched()
    view = PlainView(out, io.StringIO())
    steps = [
        snapshot(1, "training"),
        *(event(2 + t, "training.progress", progress(), time=float(t)) for t in range(12)),
    ]
    for one in [*steps, state_of(20, "paused")]:
        view.show(one, watched.apply(one), watched)
    lines = out.getvalue().splitlines()
    assert lines[-1] == "the session is paused"
    assert [line.split()[0] for line in lines[:-1]] == ["training"] * 3


def test_a_terminal_shows_the_session_in_place_and_events_above_it() -> None:
    out, watched = io.StringIO(), Watched()
    with LiveView(Console(file=out, force_terminal=True, width=100)) as view:
        for one in [snapshot(1, "training", loss=2.5), state_of(2, "completed")]:
            view.show(one, watched.apply(one), watched)
    shown = out.getvalue()
    assert "the session is completed" in shown
    assert shown.rindex("2.5000") > shown.index("the session is completed")


def test_a_live_view_has_its_bar_in_a_line_of_its_own() -> None:
    out = io.StringIO()
    Console(file=out, width=60).print(bar_and_rows(50.0, [("session", "poems"), ("speed", "-")]))
    bar, *rows = [line.strip() for line in out.getvalue().splitlines()]
    assert set(bar) <= set("━╸╺ ")
    assert rows == ["session  poems", "speed    -"]


def test_json_lines_are_the_events_as_they_came() -> None:
    out, watched = io.StringIO(), Watched()
    events = [snapshot(1, "training"), state_of(2, "paused")]
    for one in events:
        JsonView(out, io.StringIO()).show(one, watched.apply(one), watched)
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [one.message for one in events]
