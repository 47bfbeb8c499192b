"""The coordinator's pure decisions: progress, participants' states, tokens, ids, delays."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.api.requests import encode_cursor, parse_integer
from coordinator.auth.addresses import is_loopback
from coordinator.auth.tokens import bearer_token, new_token, token_matches, token_sha256
from coordinator.checkpointer_process import restart_delay
from coordinator.ingest import check_status
from coordinator.joinable import check_protocol
from coordinator.lifecycle import STATES
from coordinator.problem import UpgradeRequiredError
from coordinator.projection import Projection, progress_event, project, session_rate
from coordinator.sessions import new_session_id
from coordinator.views import SILENT_AFTER_S, participant_state
from cotrain.errors import InvalidRequestError, NotAuthorizedError, ProtocolError
from cotrain.listening import address_url
from cotrain.protocol import PROTOCOL_VERSION
from cotrain.status import State, Status


def status(**changes: Any) -> Status:
    fields: dict[str, Any] = {
        "session": "s", "peer": "p", "run": "r", "sequence": 1, "updated_at": 0.0, "status": "training",
        "phase": "training",
    }  # fmt: skip
    return Status(**{**fields, **changes})


def projected(checkpointer: Status | None, *participants: Status, previous: Projection | None = None) -> Projection:
    return project(
        "training", checkpointer, participants, connected=len(participants), previous=previous or Projection()
    )


def test_what_is_reached_comes_from_the_checkpointer_and_speed_from_participants() -> None:
    result = projected(
        status(round=3, samples_committed=30, samples_wanted=60, validation_loss=3.0),
        status(round=99, samples_committed=10**9, loss=2.0, tokens_per_second=10.0, validation_loss=0.0),
        status(loss=4.0, tokens_per_second=5.0),
        status(status="paused", tokens_per_second=7.0),
    )
    assert (result.round, result.samples_committed, result.validation_loss) == (3, 30, 3.0)
    assert (result.loss, result.tokens_per_second, result.peers) == (3.0, 15.0, 3)


def test_the_last_loss_stays_when_everybody_has_gone_but_the_speed_does_not() -> None:
    before = projected(None, status(loss=2.0, tokens_per_second=10.0, last_train_at="2026-01-01T00:00:00+00:00"))
    after = projected(None, previous=before)
    assert (after.loss, after.tokens_per_second, after.peers) == (2.0, None, 0)
    assert after.last_train_at == "2026-01-01T00:00:00+00:00"


@given(st.sampled_from(STATES), st.integers(0, 1000), st.integers(0, 1000))
def test_the_rate_is_a_percentage_that_rises_with_the_samples(state: State, samples: int, wanted: int) -> None:
    rate = session_rate(state, samples, wanted)
    assert 0.0 <= rate <= 100.0
    assert session_rate(state, samples + 1, wanted) >= rate
    assert (rate == 100.0) == (state == "completed")


def test_a_pause_does_not_move_the_rate() -> None:
    rates = {session_rate(state, 50, 100) for state in ("training", "paused", "waiting", "stopping", "stopped")}
    assert len(rates) == 1


def test_the_progress_event_has_the_agreed_fields() -> None:
    data = progress_event("s", projected(None, status(loss=2.0, batch_size=4))).model_dump(by_alias=True)
    assert set(data) == {"sessionId", "progress", "loss", "participants", "metrics"}
    assert data["metrics"]["batchSize"] == 4


@pytest.mark.parametrize(
    ("phase", "silent_s", "connected", "state"),
    [
        (None, None, False, "offline"),
        ("training", 0.0, False, "offline"),
        (None, 0.0, True, "joining"),
        ("downloading", 0.0, True, "joining"),
        ("averaging", 0.0, True, "online"),
        ("training", SILENT_AFTER_S + 1, True, "unreachable"),
    ],
)
def test_a_participants_state(phase: str | None, silent_s: float | None, connected: bool, state: str) -> None:
    newest = None if phase is None else status(phase=phase)
    last_seen = None if silent_s is None else 1000.0 - silent_s
    assert participant_state(newest, last_seen, connected=connected, clock=1000.0) == state


def test_tokens() -> None:
    token = new_token()
    assert bearer_token(f"Bearer {token}") == token
    assert token_matches(token, token_sha256(token))
    assert not token_matches(new_token(), token_sha256(token))
    assert not token_matches("", "")  # what an ended token leaves behind


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc"])
def test_without_a_bearer_token_nobody_gets_in(header: str | None) -> None:
    with pytest.raises(NotAuthorizedError):
        bearer_token(header)


@given(st.text(max_size=40))
def test_session_ids_are_short_and_plain(name: str) -> None:
    session = new_session_id(name)
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{11}", session)
    assert new_session_id(name) != session


@given(st.integers(0, 1000), st.floats(0, 1, exclude_max=True))
def test_the_restart_delay_doubles_up_to_its_limit(failures: int, jitter: float) -> None:
    delay = restart_delay(failures, 1.0, 30.0, jitter)
    assert 0.5 <= delay <= 30.0
    assert restart_delay(failures + 1, 1.0, 30.0, jitter) >= delay
    assert restart_delay(3, 1.0, 30.0, 0.0) == 4.0


@given(st.text(max_size=25))
def test_integers_are_taken_as_digits_only(text: str) -> None:
    try:
        value = parse_integer(text, "after")
    except InvalidRequestError:
        assert not re.fullmatch("[0-9]{1,18}", text)
    else:
        assert value == int(text)
        assert text.isascii()


def test_a_cursor_of_nothing_is_nothing() -> None:
    assert encode_cursor(None) is None
    assert encode_cursor([1.5, "x"]) == encode_cursor((1.5, "x"))


@pytest.mark.parametrize(("version", "side"), [(PROTOCOL_VERSION + 1, "coordinator"), (PROTOCOL_VERSION - 1, "node")])
def test_the_older_side_is_told_to_upgrade(version: int, side: str) -> None:
    with pytest.raises(UpgradeRequiredError) as raised:
        check_protocol(version)
    assert f"upgrade the {side}: pip install --upgrade cotrain" in raised.value.hint


@pytest.mark.parametrize("wrong", ["session", "peer", "run"])
def test_nobody_speaks_for_another(wrong: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        check_status(status(**{wrong: "other"}), session="s", peer="p", run="r")
    assert raised.value.field == f"status.{wrong}"


@pytest.mark.parametrize(
    ("host", "url", "loopback"),
    [
        ("127.0.0.1", "http://127.0.0.1:80", True), ("0.0.0.0", "http://127.0.0.1:80", False),
        ("::1", "http://[::1]:80", True), ("localhost", "http://localhost:80", True),
        ("train.example", "http://train.example:80", False),
    ],
)  # fmt: skip
def test_addresses(host: str, url: str, loopback: bool) -> None:
    assert address_url(host, 80) == url
    assert is_loopback(host) is loopback
