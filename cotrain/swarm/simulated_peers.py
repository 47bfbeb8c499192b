"""Virtual peers: each with its own weights, optimizer and residuals, all taking turns in one model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import cast

import numpy as np
import torch
from hivemind.proto.averaging_pb2 import AveragingData
from torch import Tensor

from cotrain.swarm.all_reduce import Exchange, Replies, Residuals, Timeouts
from cotrain.swarm.parts import PART_VALUES, PartLedger, partition
from cotrain.swarm.scenario import Lie
from cotrain.swarm.simulated_training import InnerSteps
from cotrain.train.codec import BLOCK, Codec
from cotrain.train.diloco import MOST_ROUND_LENGTHS, OuterState
from cotrain.train.synchronizer import LocalWork

LIE_SCALE = 10.0
"""A sign-flip and a scaled contribution are this many times as long as the true one."""
NOISE_SCALE = 100.0
"""Noise is this many times as long as the true contribution."""
_NO_TIMEOUT = Timeouts(sender_s=1e6, reducer_s=1e6, vote_s=1e6)
"""Nobody is slow in memory, and a slow machine must not change the result."""


@dataclass(frozen=True)
class Begun:
    """What a peer brought to the round that is being averaged: theta at its end, and the work."""

    parameters: Tensor
    work: LocalWork
    total_steps: int


@dataclass
class VirtualPeer:
    """One peer of a simulated swarm.

    Attributes:
        rank, ranks: its share of the data order.
        speed: inner steps in a virtual second.
        loop: takes its inner steps, with its own optimizer, in the model that all share.
        parameters: theta, [n] float32.
        step_ends: virtual time at which the inner step that is under way ends; None while the peer waits.
    """

    name: str
    rank: int
    ranks: int
    speed: Fraction
    loop: InnerSteps
    parameters: Tensor
    residuals: Residuals
    lie: Lie | None = None
    steps: int = 0
    samples: int = 0
    total_steps: int = 0
    position: int = 0
    step_ends: Fraction | None = None
    begun: Begun | None = None
    losses: list[float] = field(default_factory=list)

    def may_step(self, inner_steps: int, overlap_limit: int) -> bool:
        """Whether it goes on training, or waits for the others."""
        if self.begun is not None:
            return self.total_steps - self.begun.total_steps < overlap_limit
        return self.steps < MOST_ROUND_LENGTHS * inner_steps

    def inner_step(self, cursor: int, rate: float) -> None:
        """One inner step at learning rate `rate` on the next samples of its share in a round that began at `cursor`."""
        start = max(0, -((self.rank + cursor - self.position) // self.ranks))  # ceil
        self.losses.append(self.loop.step(self.parameters, cursor, (self.rank, self.ranks), start, rate))
        self.position = cursor + self.rank + self.ranks * (start + self.loop.samples_per_step)
        self.steps += 1
        self.total_steps += 1
        self.samples += self.loop.samples_per_step

    def begin_round(self) -> None:
        """Note what goes into the round; what is learnt from now on goes into the next."""
        self.begun = Begun(self.parameters.clone(), LocalWork(self.steps, self.samples, self.ranks), self.total_steps)

    def contribution(self, state: OuterState, generator: np.random.Generator) -> Tensor:
        """The pseudo-gradient of the round begun, [n] float32, or what a liar says that it is."""
        assert self.begun is not None
        return tell(self.lie, state.parameters - self.begun.parameters, generator)

    def finish_round(self, state: OuterState) -> None:
        """Take the new outer state over, with what was learnt while it was averaged on top."""
        assert self.begun is not None
        self.parameters.sub_(self.begun.parameters).add_(state.parameters)
        self.steps -= self.begun.work.steps
        self.samples -= self.begun.work.samples
        self.begun = None


def tell(lie: Lie | None, truth: Tensor, generator: np.random.Generator) -> Tensor:
    """What is sent in place of `truth` ([n] float32)."""
    if lie == "sign-flip":
        return truth * -LIE_SCALE
    if lie == "scale":
        return truth * LIE_SCALE
    if lie == "zero":
        return torch.zeros_like(truth)
    if lie == "noise":
        noise = torch.from_numpy(generator.standard_normal(truth.numel(), dtype=np.float32))
        return noise * (NOISE_SCALE * truth.norm() / noise.norm())
    return truth


@dataclass(frozen=True)
class Averaged:
    """An average that members made in memory: [n] float32, and the bytes of all their messages."""

    values: Tensor
    bytes_sent: int


def average_in_memory(
    members: Sequence[VirtualPeer], vectors: Sequence[Tensor], weights: Sequence[float], codec: Codec,
    runner: asyncio.Runner,
) -> Averaged:  # fmt: skip
    """Reduce pseudo-gradients with the swarm's own all-reduce, its streams joined end to end without a network.

    Args:
        members: in the order of their names, as in a group; their residuals are written to.
        vectors: [n] float32, what each contributes.
        weights: of each.
        runner: of the event loop that the all-reduce runs in.
    """
    numel, names = vectors[0].numel(), [member.name for member in members]
    parts = partition(numel, names, [1] * len(names), BLOCK, PART_VALUES)
    exchanges: dict[str, Exchange] = {}

    async def open_stream(sender: str, reducer: str, requests: AsyncIterator[AveragingData]) -> Replies:
        served = cast("AsyncGenerator[AveragingData, None]", exchanges[reducer].serve(sender, requests))
        async with aclosing(served) as replies:
            async for message in replies:
                yield message

    for member, vector in zip(members, vectors, strict=True):
        exchanges[member.name] = Exchange(
            me=member.name, members=names, weights=weights, parts=parts, ledger=PartLedger(parts),
            vector=vector + member.residuals.contribution, residuals=member.residuals, codec=codec,
            group_id=b"simulation", timeouts=_NO_TIMEOUT, open_stream=partial(open_stream, member.name),
        )  # fmt: skip

    async def exchange_all() -> None:
        await asyncio.gather(*(exchange.run() for exchange in exchanges.values()))

    runner.run(exchange_all())
    ledger, values = exchanges[names[0]].ledger, torch.zeros(numel)
    for index, part in enumerate(parts):
        if (encoded := ledger.encoded(index)) is not None:  # a part that nobody could average counts as zero
            values[part.start : part.stop] = codec.decode(encoded, part.numel)
    return Averaged(values, sum(exchange.traffic.sent for exchange in exchanges.values()))
