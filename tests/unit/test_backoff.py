"""How long a try waits for the one before it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cotrain.backoff import Backoff


@given(st.integers(0, 10_000))
def test_backoff_rises_to_its_bound(attempt: int) -> None:
    backoff = Backoff(first_s=0.5, most_s=30.0, jitter=0.25)
    low, high = backoff.bounds_s(attempt)
    assert 0 < low <= backoff.delay_s(attempt) <= high <= 30.0 * 1.25
    assert backoff.bounds_s(attempt + 1)[0] >= low
