"""Shares of the vector by uplink: equal times for all reducers, and nothing for those that would only slow the rest."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.swarm.shares import MOST_MEDIAN_UPLINKS, reducer_shares

groups = st.lists(st.tuples(st.integers(0, 10**6), st.booleans()), min_size=1, max_size=12).filter(
    lambda members: any(may for _, may in members)
)


@pytest.mark.parametrize(
    ("uplinks", "reduces", "shares"),
    [
        ([7], [True], [1]),
        ([0, 0, 0], [True] * 3, [1, 1, 1]),
        ([100, 1], [True, True], [1, 1]),
        ([100, 100, 100, 100], [True] * 4, [1, 1, 1, 1]),
        ([100, 100, 0], [True, True, False], [1, 1, 0]),
        ([100, 100, 0], [True] * 3, [1, 1, 1]),
    ],
)
def test_equal_lines_have_equal_shares(uplinks: list[int], reduces: list[bool], shares: list[int]) -> None:
    assert reducer_shares(uplinks, reduces) == shares


def test_a_slow_line_gets_a_smaller_share() -> None:
    shares = reducer_shares([100, 100, 100, 80], [True] * 4)
    assert shares[0] == shares[1] == shares[2] > shares[3] > 0


def test_a_very_slow_line_reduces_nothing() -> None:
    assert reducer_shares([100, 100, 100, 1], [True] * 4)[3] == 0


def test_claiming_a_huge_line_does_not_buy_the_whole_vector() -> None:
    shares = reducer_shares([100, 100, 100, 10**9], [True] * 4)
    assert shares == reducer_shares([100, 100, 100, MOST_MEDIAN_UPLINKS * 100], [True] * 4)


@given(groups)
def test_who_may_not_reduce_has_no_share_and_somebody_has_one(members: list[tuple[int, bool]]) -> None:
    uplinks, reduces = [uplink for uplink, _ in members], [may for _, may in members]
    shares = reducer_shares(uplinks, reduces)
    assert len(shares) == len(members)
    assert all(share >= 0 for share in shares)
    assert all(share == 0 for share, may in zip(shares, reduces, strict=True) if not may)
    assert sum(shares) > 0


@given(st.lists(st.integers(1, 10**6), min_size=3, max_size=12))
def test_all_that_reduce_send_for_equally_long_and_the_others_for_longer(uplinks: list[int]) -> None:
    median = sorted(uplinks)[(len(uplinks) - 1) // 2]
    counted = [min(uplink, MOST_MEDIAN_UPLINKS * median) for uplink in uplinks]
    shares = reducer_shares(uplinks, [True] * len(uplinks))
    total = sum(shares)
    times = [(1 + Fraction(s, total) * (len(uplinks) - 2)) / u for s, u in zip(shares, counted, strict=True)]
    busy = {time for time, share in zip(times, shares, strict=True) if share > 0}
    assert len(busy) == 1
    assert all(time >= min(busy) for time in times)


@given(groups)
def test_the_same_shares_whatever_the_unit(members: list[tuple[int, bool]]) -> None:
    reduces = [may for _, may in members]
    shares = reducer_shares([uplink for uplink, _ in members], reduces)
    thousandfold = reducer_shares([1000 * uplink for uplink, _ in members], reduces)
    total, other = sum(shares), sum(thousandfold)
    # unknown lines count as one unit only if no line is known: then all are equal in both
    assert [Fraction(s, total) for s in shares] == [Fraction(s, other) for s in thousandfold]
