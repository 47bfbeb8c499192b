"""When a round closes, who averages together, and how much each member counts."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cotrain.swarm.rounds import (
    MOST_MEDIAN_RANKS,
    MOST_MEDIAN_WEIGHTS,
    Announcement,
    PeerProgress,
    RoundLimits,
    averaging_weights,
    counted_samples,
    lower_median,
    missing_for_majority,
    quorate_members,
    round_totals,
    should_close,
)
from cotrain.train.diloco import MOST_ROUND_LENGTHS

INNER_STEPS = 10
DIGESTS = ["a" * 64, "b" * 64, "c" * 64]


def peer(steps: int, *, round_: int = 3, pace: float = 0.0, age_s: float = 0.0, closing: bool = False) -> PeerProgress:
    """A peer as it is known at time 100."""
    return PeerProgress(round=round_, steps=steps, steps_per_s=pace, seen_at=100.0 - age_s, closing=closing)


def closes(my_steps: int, *others: PeerProgress) -> bool:
    return should_close(3, my_steps, others, INNER_STEPS, now=100.0)


def said(samples: int = 40, *, digest: str = "a" * 64, round_: int = 3, committed: int = 100, ranks: int = 1,
         warm: bool = True) -> Announcement:  # fmt: skip
    return Announcement(
        round=round_, digest=digest, committed=committed, steps=samples, samples=samples, ranks=ranks, warm=warm
    )


def test_nobody_leaps_over_the_data_by_announcing_many_shares() -> None:
    honest = [said(ranks=4), said(ranks=4), said(ranks=5)]
    assert round_totals([*honest, said(ranks=100_000)]).positions == 40 * 8
    assert round_totals(honest).positions == 40 * 5


# ---------------------------------------------------------------------------------------------- closing
@pytest.mark.parametrize(
    ("mine", "others", "closed"),
    [
        (10, [], True),
        (9, [], False),
        (10, [9], False),  # of two, the slower decides
        (10, [10], True),
        (10, [10, 0], True),  # one straggler of three delays nobody
        (10, [3, 0], False),
        (4, [10, 10], True),  # and brings what it has
        (10, [10, 3, 3], False),
    ],
)
def test_the_lower_median_decides(mine: int, others: list[int], closed: bool) -> None:
    assert closes(mine, *(peer(steps) for steps in others)) is closed


@pytest.mark.parametrize(
    ("mine", "others", "grace", "closed"),
    [
        (10, [peer(10), peer(9, pace=1.0)], 0.1, False),  # a second left of ten: it is waited for
        (10, [peer(10), peer(9, pace=1.0)], 0.05, True),
        (10, [peer(10), peer(9, pace=1.0)], 0.0, True),
        (10, [peer(10), peer(9, pace=1.0, age_s=2.0)], 0.1, True),  # it should be there by now: no longer
        (10, [peer(10), peer(9, pace=0.0)], 0.1, True),  # stands still
        (10, [peer(10), peer(9, pace=1.0, closing=True)], 0.1, True),
        (9, [peer(10), peer(10)], 0.2, False),  # the same for this peer itself
        (5, [peer(10), peer(10)], 0.2, True),
    ],
)
def test_a_peer_about_to_finish_is_waited_for(
    mine: int, others: list[PeerProgress], grace: float, closed: bool
) -> None:
    limits = RoundLimits(grace=grace)
    assert should_close(3, mine, others, INNER_STEPS, now=100.0, lasted_s=10.0, limits=limits) is closed


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 40), st.floats(0, 5), st.floats(0, 60)), max_size=6))
def test_grace_ends(mine: int, others: list[tuple[int, float, float]]) -> None:
    """Once the round would close without grace, each other peer can delay it once, by grace's share of its length."""
    known = [peer(steps, pace=pace, age_s=age_s) for steps, pace, age_s in others]
    if should_close(3, mine, known, INNER_STEPS, now=100.0, lasted_s=20.0):
        limits, later = RoundLimits(grace=0.1), max(mine, INNER_STEPS)  # this peer goes on
        looks = (100.0 + 2.001 * number for number in range(len(others) + 1))
        assert any(should_close(3, later, known, INNER_STEPS, now=now, lasted_s=20.0, limits=limits) for now in looks)


def test_a_round_has_an_end_whatever_the_others_do() -> None:
    limits = RoundLimits(longest_s=60.0)
    assert not should_close(3, 1, [peer(0)], INNER_STEPS, now=100.0, lasted_s=59.0, limits=limits)
    assert should_close(3, 1, [peer(0)], INNER_STEPS, now=100.0, lasted_s=60.0, limits=limits)
    assert not should_close(3, 0, [peer(0)], INNER_STEPS, now=100.0, lasted_s=60.0, limits=limits)  # has nothing


def test_whoever_is_told_of_the_closing_closes_too_unless_it_has_nothing() -> None:
    assert closes(1, peer(2, closing=True), peer(0))
    assert not closes(0, peer(10, closing=True))
    assert not closes(0, peer(10), peer(10))


def test_a_peer_in_another_round_does_not_count() -> None:
    assert not closes(1, peer(10, round_=2, closing=True))
    assert closes(10, peer(0, round_=4), peer(0, round_=2))


def test_the_fast_wait_for_the_slow_up_to_a_bound() -> None:
    bound = MOST_ROUND_LENGTHS * INNER_STEPS
    assert not closes(bound - 1, peer(1))
    assert closes(bound, peer(1))


def test_extrapolation_ends_at_the_rounds_end_and_never_goes_back() -> None:
    assert peer(4, pace=2.0, age_s=2.5).estimated_steps(100.0, INNER_STEPS) == 9
    assert peer(4, pace=2.0, age_s=1e6).estimated_steps(100.0, INNER_STEPS) == INNER_STEPS
    assert peer(35, pace=2.0, age_s=5.0).estimated_steps(100.0, INNER_STEPS) == 35
    assert peer(4, pace=2.0, age_s=-9.0).estimated_steps(100.0, INNER_STEPS) == 4  # its clock is ahead


@given(st.lists(st.integers(0, 60), min_size=0, max_size=9), st.integers(0, 60))
def test_closing_is_the_median_rule_for_any_swarm(steps: list[int], mine: int) -> None:
    everybody = [mine, *steps]
    expected = mine > 0 and (mine >= 40 or statistics.median_low(everybody) >= INNER_STEPS)
    assert closes(mine, *(peer(value) for value in steps)) is expected


# ---------------------------------------------------------------------------------------------- who averages
announcements = st.builds(
    said, st.integers(0, 1000), digest=st.sampled_from(DIGESTS), round_=st.integers(0, 2), committed=st.integers(0, 3)
)
groups = st.dictionaries(st.text("pqrs", min_size=1, max_size=4), announcements, min_size=1, max_size=9)


@given(groups, st.randoms(use_true_random=False))
def test_quorate_members_agree_among_themselves_whatever_the_order(group: dict[str, Announcement], random) -> None:  # type: ignore[no-untyped-def]
    quorate = quorate_members(group)
    chosen = {(group[m].round, group[m].digest, group[m].committed) for m in quorate.members}
    assert {(round_, digest) for round_, digest, _ in chosen} == {(quorate.round, quorate.digest)}
    assert list(quorate.members) == sorted(quorate.members)
    (state,) = chosen
    sizes = [(a.round, a.digest, a.committed) for a in group.values()]
    assert sizes.count(state) == len(quorate.members) == max(map(sizes.count, sizes))
    shuffled = list(group.items())
    random.shuffle(shuffled)
    assert quorate_members(dict(shuffled)) == quorate


def test_ties_go_to_more_committed_samples_then_to_the_larger_digest() -> None:
    old, new = said(digest="f" * 64, committed=100), said(digest="1" * 64, committed=101)
    assert quorate_members({"p": old, "q": new}).members == ("q",)
    small, large = said(digest="1" * 64), said(digest="2" * 64)
    assert quorate_members({"p": large, "q": small}).members == ("p",)
    assert quorate_members({"p": old, "q": new, "r": old}).members == ("p", "r")


# ---------------------------------------------------------------------------------------------- weights
def test_samples_count_up_to_four_times_the_lower_median() -> None:
    members = [said(10), said(20), said(5000)]
    assert counted_samples(members) == [10, 20, 80]
    assert averaging_weights(members) == [10.0, 20.0, 80.0]
    assert counted_samples([said(0), said(10), said(5000)]) == [0, 10, 40]  # those without samples set no median


def test_a_cold_joiner_weighs_nothing_unless_all_are_cold() -> None:
    assert averaging_weights([said(40), said(30, warm=False)]) == [40.0, 0.0]
    assert averaging_weights([said(40, warm=False), said(30, warm=False)]) == [40.0, 30.0]
    assert averaging_weights([said(0), said(30, warm=False)]) == [0.0, 30.0]


def test_totals_add_up_and_the_cursor_passes_every_members_samples() -> None:
    totals = round_totals([said(40, ranks=2), said(60, ranks=2), said(10, ranks=3, warm=False)])
    assert totals.samples == 110
    assert totals.positions == 120


@given(st.lists(st.builds(said, st.one_of(st.integers(0, 50), st.integers(0, 2**40)), ranks=st.integers(1, 9),
                          warm=st.booleans()), min_size=1, max_size=9))  # fmt: skip
def test_weights_and_totals_hold_for_any_announcements(members: list[Announcement]) -> None:
    counted, weights, totals = counted_samples(members), averaging_weights(members), round_totals(members)
    brought = [m.samples for m in members if m.samples]
    cap = MOST_MEDIAN_WEIGHTS * statistics.median_low(brought) if brought else 0
    assert counted == [min(m.samples, cap) for m in members]
    assert totals.samples == sum(counted)
    most = MOST_MEDIAN_RANKS * statistics.median_low([m.ranks for m in members])
    assert all(totals.positions >= c * min(m.ranks, most) for c, m in zip(counted, members, strict=True))
    assert all(0 <= weight <= cap for weight in weights)
    assert (sum(weights) > 0) is (sum(counted) > 0)


@pytest.mark.parametrize(
    "change",
    [
        {"samples": -1}, {"samples": 2**40 + 1}, {"samples": 1.5}, {"samples": "7"}, {"digest": "A" * 64},
        {"digest": ""}, {"round": -1}, {"ranks": 0}, {"warm": 1}, {"committed": 2**60 + 1}, {"extra": 1},
    ],
)  # fmt: skip
def test_an_announcement_out_of_range_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Announcement.model_validate({**said().model_dump(), **change})


@given(st.lists(st.integers(), min_size=1))
def test_lower_median(values: list[int]) -> None:
    assert lower_median(values) == statistics.median_low(values)


# ---------------------------------------------------------------------------------------------- majority
@pytest.mark.parametrize(
    ("members", "alive", "min_peers", "missing"),
    [
        (1, [1], 1, 0),  # nobody else is there
        (1, [2], 1, 1),  # the other one of two may be closing the same round elsewhere
        (2, [2, 2], 1, 0),
        (2, [3, 3], 1, 0),
        (1, [3], 1, 1),
        (2, [4, 4], 1, 1),  # half is not enough: so is the other half
        (3, [4, 4, 4], 1, 0),
        (2, [3, 100_000], 1, 0),  # one that exaggerates stops nobody
        (2, [2, 2], 3, 1),
    ],
)
def test_a_round_takes_more_than_half_of_the_living(
    members: int, alive: list[int], min_peers: int, missing: int
) -> None:
    group = [said().model_copy(update={"alive": count}) for count in alive]
    assert len(group) == members
    assert missing_for_majority(group, min_peers) == missing


@given(st.integers(2, 50), st.integers(1, 49))
def test_two_parts_of_a_swarm_never_both_close_a_round(alive: int, part: int) -> None:
    first, second = min(part, alive - 1), alive - min(part, alive - 1)
    parts = [[said().model_copy(update={"alive": alive})] * size for size in (first, second)]
    assert any(missing_for_majority(group, 1) > 0 for group in parts)
