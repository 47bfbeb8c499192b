"""The inner loop: inner steps, round ends, wishes, status. The same code in a swarm and alone.

A round: P are the outer parameters, theta the local ones. When the round is closed, P - theta is averaged in the
background while inner steps go on (at most `overlap_steps`); when the average is there, the outer step gives a new P,
and what was learnt meanwhile is carried over: theta <- P_new + (theta - theta at the round's end).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cotrain.config import RunConfig
from cotrain.errors import DivergedError
from cotrain.status import TrainingStopped
from cotrain.train.data import TokenDataset, sample_indices
from cotrain.train.diloco import OuterOptimizer, OuterState, progress_fraction
from cotrain.train.model import flatten_parameters, language_model_loss, load_flat_parameters
from cotrain.train.optim import build_inner_optimizer, learning_rate, set_learning_rate
from cotrain.train.reporter import ControlFile, StatusReporter
from cotrain.train.synchronizer import ClosedRound, LocalWork, RoundNotClosed, StateOutdated, Synchronizer

MOST_ROUND_LENGTHS = 4
"""Inner steps that a peer does at most in one round, in multiples of `inner_steps`; then it waits for the others."""
WAIT_S = 0.2
"""Longest wait between two looks at the wishes."""
LOSS_WINDOW = 20
"""Inner steps over which the published loss is averaged."""


@dataclass
class _Begun:
    """A round that is being averaged: theta at its end, and the work that was announced."""

    parameters: Tensor
    work: LocalWork
    step: int


class Trainer:
    """Trains a model in rounds until the swarm has committed the samples wanted."""

    def __init__(
        self, config: RunConfig, model: PreTrainedModel, dataset: TokenDataset, synchronizer: Synchronizer,
        reporter: StatusReporter, control: ControlFile,
    ):  # fmt: skip
        self._config, self._model, self._dataset = config, model, dataset
        self._sync, self._reporter, self._control = synchronizer, reporter, control
        self._wanted = config.samples_wanted(len(dataset))
        self._device = next(model.parameters()).device
        self._inner = build_inner_optimizer(model, config.train)
        self._outer = OuterOptimizer.from_config(config, self._wanted)
        self._state = OuterState.initial(flatten_parameters(model))
        self._steps = self._samples = 0  # since the outer state
        self._total_steps = self._tokens = 0
        self._rank, self._ranks, self._position = 0, 1, 0
        self._joined_at_step, self._joined_late = 0, False
        self._begun: _Begun | None = None
        self._losses: list[Tensor] = []
        self._compute_s, self._started, self._bytes = 0.0, 0.0, [0, 0]
        self._waited_s = 0.0

    def run(self) -> OuterState:
        """Train to the end; returns the final outer state.

        Raises TrainingStopped when a person wishes so, DivergedError when the loss is no longer finite.
        """
        self._reporter.phase("joining", message="joining the swarm", samples_wanted=self._wanted)
        self._take_over(self._sync.join(self._state))
        self._joined_late = self._state.round > 0
        self._sync.gather()
        self._begin_share()
        self._reporter.phase("training", "training", message=f"training from round {self._state.round}")
        self._started = time.monotonic()
        while self._state.samples < self._wanted:
            self._obey_wish()
            may_step = self._may_step()
            if may_step:
                self._inner_step()
            self._advance_round(0.0 if may_step else WAIT_S)
            self._report()
        self._reporter.phase(
            "finishing", message=f"{self._state.samples} samples committed in {self._state.round} rounds"
        )
        return self._state

    # ------------------------------------------------------------------------------------------ inner steps
    def _may_step(self) -> bool:
        if self._begun is not None:
            return self._total_steps - self._begun.step < self._config.diloco.overlap_limit
        return self._steps < MOST_ROUND_LENGTHS * self._config.diloco.inner_steps

    def _inner_step(self) -> None:
        started = time.monotonic()
        train = self._config.train
        set_learning_rate(self._inner, self._learning_rate())
        self._inner.zero_grad(set_to_none=True)
        loss_sum = torch.zeros((), device=self._device)
        for _ in range(train.gradient_accumulation_steps):
            tokens = self._next_batch(train.batch_size)
            loss = language_model_loss(self._model, tokens, precision=self._config.model.precision)
            (loss / train.gradient_accumulation_steps).backward()
            loss_sum += loss.detach()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), train.max_grad_norm)
        self._inner.step()
        self._losses = [*self._losses, loss_sum / train.gradient_accumulation_steps][-LOSS_WINDOW:]
        self._steps += 1
        self._total_steps += 1
        self._samples += train.samples_per_step
        self._tokens += train.samples_per_step * self._dataset.seq_length
        self._compute_s += time.monotonic() - started

    def _next_batch(self, count: int) -> torch.LongTensor:
        start = -((self._rank + self._state.cursor - self._position) // self._ranks)  # ceil
        indices = sample_indices(
            seed=self._config.session.seed, num_samples=len(self._dataset), cursor=self._state.cursor,
            rank=self._rank, ranks=self._ranks, start=max(0, start), count=count,
        )  # fmt: skip
        self._position = self._state.cursor + self._rank + self._ranks * (max(0, start) + count)
        return self._dataset.batch(indices).to(self._device)  # type: ignore[return-value]

    def _learning_rate(self) -> float:
        config = self._config
        progress = progress_fraction(self._state.samples, self._samples, self._sync.peers, config, self._wanted)
        total_steps = self._wanted / (config.train.samples_per_step * config.distributed.nodes)
        rate = learning_rate(config.train, progress=progress, total_steps=total_steps)
        if self._joined_late:  # a cold inner optimizer warms up on its own, over one round
            rate *= min(1.0, (self._total_steps - self._joined_at_step + 1) / config.diloco.inner_steps)
        return rate

    # ------------------------------------------------------------------------------------------ rounds
    def _work(self) -> LocalWork:
        cold = self._joined_late and self._total_steps - self._joined_at_step <= self._steps
        return LocalWork(self._steps, self._samples, self._ranks, warm=not cold)

    def _advance_round(self, wait_s: float) -> None:
        """Begin, follow or finish a round; waits at most `wait_s` seconds."""
        waiting_since = time.monotonic()
        try:
            if self._begun is not None:
                closed = self._sync.poll_round(wait_s)
                if closed is not None:
                    self._close_round(closed)
            elif self._sync.should_close(self._work(), wait_s):
                self._begin_round()
        except RoundNotClosed as error:
            self._begun = None
            self._reporter.record("log", f"round {self._state.round + 1} not closed: {error}", level="warning")
        except StateOutdated as error:
            self._resync(str(error))
        if wait_s > 0:
            self._waited_s += time.monotonic() - waiting_since

    def _begin_round(self) -> None:
        local = flatten_parameters(self._model)
        self._begun = _Begun(local, self._work(), self._total_steps)
        self._sync.begin_round(self._state, local, self._begun.work)

    def _close_round(self, closed: ClosedRound) -> None:
        begun, self._begun = self._begun, None
        assert begun is not None
        newer = self._outer.step(self._state, self._sync.average(), closed.totals, out=self._sync.next_buffers())
        digest = newer.digest()
        self._state = self._sync.publish(newer, digest)
        self._move_base(begun.parameters)
        self._steps -= begun.work.steps
        self._samples -= begun.work.samples
        self._begin_share()
        self._bytes = [self._bytes[0] + closed.bytes_sent, self._bytes[1] + closed.bytes_received]
        members = closed.summary.get("members", [])
        self._reporter.update(digest=digest, round=self._state.round, samples_committed=self._state.samples)
        self._reporter.record(
            "round", f"round {self._state.round} closed by {len(members) if isinstance(members, list) else 1} peers",
            data={**closed.summary, "round": self._state.round, "digest": digest, "loss": self._loss(),
                  "steps": begun.work.steps, "waitedSeconds": round(self._waited_s, 3)},
        )  # fmt: skip
        self._waited_s = 0.0

    def _resync(self, why: str) -> None:
        """Take the swarm's state over, with this peer's own progress on top: it counts in the next round."""
        self._reporter.record("log", f"downloading the swarm's state: {why}", level="warning")
        self._begun = None
        base = self._state.parameters.clone()  # its buffer is written to by the download
        self._state = self._sync.resync(self._state)
        self._move_base(base)
        self._begin_share()
        self._reporter.phase("training", digest=self._state.digest())

    def _move_base(self, old_base: Tensor) -> None:
        """theta <- P + (theta - old_base)."""
        local = flatten_parameters(self._model)
        load_flat_parameters(self._model, local.sub_(old_base).add_(self._state.parameters))

    def _take_over(self, state: OuterState) -> None:
        self._state, self._position = state, state.cursor
        self._joined_at_step = self._total_steps
        load_flat_parameters(self._model, state.parameters)
        self._reporter.update(digest=state.digest(), round=state.round, samples_committed=state.samples)

    def _begin_share(self) -> None:
        self._rank, self._ranks = self._sync.share()

    # ------------------------------------------------------------------------------------------ wishes and status
    def _obey_wish(self) -> None:
        wish = self._control.wish()
        if wish == "run":
            return
        self._finish_begun_round()
        if wish != "pause":
            raise TrainingStopped(wish)
        self._sync.set_active(False)
        self._reporter.phase("training", "paused", message="paused")
        while (wish := self._control.wish()) == "pause":
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
        """Mean over the last inner steps. Raises DivergedError if it is not finite."""
        if not self._losses:
            return None
        loss = float(torch.stack(self._losses).mean())
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss} after {self._total_steps} inner steps", field="train.learning_rate",
                hint="start again with a lower learning rate or a longer warm-up",
            )  # fmt: skip
        return loss

    def _report(self) -> None:
        wall_s = time.monotonic() - self._started
        pace = self._total_steps / self._compute_s if self._compute_s > 0 else 0.0
        self._sync.report(self._work(), pace)
        self._reporter.update(
            step=self._total_steps, round=self._state.round, loss=self._loss(), tokens=self._tokens,
            learning_rate=self._inner.param_groups[0]["lr"], samples_committed=self._state.samples,
            tokens_per_second=self._tokens / wall_s if wall_s > 0 else None, compute_seconds=self._compute_s,
            wall_seconds=wall_s, peers=self._sync.peers, bytes_sent=self._bytes[0], bytes_received=self._bytes[1],
            batch_size=self._config.train.batch_size,
        )  # fmt: skip
