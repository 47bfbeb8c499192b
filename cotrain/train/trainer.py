"""The inner loop: inner steps, round ends, wishes, status. The same code in a swarm and alone.

A round: P are the outer parameters, theta the local ones. When the round is closed, P - theta is averaged in the
background while inner steps go on (at most `overlap_steps`); when the average is there, the outer step gives a new P,
and what was learnt meanwhile is carried over: theta <- P_new + (theta - theta at the round's end).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor

from cotrain.config import RunConfig
from cotrain.errors import DivergedError, IntegrityError
from cotrain.status import TrainingStopped, WishName
from cotrain.train.checkpoint import Checkpoint, outer_counters, outer_tensors, read_outer_state
from cotrain.train.data.order import first_unused, share_positions
from cotrain.train.data.permutation import Indices
from cotrain.train.diloco import MOST_ROUND_LENGTHS, OuterOptimizer, OuterState, RoundLengths, inner_learning_rate
from cotrain.train.fragments import Fragments, Range
from cotrain.train.inner import InnerLoop, StepResult
from cotrain.train.reporter import StatusReporter
from cotrain.train.synchronizer import ClosedRound, LocalWork, RoundNotClosed, StateOutdated, Synchronizer
from cotrain.train.weights import InnerWeights, Weights

MOST_SKIPPED = 3
"""Inner steps in a row that may be skipped because they are not finite, before an older state is taken up again."""
WAIT_S = 0.2
"""Longest wait between two looks at the wishes."""
LOSS_WINDOW = 20
"""Inner steps over which the published loss is averaged."""


class Wishes(Protocol):
    """Where a person's wish comes from."""

    def wish(self) -> WishName:
        """What is wished now; asked at every inner step, so it must be cheap."""


@dataclass
class _Begun:
    """A round that is being averaged: theta at its end, and the work that was announced."""

    parameters: Tensor
    work: LocalWork
    step: int


@dataclass
class Counters:
    """What a run has done; kept in checkpoints."""

    round_steps: int = 0
    """Inner steps since the outer state."""
    round_samples: int = 0
    steps: int = 0
    """Inner steps of the run."""
    tokens: int = 0
    position: int = 0
    """First place in the data order that no earlier step has used."""


class Trainer:
    """Trains a model in rounds until the swarm has committed the samples wanted."""

    def __init__(
        self, config: RunConfig, inner: InnerLoop, synchronizer: Synchronizer, reporter: StatusReporter,
        wishes: Wishes, *, weights: Weights | None = None, after_round: Callable[[], bool] = lambda: False,
        recover: Callable[[], bool] = lambda: False, fragments: Fragments | None = None,
    ):  # fmt: skip
        """
        Args:
            weights: what rounds average; absent: all parameters of the model.
            after_round: called when a round has been closed; True ends the run early.
            recover: called after MOST_SKIPPED steps that were not finite: puts back weights and inner optimizer of
                the last good checkpoint; False if there is none, then the outer state is taken up again.
            fragments: what a round averages, as the synchronizer has them; absent: all weights.
        """
        self._config, self._inner, self._dataset = config, inner, inner.dataset
        self._sync, self._reporter, self._wishes = synchronizer, reporter, wishes
        self._weights = weights or InnerWeights(inner)
        self._after_round, self._recover = after_round, recover
        self._wanted = config.samples_wanted(len(inner.dataset))
        self._outer = OuterOptimizer.from_config(config, self._wanted, fragments)
        self._lengths = RoundLengths.from_config(config, self._wanted)
        self._state = OuterState.initial(self._weights.take())
        self._count = Counters()
        self._rank, self._ranks = 0, 1
        self._joined_at_step, self._joined_late = 0, False
        self._begun: _Begun | None = None
        self._losses: deque[float] = deque(maxlen=LOSS_WINDOW)
        self._rate = 0.0
        self._skipped_in_a_row, self._recovered_at_step = 0, -1
        self._compute_s, self._started, self._before = 0.0, 0.0, Counters()
        self._bytes = [0, 0]
        self._waited_s = 0.0
        self._waiting_since: float | None = None

    @property
    def state(self) -> OuterState:
        """The outer state."""
        return self._state

    @property
    def steps(self) -> int:
        """Inner steps of the run, those before a restart included."""
        return self._count.steps

    @property
    def is_complete(self) -> bool:
        """Whether all samples wanted have been committed."""
        return self._state.samples >= self._wanted

    def run(self) -> OuterState:
        """Train to the end; returns the final outer state.

        Raises TrainingStopped when a person wishes so, DivergedError when the loss stays not finite,
        MemoryShortageError when not even one sample fits.
        """
        self._reporter.update(samples_wanted=self._wanted)
        resumed = self._count.steps > 0
        state = self._sync.join(self._state)
        if not resumed:
            self._take_over(state)
            self._joined_late = self._state.round > 0
        self._sync.gather()
        self._begin_share()
        self._reporter.phase("training", "training", message=f"training from round {self._state.round}")
        self._started, self._before = time.monotonic(), replace(self._count)
        while not self.is_complete:
            self._obey_wish()
            may_step = self._may_step()
            if may_step:
                self._inner_step()
            closed = self._advance_round(0.0 if may_step else WAIT_S)
            self._report()
            if closed and self._after_round():
                break
        self._reporter.phase(
            "finishing", message=f"{self._state.samples} samples committed in {self._state.round} rounds"
        )
        return self._state

    # ------------------------------------------------------------------------------------------ inner steps
    def _may_step(self) -> bool:
        committed = self._state.samples
        if self._begun is not None:
            return self._count.steps - self._begun.step < self._lengths.overlap_at(committed)
        return self._count.round_steps < MOST_ROUND_LENGTHS * self._lengths.inner_steps_at(committed)

    def _inner_step(self) -> None:
        started = time.monotonic()
        samples = self._config.train.samples_per_step
        self._rate = self._learning_rate()
        result = self._inner.step(self._next_positions(samples), self._rate)
        self._note(result)
        self._count.round_steps += 1
        self._count.steps += 1
        self._count.round_samples += samples
        self._count.tokens += result.tokens
        self._compute_s += time.monotonic() - started

    def _next_positions(self, count: int) -> Indices:
        """Positions in the data order of the samples that come next in this peer's share."""
        share = {"cursor": self._state.cursor, "rank": self._rank, "ranks": self._ranks}
        start = first_unused(**share, used=self._count.position)
        positions = share_positions(**share, start=start, count=count)
        self._count.position = int(positions[-1]) + self._ranks
        return positions

    def _note(self, result: StepResult) -> None:
        """Keep the loss; after too many steps that were not finite, take up an older state, once."""
        if not result.skipped:
            self._skipped_in_a_row = 0
            self._losses.append(result.loss)
            return
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row < MOST_SKIPPED:
            return
        step, interval = self._count.steps, self._config.checkpoint.interval
        if self._recovered_at_step >= 0 and step - self._recovered_at_step <= interval:
            raise DivergedError(
                f"the loss is {result.loss} at inner step {step}, also after going back to an older state",
                field="train.learning_rate", hint="start again with a lower learning rate or a longer warm-up",
            )  # fmt: skip
        self._skipped_in_a_row, self._recovered_at_step = 0, step
        if self._recover():
            what = "the last good checkpoint"
        else:
            what = "the outer state"
            self._weights.put(self._state.parameters)
            self._inner.new_optimizer()
        self._losses.clear()
        self._reporter.record("log", f"{MOST_SKIPPED} inner steps were not finite: back to {what}", level="warning")

    def _learning_rate(self) -> float:
        config = self._config
        rate = inner_learning_rate(
            config, committed=self._state.samples, local=self._count.round_samples, peers=self._sync.peers,
            wanted=self._wanted,
        )  # fmt: skip
        if self._joined_late:  # a cold inner optimizer warms up on its own, over one round
            rate *= min(1.0, (self._count.steps - self._joined_at_step + 1) / config.diloco.inner_steps)
        return rate

    # ------------------------------------------------------------------------------------------ rounds
    def _work(self) -> LocalWork:
        cold = self._joined_late and self._count.steps - self._joined_at_step <= self._count.round_steps
        return LocalWork(self._count.round_steps, self._count.round_samples, self._ranks, warm=not cold)

    def _advance_round(self, wait_s: float) -> bool:
        """Begin, follow or finish a round; waits at most `wait_s` seconds. True if one was closed."""
        closed = None
        if wait_s > 0:
            self._waiting_since = self._waiting_since or time.monotonic()
            self._reporter.idle(f"{'the others to close' if self._begun is None else 'the average of'} round "
                                f"{self._state.round + 1}")  # fmt: skip
        try:
            if self._begun is None and self._sync.should_close(self._work(), wait_s):
                self._begin_round()
                wait_s = 0.0
            if self._begun is not None:
                closed = self._sync.poll_round(wait_s)
        except RoundNotClosed as error:
            self._begun = None
            self._end_wait()
            self._reporter.record("log", f"round {self._state.round + 1} not closed: {error}", level="warning")
        except StateOutdated as error:
            self._end_wait()
            self._resync(str(error))
        if closed is not None:
            self._close_round(closed)
        return closed is not None

    def _end_wait(self) -> None:
        self._reporter.wait("")
        if self._waiting_since:
            self._waited_s += time.monotonic() - self._waiting_since
        self._waiting_since = None

    def _begin_round(self) -> None:
        self._end_wait()
        local = self._weights.take()
        self._begun = _Begun(local, self._work(), self._count.steps)
        self._sync.begin_round(self._state, local, self._begun.work)

    def _close_round(self, closed: ClosedRound) -> None:
        begun, self._begun, arrived = self._begun, None, time.monotonic()
        assert begun is not None
        due = self._outer.due(self._state)
        self._end_wait()
        newer = self._outer.step(self._state, self._sync.average(), closed.totals, out=self._sync.next_buffers())
        self._state, digest = self._sync.publish(newer)
        self._move_base(begun.parameters, due)
        self._count.round_steps -= begun.work.steps
        self._count.round_samples -= begun.work.samples
        self._begin_share()
        self._bytes = [self._bytes[0] + closed.bytes_sent, self._bytes[1] + closed.bytes_received]
        members = closed.summary.get("members")
        by = f" by {len(members)} peers" if isinstance(members, list) else ""
        self._reporter.update(digest=digest, round=self._state.round, samples_committed=self._state.samples)
        self._reporter.record(
            "round", f"round {self._state.round} closed{by}",
            data={**closed.summary, "round": self._state.round, "digest": digest, "loss": self._loss(),
                  "steps": begun.work.steps, "waitedSeconds": round(self._waited_s, 3),
                  "applyingSeconds": round(time.monotonic() - arrived, 3)},
        )  # fmt: skip
        self._waited_s = 0.0

    def _resync(self, why: str) -> None:
        """Take the swarm's state over, with this peer's own progress on top: it counts in the next round."""
        self._reporter.record("log", f"downloading the swarm's state: {why}", level="warning")
        self._begun = None
        base = self._state.parameters.clone()  # its buffer is written to by the download
        self._state = self._sync.resync(self._state)
        self._move_base(base, [(0, base.numel())])
        self._begin_share()
        self._reporter.phase("training", digest=self._state.digest())

    def _move_base(self, old_base: Tensor, ranges: Sequence[Range]) -> None:
        """theta <- P + (theta - old_base) in these ranges."""
        weights = self._weights.take()
        for start, stop in ranges:
            weights[start:stop].sub_(old_base[start:stop]).add_(self._state.parameters[start:stop])
        self._weights.put(weights)

    def _take_over(self, state: OuterState) -> None:
        self._state, self._count.position = state, state.cursor
        self._joined_at_step = self._count.steps
        self._weights.put(state.parameters)
        self._reporter.update(digest=state.digest(), round=state.round, samples_committed=state.samples)

    def _begin_share(self) -> None:
        self._rank, self._ranks = self._sync.share()

    # ------------------------------------------------------------------------------------------ wishes and status
    def _obey_wish(self) -> None:
        wish = self._wishes.wish()
        if wish == "run":
            return
        self._finish_begun_round()
        if wish != "pause":
            raise TrainingStopped(wish)
        self._sync.set_active(False)
        self._reporter.phase("training", "paused", message="paused")
        while (wish := self._wishes.wish()) == "pause":
            time.sleep(WAIT_S)
        if wish != "run":
            raise TrainingStopped(wish)
        self._sync.set_active(True)
        self._reporter.phase("training", "training", message="resumed")

    def _finish_begun_round(self) -> None:
        """The others count on what was announced to them."""
        while self._begun is not None:
            self._advance_round(WAIT_S)

    def _loss(self) -> float | None:
        """Mean over the last inner steps."""
        return sum(self._losses) / len(self._losses) if self._losses else None

    def _report(self) -> None:
        wall_s = time.monotonic() - self._started
        steps, tokens = self._count.steps - self._before.steps, self._count.tokens - self._before.tokens
        pace = steps / self._compute_s if self._compute_s > 0 else 0.0
        self._sync.report(self._work(), pace)
        self._reporter.update(
            step=self._count.steps, round=self._state.round, loss=self._loss(), tokens=self._count.tokens,
            learning_rate=self._rate, samples_committed=self._state.samples,
            samples_pending=self._count.round_samples,
            tokens_per_second=tokens / wall_s if wall_s > 0 else None, compute_seconds=self._compute_s,
            wall_seconds=wall_s, peers=self._sync.peers, bytes_sent=self._bytes[0], bytes_received=self._bytes[1],
            batch_size=self._config.train.batch_size,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------ checkpoints
    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, JSON-able rest): with them a fresh process goes on as this one would, to the last bit.

        Not in the middle of a round that is being averaged.
        """
        tensors, optimizer = self._inner.optimizer_tensors()
        tensors = {**tensors, **outer_tensors(self._state), "weights": self._inner.weights()}
        rest = {
            "outer": outer_counters(self._state), "counters": vars(self._count).copy(), "losses": list(self._losses),
            "optimizer": optimizer, "scaler": self._inner.scaler.state_dict(),
            "micro_batch_size": self._inner.micro_batch_size,
        }  # fmt: skip
        return tensors, rest

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a snapshot. Raises IntegrityError if it is none of this model and optimizer."""
        state = read_outer_state(checkpoint, numel=self._state.parameters.numel())
        rest = checkpoint.metadata
        try:
            self.restore_weights(checkpoint)
            self._count = Counters(**rest["counters"])
            self._losses.extend(rest["losses"])
            self._inner.scaler.load_state_dict(rest["scaler"])
            self._inner.micro_batch_size = min(self._inner.micro_batch_size, rest["micro_batch_size"])
        except (KeyError, TypeError) as error:
            raise IntegrityError(f"holds no run to go on with: {error!r}", field=str(checkpoint.path)) from error
        self._state = state
        self._reporter.update(
            step=self._count.steps, tokens=self._count.tokens, round=state.round, samples_committed=state.samples,
            samples_pending=self._count.round_samples,
        )  # fmt: skip

    def restore_weights(self, checkpoint: Checkpoint) -> None:
        """Only the model's weights and its inner optimizer. Raises IntegrityError if they do not fit."""
        self._inner.load_weights(checkpoint.tensors["weights"])
        self._inner.load_optimizer_tensors(checkpoint.tensors, checkpoint.metadata["optimizer"])
