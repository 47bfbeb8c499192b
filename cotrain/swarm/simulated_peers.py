"""Virtual peers, all taking turns in one model, and the all-reduce between them without a network."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import cast

import torch
from hivemind.proto.averaging_pb2 import AveragingData
from torch import Tensor

from cotrain.sections import Aggregation
from cotrain.swarm.all_reduce import Exchange, Replies, Timeouts
from cotrain.swarm.feedback import ErrorFeedback
from cotrain.swarm.parts import PART_VALUES, Part, PartLedger, partition
from cotrain.swarm.scenario import Lie
from cotrain.swarm.simulated_training import InnerSteps
from cotrain.train.codec import BLOCK, Codec
from cotrain.train.diloco import MOST_ROUND_LENGTHS, OuterState
from cotrain.train.fragments import Range, take
from cotrain.train.synchronizer import LocalWork

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
        feedback: what its encodings have lost.
        step_ends: virtual time at which the inner step that is under way ends; None while the peer waits.
    """

    name: str
    rank: int
    ranks: int
    speed: Fraction
    loop: InnerSteps
    parameters: Tensor
    feedback: ErrorFeedback
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

    def pseudo_gradient(self, state: OuterState, due: Sequence[Range]) -> Tensor:
        """Of the round begun and the ranges that are due, [m] float32."""
        assert self.begun is not None
        return take(state.parameters, due) - take(self.begun.parameters, due)

    def finish_round(self, state: OuterState, due: Sequence[Range]) -> None:
        """Take the new outer state over, with what was learnt while it was averaged on top."""
        assert self.begun is not None
        for start, stop in due:
            self.parameters[start:stop].sub_(self.begun.parameters[start:stop]).add_(state.parameters[start:stop])
        self.steps -= self.begun.work.steps
        self.samples -= self.begun.work.samples
        self.begun = None


def parts_of(numel: int, members: Sequence[str]) -> list[Part]:
    """The parts of a group whose members reduce equal shares."""
    return partition(numel, members, [1] * len(members), BLOCK, PART_VALUES)


@dataclass(frozen=True)
class Averaged:
    """An average that members made in memory.

    Attributes:
        values: [n] float32.
        bytes_sent: of all messages.
        dropped: member -> why it was left out -> of how many parts.
    """

    values: Tensor
    bytes_sent: int
    dropped: dict[str, dict[str, int]]


def average_in_memory(
    members: Sequence[VirtualPeer], vectors: Sequence[Tensor], weights: Sequence[float], codec: Codec,
    runner: asyncio.Runner, *, round_: int = 0, aggregation: Aggregation = "filter",
    steps: Sequence[int] | None = None,
) -> Averaged:  # fmt: skip
    """Reduce pseudo-gradients with the swarm's own all-reduce, its streams joined end to end without a network.

    Args:
        members: in the order of their names, as in a group; what they lose is kept in their feedback.
        vectors: [n] float32, what each contributes.
        weights: of each.
        runner: of the event loop that the all-reduce runs in.
        round_: its number, for the feedback.
        steps: inner steps that each announced; absent: all as many.
    """
    numel, names = vectors[0].numel(), [member.name for member in members]
    parts = parts_of(numel, names)
    exchanges: dict[str, Exchange] = {}

    async def open_stream(sender: str, reducer: str, requests: AsyncIterator[AveragingData]) -> Replies:
        served = cast("AsyncGenerator[AveragingData, None]", exchanges[reducer].serve(sender, requests))
        async with aclosing(served) as replies:
            async for message in replies:
                yield message

    mine = {name: [part for part in parts if part.reducer == name] for name in names}
    for member, vector in zip(members, vectors, strict=True):
        exchanges[member.name] = Exchange(
            me=member.name, members=names, weights=weights, parts=parts, ledger=PartLedger(parts),
            vector=member.feedback.with_lost(round_, vector), codec=codec,
            added=member.feedback.of_averages(round_, mine[member.name]),
            group_id=b"simulation", timeouts=_NO_TIMEOUT, open_stream=partial(open_stream, member.name),
            steps=steps, aggregation=aggregation,
        )  # fmt: skip

    async def exchange_all() -> None:
        await asyncio.gather(*(exchange.run() for exchange in exchanges.values()))

    runner.run(exchange_all())
    for member in members:
        member.feedback.keep(round_, exchanges[member.name].take_residuals(), mine[member.name])
    ledger, values = exchanges[names[0]].ledger, torch.zeros(numel)
    for index, part in enumerate(parts):
        if (encoded := ledger.encoded(index)) is not None:  # a part that nobody could average counts as zero
            values[part.start : part.stop] = codec.decode(encoded, part.numel)
    return Averaged(values, sum(exchange.traffic.sent for exchange in exchanges.values()), _dropped(exchanges.values()))


def _dropped(exchanges: Iterable[Exchange]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for exchange in exchanges:
        for reasons in exchange.dropped.values():
            for member, reason in reasons.items():
                found[member][reason] += 1
    return {member: dict(sorted(found[member].items())) for member in sorted(found)}
