"""DiLoCo's outer loop (Douillard et al., arXiv:2311.08105): pseudo-gradient, Nesterov outer step, digest.

Everything here must give the same bits on every peer, so the outer step is made of separate float32
multiplications and additions on the CPU: fused operations (`add_(alpha=)`, `torch.optim.SGD`) round differently under
different instruction sets.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import torch
from torch import Tensor

from cotrain.config import RunConfig
from cotrain.train.fragments import Fragments, Range, positions
from cotrain.train.optim import learning_rate

MOST_ROUND_LENGTHS = 4
"""Inner steps that a peer does at most in one round, in multiples of its length; then it waits for the others."""


@dataclass(frozen=True)
class OuterState:
    """What all up-to-date peers of a session hold bit for bit.

    Attributes:
        parameters: outer parameters P, [n] float32 on the CPU.
        momentum: outer momentum v, [n] float32 on the CPU.
        round: outer steps taken.
        samples: samples committed by all peers in these rounds.
        cursor: position in the data order from which the next round's samples are dealt.
    """

    parameters: Tensor
    momentum: Tensor
    round: int = 0
    samples: int = 0
    cursor: int = 0

    @classmethod
    def initial(cls, parameters: Tensor) -> OuterState:
        """The state before the first round."""
        return cls(parameters, torch.zeros_like(parameters))

    def digest(self) -> str:
        """SHA-256 over counters, parameters and momentum, hexadecimal."""
        hasher = hashlib.sha256(struct.pack("<qqqq", self.parameters.numel(), self.round, self.samples, self.cursor))
        hasher.update(self.parameters.view(torch.uint8).numpy().data)
        hasher.update(self.momentum.view(torch.uint8).numpy().data)
        return hasher.hexdigest()


@dataclass(frozen=True)
class RoundTotals:
    """What the members of a round's group announced, added up: the same at every peer.

    Attributes:
        samples: samples trained on by all members.
        positions: positions of the data order that the round has used up.
    """

    samples: int
    positions: int


@dataclass(frozen=True)
class RoundLengths:
    """How long rounds are: short while the run warms up, then of `inner_steps`.

    A function of the samples committed in the outer state, so that all who hold it agree without asking.

    Attributes:
        inner_steps: of a round after the warm-up.
        overlap_steps: inner steps that may run while such a round is averaged.
        warmup_inner_steps: of a round in the warm-up.
        warmup_samples: committed samples at which the warm-up is over.
    """

    inner_steps: int
    overlap_steps: int = 0
    warmup_inner_steps: int = 1
    warmup_samples: float = 0.0

    @classmethod
    def from_config(cls, config: RunConfig, samples_wanted: int) -> RoundLengths:
        section = config.diloco
        return cls(
            section.round_steps, section.overlap_limit, section.warmup_inner_steps,
            section.warmup_share * samples_wanted,
        )  # fmt: skip

    def is_warming_up(self, committed: int) -> bool:
        """Whether the round that begins with `committed` samples belongs to the warm-up."""
        return committed < self.warmup_samples

    def inner_steps_at(self, committed: int) -> int:
        """Inner steps of the round that begins with `committed` samples."""
        return self.warmup_inner_steps if self.is_warming_up(committed) else self.inner_steps

    def overlap_at(self, committed: int) -> int:
        """Inner steps that may run while that round is averaged: in the warm-up a quarter of it at most."""
        if not self.is_warming_up(committed):
            return self.overlap_steps
        return min(self.overlap_steps, self.warmup_inner_steps // 4)

    def is_evaluated(self, state: OuterState, every: int) -> bool:
        """Whether this state is one of those evaluated `every` so many rounds; none is while the warm-up lasts."""
        return not self.is_warming_up(state.samples) and state.round % every == 0


@dataclass(frozen=True)
class OuterOptimizer:
    """Nesterov SGD over rounds, its momentum ramped up from zero; in the warm-up, plain averaging.

    A cold momentum of 0.9 overshoots on short runs; rising linearly over the first half of the run mends it.

    Attributes:
        learning_rate: of the outer step.
        momentum: once the ramp is over.
        ramp_samples: committed samples at which the ramp is over.
        warmup_samples: committed samples at which plain averaging is over.
        fragments: what a round averages; None: all parameters.
    """

    learning_rate: float
    momentum: float
    ramp_samples: float
    warmup_samples: float = 0.0
    fragments: Fragments | None = None

    @classmethod
    def from_config(cls, config: RunConfig, samples_wanted: int, fragments: Fragments | None = None) -> OuterOptimizer:
        section, warmup_samples = config.diloco, config.diloco.warmup_share * samples_wanted
        if section.outer_optimizer == "average":
            return cls(1.0, 0.0, 0.0, warmup_samples, fragments)
        ramp_samples = section.momentum_ramp * samples_wanted
        return cls(section.outer_learning_rate, section.outer_momentum, ramp_samples, warmup_samples, fragments)

    def due(self, state: OuterState) -> tuple[Range, ...]:
        """The ranges of the vector that the round after this state averages."""
        return ((0, state.parameters.numel()),) if self.fragments is None else self.fragments.due(state.round)

    def learning_rate_at(self, samples: int) -> float:
        """Outer learning rate once `samples` have been committed."""
        return 1.0 if samples < self.warmup_samples else self.learning_rate

    def momentum_at(self, samples: int) -> float:
        """Outer momentum once `samples` have been committed."""
        if samples < self.warmup_samples:
            return 0.0
        if self.ramp_samples <= 0:
            return self.momentum
        return self.momentum * min(1.0, samples / self.ramp_samples)

    @torch.no_grad()
    def step(
        self,
        state: OuterState,
        average: Tensor,
        totals: RoundTotals,
        out: tuple[Tensor, Tensor] | None = None,
    ) -> OuterState:
        """One outer step: `v <- m v + g;  P <- P - lr (g + m v)` with g the averaged pseudo-gradient.

        Args:
            state: the state before; left unchanged.
            average: g, [m] float32: the averaged pseudo-gradient of what is `due`. The rest stays as it is.
            totals: of the round that closes.
            out: buffers [n] for the new parameters and momentum; made if absent.
        """
        parameters, velocity = out or (torch.empty_like(state.parameters), torch.empty_like(state.momentum))
        momentum, due = self.momentum_at(state.samples), self.due(state)
        rate = self.learning_rate_at(state.samples)
        if average.numel() < parameters.numel():
            parameters.copy_(state.parameters)
            velocity.copy_(state.momentum)
        for here, there in positions(due):
            gradient = average[there]
            torch.mul(state.momentum[here], momentum, out=velocity[here])
            velocity[here].add_(gradient)
            torch.mul(velocity[here], momentum, out=parameters[here])
            parameters[here].add_(gradient).mul_(rate)
            torch.sub(state.parameters[here], parameters[here], out=parameters[here])
        return OuterState(
            parameters,
            velocity,
            state.round + 1,
            state.samples + totals.samples,
            state.cursor + totals.positions,
        )


def progress_fraction(state_samples: int, local_samples: int, peers: int, config: RunConfig, wanted: int) -> float:
    """How far the run is, 0 to 1, in the middle of a round; the learning rate is a function of this.

    Committed samples, plus what the swarm is expected to have done since (my own times the number of peers), clamped
    to what the round is expected to bring: so all peers anneal together, whatever their speed.
    """
    inner_steps = RoundLengths.from_config(config, wanted).inner_steps_at(state_samples)
    of_round = inner_steps * config.train.samples_per_step * config.distributed.nodes
    expected = min(local_samples * max(1, peers), of_round)
    return min(1.0, (state_samples + expected) / max(1, wanted))


def inner_learning_rate(config: RunConfig, *, committed: int, local: int, peers: int, wanted: int) -> float:
    """The inner optimizer's rate at a point of the run: a function of the run's progress, the same at all peers.

    Args:
        committed: samples in the outer state.
        local: samples of this peer since.
        peers: that train.
        wanted: samples of the whole run.
    """
    progress = progress_fraction(committed, local, peers, config, wanted)
    total_steps = wanted / (config.train.samples_per_step * config.distributed.nodes)
    return learning_rate(config.train, progress=progress, total_steps=total_steps)
