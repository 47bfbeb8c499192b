"""Who is told of as left out again and again: a pattern that two wallets have seen, not one member's word."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.drops import OF_ROUNDS, ROUNDS, ROUNDS_KEPT, TELL_AGAIN_ROUNDS, DropCounter, Suspect, dropped_in

REACHED = 10
TOO_LONG = {"liar": "too long"}


def note(counter: DropCounter, rounds: Iterable[int], wallets: Iterable[str], reached: int = REACHED) -> list[Suspect]:
    return [
        suspect
        for round_ in rounds
        for wallet in wallets
        for suspect in counter.note(round_, wallet, TOO_LONG, reached=reached)
    ]


def test_three_of_five_rounds_by_two_wallets_are_told_once_with_what_was_seen() -> None:
    counter = DropCounter()
    assert note(counter, [8, 10], "ab") == []
    assert counter.note(12, "a", {"liar": "points away"}, reached=REACHED) == []
    (suspect,) = counter.note(12, "c", TOO_LONG, reached=REACHED)
    assert suspect == Suspect("liar", (8, 10, 12), ("a", "b", "c"), ("too long", "points away"))
    assert note(counter, range(9, 14), "abc") == []


@pytest.mark.parametrize(
    ("rounds", "wallets"),
    [
        ([8, 9], "ab"), ([6, 9, 12], "ab"), ([6, 7, 8, 9, 10], "a"), ([8, 8, 8], "ab"), ([8, 9, 10], "aa"),
    ],
    ids=["two rounds", "too far apart", "one wallet", "one round thrice", "one wallet twice"],
)  # fmt: skip
def test_less_than_that_says_nothing(rounds: list[int], wallets: str) -> None:
    assert note(DropCounter(), rounds, wallets) == []


def test_different_wallets_in_different_rounds_say_nothing() -> None:
    counter = DropCounter()
    assert [counter.note(n, wallet, TOO_LONG, reached=REACHED) for n, wallet in zip((8, 9, 10), "abc")] == [[]] * 3  # noqa: B905


def test_records_that_come_late_and_out_of_order_count() -> None:
    counter = DropCounter()
    assert note(counter, [4, 3], "a", reached=40) == []
    assert note(counter, [2], "ba", reached=40) == []
    assert note(counter, [3, 4], "b", reached=40)[0].rounds == (2, 3, 4)


def test_a_made_up_round_is_not_believed_and_pushes_nothing_out() -> None:
    counter = DropCounter()
    assert note(counter, [8, 9], "ab") == []
    assert note(counter, [10**9, REACHED + 6, REACHED - ROUNDS_KEPT, -5], "ab") == []
    assert note(counter, [10], "ab")[0].rounds == (8, 9, 10)


def test_who_goes_on_is_told_of_again_after_many_rounds() -> None:
    counter, told = DropCounter(), []
    for round_ in range(1, 2 * TELL_AGAIN_ROUNDS + 10):
        told += [suspect.rounds[-1] for suspect in note(counter, [round_], "ab", reached=round_)]
    assert told == [3, 3 + TELL_AGAIN_ROUNDS, 3 + 2 * TELL_AGAIN_ROUNDS]


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc"), st.sampled_from(["x", "y"])), max_size=80))
def test_whoever_is_told_of_fulfils_the_rule(notes: list[tuple[int, str, str]]) -> None:
    counter, seen = DropCounter(), set()
    for round_, wallet, peer in notes:
        seen.add((round_, wallet, peer))
        for suspect in counter.note(round_, wallet, {peer: "too long"}, reached=28):
            assert len(suspect.rounds) == ROUNDS
            assert suspect.rounds[-1] - suspect.rounds[0] < OF_ROUNDS
            for number in suspect.rounds:
                assert sum((number, other, suspect.peer) in seen for other in "abc") >= 2


def test_memory_is_bounded_by_the_rounds_kept() -> None:
    counter = DropCounter()
    for round_ in range(1000):
        note(counter, [round_], "a", reached=round_)
    assert len(counter._rounds) <= ROUNDS_KEPT + 1


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        (["p: too long", "q: points away: far"], {"p": "too long", "q": "points away: far"}),
        ([], {}), (None, {}), ("p: x", {}), (["p"], {}), ([3], {}),
    ],
)  # fmt: skip
def test_what_a_record_says(entries: object, found: dict[str, str]) -> None:
    assert dropped_in(entries) == found
