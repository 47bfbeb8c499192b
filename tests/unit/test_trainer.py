"""The inner loop on a real corpus with a nano model, alone and with synchronizers that are late, busy or ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from cotrain.config import RunConfig
from cotrain.errors import DivergedError
from cotrain.paths import CONTROL_FILE, STATUS_FILE
from cotrain.sections import DataSection, DilocoSection, TrainSection
from cotrain.status import Control, Status, TrainingStopped, WishName, read_status, write_control
from cotrain.train.data.permutation import Indices
from cotrain.train.data.samples import SampleWriter, TaskDataset
from cotrain.train.diloco import MOST_ROUND_LENGTHS, OuterState, RoundLengths, RoundTotals
from cotrain.train.fragments import Fragments
from cotrain.train.inner import InnerLoop
from cotrain.train.model import build_model, flatten_parameters
from cotrain.train.parallel import ParallelGroup
from cotrain.train.reporter import ControlFile, StatusReporter
from cotrain.train.spec import DataSpec
from cotrain.train.synchronizer import ClosedRound, LocalSynchronizer, LocalWork, RoundNotClosed, StateOutdated
from cotrain.train.tasks.metrics import Batch
from cotrain.train.tasks.registry import make_task
from cotrain.train.trainer import MOST_SKIPPED, Trainer
from tests.unit.test_reporter import wait_until

TEXT = Path(__file__).parents[2] / "LICENSE"
"""English that never changes."""
SEQ_LENGTH = 32
INNER_STEPS = 4
GOLDEN_LOSSES = [4.9904, 4.4419, 4.0188, 3.7748, 3.6542, 3.3538]
"""At the ends of six rounds. The bits of inner steps depend on the instruction set: only the losses are pinned."""
BATCH = 4
SPEC = DataSpec(task="causal-lm", vocab_size=256, seq_length=SEQ_LENGTH)


def config(*, max_steps: int = 16, learning_rate: float = 3e-3, overlap: int = 0, **train: Any) -> RunConfig:
    return RunConfig(
        train=TrainSection(
            batch_size=BATCH, gradient_accumulation_steps=1, max_steps=max_steps, learning_rate=learning_rate, **train
        ),
        diloco=DilocoSection(inner_steps=INNER_STEPS, overlap_steps=overlap),
        data=DataSection(seq_length=SEQ_LENGTH),
    )


class RecordingDataset(TaskDataset):
    """A dataset that notes which samples were taken."""

    def __init__(self, path: Path):
        super().__init__(path, make_task(SPEC.task, SPEC, seed=0, fields=DataSection().fields))
        self.taken: list[int] = []

    def batch(self, indices: Indices, keys: Indices) -> Batch:
        self.taken += indices.tolist()
        return super().batch(indices, keys)


class WatchedSynchronizer(LocalSynchronizer):
    """A run alone, with a hook after each turn of the loop and notes of what was announced."""

    def __init__(self, on_turn: Callable[[LocalWork], None] = lambda work: None):
        super().__init__(RoundLengths(INNER_STEPS))
        self.on_turn = on_turn
        self.works: list[LocalWork] = []
        self.states: list[OuterState] = []
        self.activity: list[bool] = []
        self.turns = 0

    def report(self, work: LocalWork, steps_per_s: float) -> None:
        self.turns += 1
        self.on_turn(work)

    def begin_round(self, state: OuterState, local_parameters: Tensor, work: LocalWork) -> None:
        self.works.append(work)
        super().begin_round(state, local_parameters, work)

    def publish(self, state: OuterState) -> tuple[OuterState, str]:
        self.states.append(state)
        return state, state.digest()

    def set_active(self, active: bool) -> None:
        self.activity.append(active)


@dataclass
class Bench:
    """A trainer and everything it was made of."""

    trainer: Trainer
    model: PreTrainedModel
    dataset: RecordingDataset
    reporter: StatusReporter
    folder: Path

    def wish(self, wish: WishName) -> None:
        write_control(self.folder / CONTROL_FILE, Control(wish=wish))

    @property
    def round_losses(self) -> list[float]:
        """Loss, smoothed over the last steps, at each round's end."""
        return [record.data["loss"] for record in self.reporter._records if record.kind == "round"]  # type: ignore[misc]


Make = Callable[..., Bench]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "train.safetensors"
    with SampleWriter(path, SPEC) as writer:
        writer.add_tokens(np.frombuffer(TEXT.read_bytes(), np.uint8))
        writer.finish({})
    return path


@pytest.fixture
def make(corpus: Path, tmp_path: Path) -> Iterator[Make]:
    benches: list[Bench] = []

    def build(synchronizer: LocalSynchronizer, settings: RunConfig | None = None, **hooks: Any) -> Bench:
        settings = settings or config()
        folder = tmp_path / f"run{len(benches)}"
        reporter = StatusReporter(folder, session="s", peer="p", interval_s=0.1)
        dataset = RecordingDataset(corpus)
        model = build_model(settings.model, SPEC, seed=settings.session.seed)
        inner = InnerLoop(settings, model, dataset, ParallelGroup(0, 1, torch.device("cpu")))
        trainer = Trainer(settings, inner, synchronizer, reporter, ControlFile(folder), **hooks)
        benches.append(Bench(trainer, model, dataset, reporter, folder))
        return benches[-1]

    yield build
    for bench in benches:
        bench.reporter.stop()


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
            lambda: path.exists() and read_status(path).sequence > (seen[-1].sequence if seen else 0), limit_s=5.0
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
    wait_until(lambda: bench.reporter.status.status == "paused", limit_s=20.0)
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
    wait_until(lambda: bench.reporter.status.status == "paused", limit_s=20.0)
    bench.wish("stop")
    thread.join(10.0)
    assert caught == ["stop"]
    assert sync.activity == [False]


# ---------------------------------------------------------------------------------------------- overlap
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
        wait_until(lambda: bench.reporter.status.waiting_for != "", limit_s=20.0)
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
