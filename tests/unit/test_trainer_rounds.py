"""Rounds of a run: what is learnt while one is averaged, those that fail, fragments, and waiting."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from cotrain.train.diloco import MOST_ROUND_LENGTHS, OuterState, RoundLengths, RoundTotals
from cotrain.train.fragments import Fragments
from cotrain.train.model import flatten_parameters
from cotrain.train.synchronizer import ClosedRound, LocalSynchronizer, LocalWork, RoundNotClosed, StateOutdated
from tests.unit.trainer_bench import BATCH, INNER_STEPS, Make, WatchedSynchronizer, config, corpus, make
from tests.waiting import wait_until

__all__ = ["corpus", "make"]


class LateSynchronizer(WatchedSynchronizer):
    """Delivers each average only at the poll number `late`; checks the carry-over of what was learnt meanwhile."""

    def __init__(self, late: int, ranks: int = 1):
        super().__init__(self._check_carry_over)
        self.late, self.ranks, self.polls = late, ranks, 0
        self.model: PreTrainedModel | None = None
        self.at_end: Tensor | None = None
        self.at_delivery: Tensor | None = None
        self.steps_meanwhile: list[int] = []
        self.differing: list[int] = []

    def share(self) -> tuple[int, int]:
        return 0, self.ranks

    def begin_round(self, state: OuterState, local_parameters: Tensor, work: LocalWork) -> None:
        super().begin_round(state, local_parameters, work)
        self._totals = RoundTotals(work.samples * self.ranks, work.samples * work.ranks)
        self.polls, self.at_end = 0, local_parameters.clone()

    def poll_round(self, wait_s: float) -> ClosedRound | None:
        self.polls += 1
        if self.polls <= self.late:
            return None
        assert self.model is not None
        self.at_delivery = flatten_parameters(self.model)
        return super().poll_round(wait_s)

    def _check_carry_over(self, work: LocalWork) -> None:
        """In the first turn after a delivery: theta = P_new + (theta_now - theta_at_end), to the bit."""
        if self.at_delivery is None:
            return
        assert self.model is not None
        assert self.at_end is not None
        expected = (self.at_delivery - self.at_end) + self.states[-1].parameters
        self.differing.append(int((flatten_parameters(self.model) != expected).sum()))
        self.steps_meanwhile.append(work.steps)
        self.at_delivery = None


@pytest.mark.parametrize(("late", "overlap", "meanwhile"), [(0, 3, 0), (1, 3, 1), (2, 3, 2), (9, 3, 3), (2, 0, 0)])
def test_what_was_learnt_during_the_averaging_is_carried_over_exactly(
    make: Make, late: int, overlap: int, meanwhile: int
) -> None:
    sync = LateSynchronizer(late)
    bench = make(sync, config(max_steps=16, overlap=overlap))
    sync.model = bench.model
    final = bench.trainer.run()
    assert sync.differing == [0] * final.round
    assert sync.steps_meanwhile == [meanwhile] * final.round
    assert final.samples == sum(work.samples for work in sync.works) >= 64
    assert sync.works[0].samples == INNER_STEPS * BATCH


@pytest.mark.parametrize("ranks", [1, 2])
def test_no_sample_is_taken_twice_in_an_epoch_whatever_is_in_flight(make: Make, ranks: int) -> None:
    sync = LateSynchronizer(2, ranks)
    bench = make(sync, config(max_steps=36, overlap=3))
    sync.model = bench.model
    bench.trainer.run()
    drawn_in_first_epoch = bench.dataset.taken[: len(bench.dataset) // ranks]
    assert len(drawn_in_first_epoch) >= 36 * BATCH // ranks
    assert len(set(drawn_in_first_epoch)) == len(drawn_in_first_epoch)


# ---------------------------------------------------------------------------------------------- rounds that fail
def test_a_round_that_was_not_closed_is_tried_again_with_all_the_work(make: Make) -> None:
    class Failing(WatchedSynchronizer):
        failures = 2

        def poll_round(self, wait_s: float) -> ClosedRound | None:
            if self.failures:
                self.failures -= 1
                raise RoundNotClosed("no group formed")
            return super().poll_round(wait_s)

    sync = Failing()
    bench = make(sync)
    final = bench.trainer.run()
    assert [work.steps for work in sync.works[:3]] == sorted(work.steps for work in sync.works[:3])
    assert final.samples == sum(work.samples for work in sync.works[2:])
    assert final.samples == len(bench.dataset.taken)  # nothing was lost
    warnings = [record.message for record in bench.reporter._records if record.level == "warning"]
    assert warnings == ["round 1 not closed: no group formed"] * 2


def test_an_outdated_peer_takes_the_majoritys_state_over_and_keeps_its_own_progress(make: Make) -> None:
    class Ahead(WatchedSynchronizer):
        outdated = True

        def poll_round(self, wait_s: float) -> ClosedRound | None:
            if self.outdated:
                self.outdated = False
                raise StateOutdated("the group holds round 5")
            return super().poll_round(wait_s)

        def resync(self, state: OuterState) -> OuterState:
            self.before, self.learnt = state.parameters.clone(), flatten_parameters(bench.model)
            self.swarms = replace(state, parameters=state.parameters + 0.5, round=5, samples=20, cursor=40)
            return self.swarms

        def check(self, work: LocalWork) -> None:
            if not self.outdated and not self.after:
                self.after.append(flatten_parameters(bench.model))

        after: list[Tensor] = []  # noqa: RUF012 - one instance

    sync = Ahead()
    sync.on_turn = sync.check
    bench = make(sync)
    final = bench.trainer.run()
    assert torch.equal(sync.after[0], (sync.learnt - sync.before) + sync.swarms.parameters)
    assert final.round > 5
    assert sync.states[0].round == 6
    assert sync.works[1].samples >= sync.works[0].samples  # what was done before counts in the next round


def test_a_fast_peer_waits_after_four_rounds_lengths(make: Make) -> None:
    class Slow(WatchedSynchronizer):
        asked_to_wait = 0

        def should_close(self, work: LocalWork, wait_s: float = 0.0) -> bool:
            self.asked_to_wait += wait_s > 0
            return self.asked_to_wait >= 3

    sync = Slow()
    make(sync, config(max_steps=20)).trainer.run()
    assert sync.works[0].steps == MOST_ROUND_LENGTHS * INNER_STEPS


def test_a_late_joiner_weighs_nothing_in_its_first_round_and_warms_up(make: Make) -> None:
    class Running(WatchedSynchronizer):
        def join(self, initial: OuterState) -> OuterState:
            return replace(initial, round=2, samples=32, cursor=32)

    rates: list[float] = []
    sync = Running()
    bench = make(sync, config(max_steps=32, lr_scheduler="constant", warmup_steps=0))
    sync.on_turn = lambda work: rates.append(bench.trainer._inner.optimizer.param_groups[0]["lr"])
    final = bench.trainer.run()
    assert [work.warm for work in sync.works] == [False, *[True] * (len(sync.works) - 1)]
    assert rates[: INNER_STEPS + 1] == pytest.approx([3e-3 * share for share in (0.25, 0.5, 0.75, 1.0, 1.0)])
    assert (final.round, final.samples) == (8, 128)


# ---------------------------------------------------------------------------------------------- fragments
def test_in_fragments_each_part_is_averaged_in_its_turn_and_learns(make: Make) -> None:
    """Alone, with an outer step that adds nothing (lr 1, no momentum), fragments change no weight: only P lags."""
    settings = config(max_steps=24)
    plain = settings.diloco.model_copy(update={"outer_learning_rate": 1.0, "outer_momentum": 0.0})
    settings = settings.model_copy(update={"diloco": plain})
    whole = make(LocalSynchronizer(RoundLengths(INNER_STEPS)), settings)
    whole.trainer.run()

    settings = settings.model_copy(update={"diloco": plain.model_copy(update={"fragments": 2})})
    fragments = Fragments.of_model(whole.model, 2)
    synchronizer = LocalSynchronizer(RoundLengths(settings.diloco.round_steps), fragments=fragments)
    bench = make(synchronizer, settings, fragments=fragments)
    state = bench.trainer.run()

    assert state.round == 24 / (INNER_STEPS / 2)
    torch.testing.assert_close(flatten_parameters(bench.model), flatten_parameters(whole.model), rtol=0, atol=2e-5)
    last = state.round - 1
    local = flatten_parameters(bench.model)
    for start, stop in fragments.due(last):
        torch.testing.assert_close(state.parameters[start:stop], local[start:stop])
    for start, stop in fragments.due(last - 1):
        assert not torch.allclose(state.parameters[start:stop], local[start:stop])


# ---------------------------------------------------------------------------------------------- waiting
def test_a_wait_says_what_for_and_since_when_and_the_rounds_record_what_it_took(make: Make) -> None:
    class Held(WatchedSynchronizer):
        """Delivers an average only once it may."""

        may = threading.Event()

        def poll_round(self, wait_s: float) -> ClosedRound | None:
            return super().poll_round(wait_s) if self.may.wait(min(wait_s, 0.05)) else None

    sync, before = Held(), time.time()
    bench = make(sync)
    thread = threading.Thread(target=bench.trainer.run)
    thread.start()
    try:
        wait_until(lambda: bench.reporter.status.waiting_for != "", limit_s=60.0)
        status = bench.reporter.status
        assert status.waiting_for == "the average of round 1"
        assert before < cast("float", status.waiting_since) <= time.time()
        wait_until(lambda: time.time() > cast("float", status.waiting_since) + 0.2)
        assert bench.reporter.status.waiting_since == status.waiting_since
    finally:
        sync.may.set()
        thread.join(30.0)
    assert (bench.reporter.status.waiting_for, bench.reporter.status.waiting_since) == ("", None)
    first = next(record.data for record in bench.reporter._records if record.kind == "round")
    assert cast("float", first["waitedSeconds"]) >= 0.2
    assert 0.0 <= cast("float", first["applyingSeconds"]) < 10.0
