"""How often peers look at each other: seldom in the middle of a round, often towards its end."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.swarm.pace import AWAKE_S, STORE_S, Pace
from cotrain.swarm.rounds import PeerProgress, seconds_to_close, should_close

INNER_STEPS = 100
others = st.lists(
    st.builds(
        PeerProgress, round=st.sampled_from([2, 3, 4]), steps=st.integers(0, INNER_STEPS - 1),
        steps_per_s=st.floats(0.0, 50.0), seen_at=st.floats(90.0, 101.0), closing=st.just(False),
    ),
    max_size=6,
)  # fmt: skip


@given(others, st.integers(1, INNER_STEPS - 1), st.floats(0.1, 1000.0), st.floats(0.0, 0.999))
def test_nobody_proposes_to_close_a_round_while_all_may_rest(
    others: list[PeerProgress], my_steps: int, my_left_s: float, share: float
) -> None:
    left_s = seconds_to_close(3, my_left_s, others, INNER_STEPS, now=100.0)
    later = 100.0 + share * min(left_s, 1e6)
    assert left_s == 0.0 or not should_close(3, my_steps, others, INNER_STEPS, now=later)


def test_who_proposes_to_close_lets_nobody_rest() -> None:
    closing = PeerProgress(round=3, steps=5, steps_per_s=1.0, seen_at=100.0, closing=True)
    assert seconds_to_close(3, 50.0, [closing], INNER_STEPS, now=100.0) == 0.0
    assert seconds_to_close(4, 50.0, [closing], INNER_STEPS, now=100.0) == 50.0
    assert seconds_to_close(3, math.inf, [], INNER_STEPS, now=100.0) == math.inf


def test_a_resting_peer_looks_seldom_and_wakes_before_the_end() -> None:
    pace = Pace(record_ttl_s=15.0)
    assert pace.is_look_due(0.0)
    assert pace.is_store_due(0.0)
    pace.looked_at = pace.stored_at = 0.0
    assert pace.is_look_due(0.1)
    pace.rest(0.0, 60.0)
    assert not pace.is_look_due(2.4)
    assert pace.is_look_due(2.5)
    assert not pace.is_store_due(4.9)
    assert pace.is_store_due(5.1)
    pace.looked_at = pace.stored_at = 60.0 - AWAKE_S
    assert pace.is_look_due(60.0 - AWAKE_S)
    assert pace.is_store_due(60.0 - AWAKE_S + 1.1 * STORE_S)
    pace.rest(60.0, math.inf)
    assert not pace.is_look_due(60.0)
    pace.wake()
    assert pace.is_look_due(60.0)


def test_what_is_urgent_waits_for_nothing() -> None:
    pace = Pace(record_ttl_s=15.0, looked_at=0.0, stored_at=0.0)
    pace.rest(0.0, 60.0)
    pace.stored_at = -math.inf
    assert pace.is_look_due(0.01)
    assert pace.is_store_due(0.01)


@pytest.mark.parametrize("record_ttl_s", [0.6, 3.0, 15.0, 600.0])
def test_no_record_expires_and_no_view_is_late_while_a_peer_rests(record_ttl_s: float) -> None:
    pace = Pace(record_ttl_s, looked_at=0.0, stored_at=0.0)
    pace.rest(0.0, math.inf)
    assert pace.is_look_due(record_ttl_s / 6)
    assert pace.is_store_due(record_ttl_s / 3 + 1e-6)
