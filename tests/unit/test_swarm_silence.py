"""When the own daemon counts as lost."""

from __future__ import annotations

import pytest

from cotrain.errors import SwarmError
from cotrain.swarm.silence import SILENCE_S, SILENT_CALLS, Silence


def after(misses: list[float]) -> Silence:
    silence = Silence()
    for miss in misses:
        silence.note(miss)
    return silence


def test_many_failures_over_a_while_are_a_loss() -> None:
    silence = after([10.0] * SILENT_CALLS)
    silence.require_none(10.0 + SILENCE_S)
    with pytest.raises(SwarmError, match="not answered for 31 s"):
        silence.require_none(11.0 + SILENCE_S)


def test_one_answer_ends_it() -> None:
    silence = after([0.0] * 10)
    silence.end()
    silence.require_none(1000.0)
    silence.note(1000.0)
    silence.require_none(2000.0)


def test_a_machine_that_was_stopped_for_long_has_missed_too_few_calls() -> None:
    after([0.0] * (SILENT_CALLS - 1)).require_none(1e6)
