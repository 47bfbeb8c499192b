"""The accounting of credit: each round once, in whichever order and how often it is recorded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.credits import Credit, account, credit_data, credits_in
from cotrain.status import Record

PEERS = ("a", "b", "c")
ROUNDS = st.dictionaries(
    st.integers(1, 40), st.dictionaries(st.sampled_from(PEERS), st.integers(1, 2**40), max_size=3), max_size=12
)


def record(round_: Any, credits: dict[str, int] | None, *, number: int = 1, kind: Any = "round") -> Record:
    data = {"round": round_, "samples": 5, **credit_data(credits)}
    return Record(number=number, time=1.0, kind=kind, message="m", data=data)


def expected(rounds: dict[int, dict[str, int]]) -> dict[str, Credit]:
    found = {peer: [given[peer] for given in rounds.values() if peer in given] for peer in PEERS}
    return {peer: Credit(sum(samples), len(samples)) for peer, samples in found.items() if samples}


@given(ROUNDS, st.data())
def test_order_repetition_and_restarts_change_nothing(rounds: dict[int, dict[str, int]], data: st.DataObject) -> None:
    """Records come in batches, each again and again and out of order; what was counted is kept between batches."""
    repeated = data.draw(st.lists(st.sampled_from(sorted(rounds)), max_size=20) if rounds else st.just([]))
    told = data.draw(st.permutations([*rounds, *repeated]))
    total: dict[str, Credit] = {}
    counted: set[int] = set()
    while told:
        size = data.draw(st.integers(1, len(told)))
        batch, told = told[:size], told[size:]
        found, fresh = account([record(round_, rounds[round_]) for round_ in batch], counted)
        assert not fresh & counted
        counted |= fresh
        for peer, credit in found.items():
            total[peer] = total.get(peer, Credit()) + credit
    assert counted == set(rounds)
    assert total == expected(rounds)


@given(ROUNDS)
def test_what_is_recorded_is_what_is_read(rounds: dict[int, dict[str, int]]) -> None:
    for round_, credits in rounds.items():
        assert credits_in(record(round_, credits)) == (round_, credits)


def test_a_round_that_nobody_can_credit_counts_for_nobody_and_may_be_counted_later() -> None:
    assert account([record(3, None)], set()) == ({}, set())
    assert account([record(3, None), record(3, {"a": 4})], set()) == ({"a": Credit(4, 1)}, {3})


def test_a_round_that_owes_nobody_anything_is_counted() -> None:
    assert account([record(3, {})], set()) == ({}, {3})


@pytest.mark.parametrize(
    "credits", ["a 5", ["a"], ["a -5"], ["a 5", "a 6"], ["a five"], ["a ٥"], [f"a {2**63}"], 7, True]
)
def test_what_cannot_be_read_credits_nothing(credits: Any) -> None:
    data = {"round": 3, "credits": credits}
    assert credits_in(Record(number=1, time=1.0, kind="round", message="m", data=data)) is None


@pytest.mark.parametrize("found", [record(True, {"a": 1}), record("3", {"a": 1}), record(3, {"a": 1}, kind="log")])
def test_only_rounds_are_credited(found: Record) -> None:
    assert credits_in(found) is None
