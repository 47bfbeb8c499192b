"""What a run's snapshots tell together, for people who watch it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.figures import KEPT_ROUNDS, Figures, RunFigures, figures_of, remaining_s
from cotrain.status import MAX_RECORDS, Record, RecordKind, Status
from cotrain.swarm.outcome import RoundOutcome
from cotrain.train.diloco import RoundTotals

ME, OTHER = "12D3KooWme", "12D3KooWother"


def outcome(weights: dict[str, float], samples: int, sent: int = 1000, received: int = 500) -> dict[str, Any]:
    """The record's data as the swarm writes it."""
    return RoundOutcome(
        round=1, members=tuple(weights), weights=tuple(weights.values()),
        totals=RoundTotals(samples=samples, positions=0), zeroed_parts=0, suspects={}, dropped={}, matchmaking_s=0.1,
        reducing_s=0.2, bytes_sent=sent, bytes_received=received,
    ).record()  # fmt: skip


def snapshot(
    rounds: list[dict[str, Any]], *, first: int = 1, run: str = "run", kind: RecordKind = "round", **more: Any
) -> Status:
    """A snapshot with a record for each of the rounds, closed at 10, 20, 30 ... s."""
    records = [
        Record(number=number, time=10.0 * number, kind=kind, message="", data=data)
        for number, data in enumerate(rounds, first)
    ][-MAX_RECORDS:]
    facts: dict[str, Any] = {"status": "training", "phase": "training", "updated_at": 100.0, "sequence": 1} | more
    return Status(session="s", peer=ME, run=run, records=records, **facts)


def test_before_the_first_round_nothing_is_known() -> None:
    assert figures_of(snapshot([])) == Figures()
    assert figures_of(snapshot([outcome({ME: 1.0}, 8)], kind="log")) == Figures()


def test_the_share_is_that_of_the_work_and_not_of_the_rounds() -> None:
    rounds = [outcome({ME: 10.0, OTHER: 30.0}, 40, 1000, 500), outcome({OTHER: 0.0, ME: 10.0}, 10, 2000, 700)]
    found = figures_of(snapshot(rounds))
    assert found.work_share == pytest.approx((0.25 * 40 + 1.0 * 10) / 50)
    assert (found.rounds, found.last_sync_at) == (2, 20.0)
    assert (found.round_bytes_sent, found.round_bytes_received) == (1500, 600)


def test_snapshots_that_overlap_count_each_round_once_and_a_new_run_begins_anew() -> None:
    figures = RunFigures()
    rounds = [outcome({ME: 1.0, OTHER: 3.0}, 4), outcome({ME: 3.0, OTHER: 1.0}, 4)]
    figures.take(snapshot(rounds[:1]))
    assert figures.take(snapshot(rounds)).rounds == 2
    assert figures.take(snapshot(rounds)).work_share == pytest.approx(0.5)
    again = figures.take(snapshot(rounds[:1], run="another"))
    assert (again.rounds, again.work_share) == (1, pytest.approx(0.25))


def test_of_many_rounds_the_last_ones_count() -> None:
    figures = RunFigures()
    for number in range(1, 3 * KEPT_ROUNDS):
        late = number > 2 * KEPT_ROUNDS - 1
        found = figures.take(snapshot([outcome({ME: 1.0, OTHER: 1.0 if late else 0.0}, 5)], first=number))
    assert (found.rounds, found.work_share) == (KEPT_ROUNDS, pytest.approx(0.5))
    assert found.last_sync_at == 10.0 * (3 * KEPT_ROUNDS - 1)


@pytest.mark.parametrize(
    "changes",
    [{"members": [OTHER]}, {"weights": ["many"]}, {"weights": 3}, {"weights": ["0", "0"]}, {"samples": None},
     {"members": [ME, OTHER], "weights": []}],
)  # fmt: skip
def test_a_record_without_what_is_needed_tells_no_share(changes: dict[str, Any]) -> None:
    found = figures_of(snapshot([outcome({ME: 1.0, OTHER: 1.0}, 4) | changes]))
    assert found.work_share is None
    assert found.round_bytes_sent == 1000


def test_the_time_that_is_left_follows_from_the_pace() -> None:
    assert remaining_s([(0.0, 0)], 10) is None
    assert remaining_s([(0.0, 10), (10.0, 20)], 50) == 30.0
    figures = RunFigures()
    figures.take(snapshot([], updated_at=0.0, samples_committed=10, samples_wanted=50))
    figures.take(snapshot([], updated_at=5.0, samples_committed=10, samples_wanted=50))
    found = figures.take(snapshot([], updated_at=10.0, samples_committed=20, samples_wanted=50))
    assert found.remaining_seconds == 30.0


@given(st.dictionaries(st.sampled_from([ME, OTHER, "x"]), st.floats(0, 1e9), min_size=1), st.integers(0, 10**12))
def test_a_share_is_a_share_and_the_figures_are_json(weights: dict[str, float], samples: int) -> None:
    found = figures_of(snapshot([outcome(weights, samples)]))
    assert found.work_share is None or 0.0 <= found.work_share <= 1.0 + 1e-9
    assert Figures.model_validate(json.loads(found.model_dump_json(by_alias=True))) == found
