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
class OuterOptimizer:
    """Nesterov SGD over rounds, its momentum ramped up from zero.

    A cold momentum of 0.9 overshoots on short runs; rising linearly over the first half of the run mends it.

    Attributes:
        learning_rate: of the outer step.
        momentum: once the ramp is over.
        ramp_samples: committed samples at which the ramp is over.
        fragments: what a round averages; None: all parameters.
    """

    learning_rate: float
    momentum: float
    ramp_samples: float
    fragments: Fragments | None = None

    @classmethod
    def from_config(cls, config: RunConfig, samples_wanted: int, fragments: Fragments | None = None) -> OuterOptimizer:
        section = config.diloco
        ramp_samples = section.momentum_ramp * samples_wanted
        return cls(section.outer_learning_rate, section.outer_momentum, ramp_samples, fragments)

    def due(self, state: OuterState) -> tuple[Range, ...]:
        """The ranges of the vector that the round after this state averages."""
        return ((0, state.parameters.numel()),) if self.fragments is None else self.fragments.due(state.round)

    def momentum_at(self, samples: int) -> float:
        """Outer momentum once `samples` have been committed."""
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
        if average.numel() < parameters.numel():
            parameters.copy_(state.parameters)
            velocity.copy_(state.momentum)
        for here, there in positions(due):
            gradient = average[there]
            torch.mul(state.momentum[here], momentum, out=velocity[here])
            velocity[here].add_(gradient)
            torch.mul(velocity[here], momentum, out=parameters[here])
            parameters[here].add_(gradient).mul_(self.learning_rate)
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
    expected = min(local_samples * max(1, peers), config.samples_per_round())
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
