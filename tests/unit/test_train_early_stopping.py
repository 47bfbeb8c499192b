from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.train.early_stopping import EarlyStopping

LOSSES = st.lists(st.floats() | st.sampled_from([1.0, 2.0, 3.0]), max_size=30)
PATIENCE = st.integers(1, 6)


@given(LOSSES, PATIENCE)
def test_it_stops_once_the_last_evaluations_brought_nothing_better_than_those_before(
    losses: list[float], patience: int
):
    stopping = EarlyStopping(patience)
    for loss in losses:
        stopping.observe(loss)
    finite = [loss if math.isfinite(loss) else math.inf for loss in losses]
    earlier, recent = finite[: -patience or None], finite[-patience:]
    expected = len(losses) >= patience and min(recent) >= min(earlier[: len(losses) - patience], default=math.inf)
    assert stopping.stopped == expected


@given(LOSSES, PATIENCE)
def test_only_a_finite_loss_below_all_earlier_ones_is_a_new_best(losses: list[float], patience: int):
    stopping = EarlyStopping(patience)
    best = math.inf
    for loss in losses:
        is_best = math.isfinite(loss) and loss < best
        assert stopping.observe(loss) == is_best
        best = loss if is_best else best


@given(LOSSES, LOSSES, PATIENCE)
def test_a_restart_in_between_changes_nothing(before: list[float], after: list[float], patience: int):
    stopping = EarlyStopping(patience)
    for loss in before:
        stopping.observe(loss)
    restored = EarlyStopping.from_state(json.loads(json.dumps(stopping.state(), allow_nan=False)))
    assert [restored.observe(loss) for loss in after] == [stopping.observe(loss) for loss in after]
    assert (restored.stopped, restored.state()) == (stopping.stopped, stopping.state())


def test_an_improvement_starts_the_count_again():
    stopping = EarlyStopping(2)
    assert [stopping.observe(loss) for loss in (3.0, 3.0, 2.0, math.nan)] == [True, False, True, False]
    assert not stopping.stopped
    stopping.observe(2.0)
    assert stopping.stopped


def test_no_patience_at_all_is_refused():
    with pytest.raises(ValueError, match="patience"):
        EarlyStopping(0)
