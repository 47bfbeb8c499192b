"""The inner loop on a real corpus with a nano model, alone and with synchronizers that are late, busy or ahead."""

from __future__ import annotations

import threading

import pytest
import torch

from cotrain.errors import DivergedError
from cotrain.paths import STATUS_FILE
from cotrain.status import Status, TrainingStopped, WishName, read_status
from cotrain.train.diloco import OuterState, RoundLengths
from cotrain.train.synchronizer import LocalSynchronizer, LocalWork
from cotrain.train.trainer import MOST_SKIPPED
from tests.unit.trainer_bench import INNER_STEPS, SEQ_LENGTH, Bench, Make, WatchedSynchronizer, config, corpus, make
from tests.waiting import wait_until

__all__ = ["corpus", "make"]

GOLDEN_LOSSES = [4.9904, 4.4419, 4.0188, 3.7748, 3.6542, 3.3538]
"""At the ends of six rounds. The bits of inner steps depend on the instruction set: only the losses are pinned."""


# ---------------------------------------------------------------------------------------------- a whole run
def test_a_run_is_complete_when_its_samples_are_committed_and_has_learnt(make: Make) -> None:
    sync = WatchedSynchronizer()
    bench = make(sync, config(max_steps=40))
    final = bench.trainer.run()
    assert (final.round, final.samples, final.cursor) == (10, 160, 160)
    assert [(work.steps, work.samples, work.warm) for work in sync.works] == [(INNER_STEPS, 16, True)] * 10
    status = bench.reporter.status
    assert (status.step, status.round, status.samples_committed, status.samples_wanted) == (40, 10, 160, 160)
    assert status.tokens == 160 * SEQ_LENGTH
    assert status.digest == final.digest()
    assert bench.round_losses[-1] < bench.round_losses[0] - 1.0
    assert len(bench.dataset.taken) == len(set(bench.dataset.taken)) == 160


def test_the_first_rounds_of_a_seeded_run_are_pinned(make: Make) -> None:
    """A golden trajectory: a change of data order, initialization, schedule or outer step shows here first."""
    bench = make(LocalSynchronizer(RoundLengths(INNER_STEPS)), config(max_steps=24))
    bench.trainer.run()
    assert bench.round_losses == pytest.approx(GOLDEN_LOSSES, abs=5e-3)


def test_the_same_seed_gives_the_same_bits_twice(make: Make) -> None:
    digests = {
        make(LocalSynchronizer(RoundLengths(INNER_STEPS)), config(max_steps=8)).trainer.run().digest() for _ in range(2)
    }
    assert len(digests) == 1


def poison(bench: Bench) -> None:
    """Make every loss from now on not a number, as an overflow in the weights does."""
    with torch.no_grad():
        next(bench.model.parameters()).fill_(torch.nan)


def test_a_state_that_is_not_a_number_ends_the_run_with_a_way_out(make: Make) -> None:
    class Poisoned(WatchedSynchronizer):
        def join(self, initial: OuterState) -> OuterState:
            return OuterState.initial(torch.full_like(initial.parameters, float("nan")))

    bench = make(Poisoned(), config(max_steps=40))
    with pytest.raises(DivergedError, match=f"the loss is nan at inner step {2 * MOST_SKIPPED - 1}") as caught:
        bench.trainer.run()
    assert caught.value.field == "train.learning_rate"
    assert bench.reporter.status.loss is None


def test_after_three_steps_that_are_no_number_the_outer_state_is_taken_up_again(make: Make) -> None:
    sync = WatchedSynchronizer(lambda work: poison(bench) if sync.turns == INNER_STEPS + 1 else None)
    bench = make(sync, config(max_steps=40))
    bench.trainer.run()
    warnings = [record.message for record in bench.reporter._records if record.level == "warning"]
    assert warnings == ["3 inner steps were not finite: back to the outer state"]
    assert bench.round_losses[-1] < bench.round_losses[0] - 1.0, "it has learnt all the same"
    assert len(set(bench.dataset.taken)) == len(bench.dataset.taken), "the samples that led there are not tried again"


def test_after_three_steps_that_are_no_number_a_good_checkpoint_is_asked_for(make: Make) -> None:
    asked: list[int] = []

    def recover() -> bool:
        asked.append(sync.turns)
        bench.trainer._weights.put(sync.states[-1].parameters)
        return True

    sync = WatchedSynchronizer(lambda work: poison(bench) if sync.turns == INNER_STEPS + 1 else None)
    bench = make(sync, config(max_steps=40), recover=recover)
    bench.trainer.run()
    assert len(asked) == 1
    assert any("back to the last good checkpoint" in record.message for record in bench.reporter._records)


def test_a_run_ends_early_when_the_hook_after_a_round_says_so(make: Make) -> None:
    closed: list[int] = []

    def after_round() -> bool:
        closed.append(bench.trainer.state.round)
        return len(closed) == 2

    bench = make(LocalSynchronizer(RoundLengths(INNER_STEPS)), config(max_steps=40), after_round=after_round)
    final = bench.trainer.run()
    assert (closed, final.round, bench.trainer.is_complete) == ([1, 2], 2, False)


# ---------------------------------------------------------------------------------------------- wishes and status
def test_the_status_file_tells_the_phases_in_order_and_progress_never_falls(make: Make) -> None:
    seen: list[Status] = []

    def look(work: LocalWork) -> None:
        path = bench.folder / STATUS_FILE
        wait_until(
            lambda: path.exists() and read_status(path).sequence > (seen[-1].sequence if seen else 0), limit_s=30.0
        )
        seen.append(read_status(path))

    bench = make(WatchedSynchronizer(look))
    bench.reporter.start()
    bench.trainer.run()
    bench.reporter.stop()
    seen.append(read_status(bench.folder / STATUS_FILE))
    assert list(dict.fromkeys(status.phase for status in seen)) == ["training", "finishing"]
    rates = [status.process_rate for status in seen]
    assert rates == sorted(rates)
    assert rates[-1] == 100.0
    assert all(status.last_train_at is not None and status.last_train_at.endswith("+00:00") for status in seen)
    kinds = [(record.kind, record.data.get("phase")) for record in seen[-1].records]
    assert kinds == [("phase", "training"), *[("round", None)] * 4, ("phase", "finishing")]
    assert [record.number for record in seen[-1].records] == list(range(1, 7))


@pytest.mark.parametrize("wish", ["stop", "cancel"])
def test_a_wish_to_end_is_obeyed_within_one_inner_step(make: Make, wish: WishName) -> None:
    def end_in_the_second_round(work: LocalWork) -> None:
        if sync.turns == INNER_STEPS + 2:
            bench.wish(wish)

    sync = WatchedSynchronizer(end_in_the_second_round)
    bench = make(sync)
    with pytest.raises(TrainingStopped) as caught:
        bench.trainer.run()
    assert caught.value.wish == wish
    assert bench.reporter.status.step <= INNER_STEPS + 3


def test_pause_holds_the_steps_and_resume_goes_on(make: Make) -> None:
    sync = WatchedSynchronizer(lambda work: bench.wish("pause") if sync.turns == 6 else None)
    bench = make(sync)
    ended: list[OuterState] = []
    thread = threading.Thread(target=lambda: ended.append(bench.trainer.run()))
    thread.start()
    wait_until(lambda: bench.reporter.status.status == "paused", limit_s=60.0)
    step = bench.reporter.status.step
    assert sync.activity == [False]
    # whoever still stepped would be through with the 16 steps of the run long before this
    thread.join(1.0)
    assert thread.is_alive()
    assert bench.reporter.status.step == step == 6
    bench.wish("run")
    thread.join(30.0)
    assert sync.activity == [False, True]
    assert ended[0].samples == 64
    messages = [record.message for record in bench.reporter._records if record.kind == "phase"]
    assert messages[1:3] == ["paused", "resumed"]


def test_a_paused_run_can_be_stopped(make: Make) -> None:
    sync = WatchedSynchronizer(lambda work: bench.wish("pause") if sync.turns == 3 else None)
    bench = make(sync)
    caught: list[WishName] = []

    def run() -> None:
        try:
            bench.trainer.run()
        except TrainingStopped as stopped:
            caught.append(stopped.wish)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: bench.reporter.status.status == "paused", limit_s=60.0)
    bench.wish("stop")
    thread.join(10.0)
    assert caught == ["stop"]
    assert sync.activity == [False]
