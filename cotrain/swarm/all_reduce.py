"""Butterfly all-reduce whose result is the same bytes at every member, for any lossy codec.

Each member reduces its own parts: it collects the encoded contributions of the others, averages them in the order of
the members and by the session's rule (`aggregate.py`), encodes each average once, and sends these bytes to everybody;
it uses the decoded bytes itself, too. Then the group agrees on what was averaged (`commit.py`), and members that miss
parts fetch them. An average that is longer than honest contributions could make it is not believed.

Losses of the encoding are fed back (error feedback, Karimireddy et al., arXiv:1901.09847): what a contribution or an
average lost is added to the next one.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import torch
from hivemind.proto import averaging_pb2, runtime_pb2
from hivemind.proto.averaging_pb2 import AveragingData
from hivemind.utils import get_logger
from hivemind.utils.asyncio import aiter_with_timeout, amap_in_executor, as_aiter
from torch import Tensor

from cotrain.errors import SwarmError
from cotrain.sections import Aggregation
from cotrain.swarm.aggregate import Contribution, Reason, longest_average, reduce_part
from cotrain.swarm.notary import Notary
from cotrain.swarm.parts import Part, PartLedger
from cotrain.swarm.streams import await_hang_up
from cotrain.swarm.suspects import Suspects
from cotrain.train.codec import Codec

logger = get_logger(__name__)
T = TypeVar("T")
Replies = AsyncGenerator[AveragingData, None]

PREFETCH = 2
"""Parts that are encoded or checked ahead of the network."""


class NotInGroup(SwarmError):
    """A member that does not know the group: its matchmaking ended otherwise."""


@dataclass(frozen=True)
class Timeouts:
    """How long a member waits for another, seconds."""

    sender_s: float = 10.0
    """for the next part of a contribution"""
    reducer_s: float = 20.0
    """for the next averaged part"""
    vote_s: float = 5.0
    """for the answer to a vote"""


@dataclass
class Traffic:
    """Bytes of messages, as they are handed to the transport."""

    sent: int = 0
    received: int = 0


@dataclass
class Residuals:
    """What the encodings of a round have lost, part by part, to be added to the next ones. Float32; absent: nothing.

    Attributes:
        contribution: lost from what this peer sent to reducers.
        average: lost from the averages that this peer encoded as a reducer.
    """

    contribution: dict[Part, Tensor] = field(default_factory=dict)
    average: dict[Part, Tensor] = field(default_factory=dict)


def _norm(values: Tensor) -> float:
    """Euclidean norm; its last bits depend on the machine, so it is for this member's own judgement only."""
    return float(torch.linalg.vector_norm(values))


@dataclass
class Exchange:
    """One member's side of the reduction in one group.

    Attributes:
        me, members: peer ids; members in the same order everywhere.
        weights: of each member, from what was announced when the group formed.
        vector: [n] float32, this member's pseudo-gradient with what the last round's encoding lost of it.
        added: what the last encoding of this member's own parts lost, added to their averages; absent: nothing.
        residuals: what the encodings of this round lose; the caller keeps them only if the round is decided.
        open_stream: `open_stream(reducer, requests)` -> replies.
        steps: inner steps that each member announced; absent: all as many.
        aggregation: the session's rule.
        notary: signs what is sent and checks what is received; absent: parts travel without signatures.
        dropped: part -> member -> why it has no part in the average that this member made.
    """

    me: str
    members: Sequence[str]
    weights: Sequence[float]
    parts: Sequence[Part]
    ledger: PartLedger
    vector: Tensor
    codec: Codec
    group_id: bytes
    open_stream: Callable[[str, AsyncIterator[AveragingData]], Replies]
    timeouts: Timeouts = field(default_factory=Timeouts)
    suspects: Suspects = field(default_factory=Suspects)
    traffic: Traffic = field(default_factory=Traffic)
    steps: Sequence[int] | None = None
    aggregation: Aggregation = "filter"
    notary: Notary | None = None
    added: Mapping[Part, Tensor] = field(default_factory=dict)
    residuals: Residuals = field(default_factory=Residuals)
    dropped: dict[int, dict[str, Reason]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._mine = [i for i, part in enumerate(self.parts) if part.reducer == self.me]
        self._inbox: dict[int, dict[str, bytes]] = {i: {} for i in self._mine}
        self._collected = {i: asyncio.Event() for i in self._mine}
        self._averaged = {i: asyncio.Event() for i in self._mine}
        self._live_senders = {peer for peer in self.members if peer != self.me}
        self._started: set[str] = set()
        self._steps = [1] * len(self.members) if self.steps is None else list(self.steps)
        self._one_at_a_time = asyncio.Lock()

    async def run(self) -> None:
        """Send, reduce and collect. Afterwards the ledger holds every average that could be had."""
        reducers = {part.reducer for part in self.parts} - {self.me}
        tasks = [asyncio.create_task(self._send_to(reducer)) for reducer in sorted(reducers)]
        tasks += [asyncio.create_task(self._reduce(index)) for index in self._mine]
        watchdog = asyncio.create_task(self._drop_silent_senders())
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in (watchdog, *tasks):
                task.cancel()

    def take_residuals(self) -> Residuals:
        """What the encodings lost; this exchange, which is kept for others to ask, holds them no longer."""
        residuals, self.residuals = self.residuals, Residuals()
        return residuals

    # ------------------------------------------------------------------------------------------ as a sender
    async def _send_to(self, reducer: str) -> None:
        indices = [i for i, part in enumerate(self.parts) if part.reducer == reducer]
        try:
            replies = self._replies(reducer, indices)
            async for index, encoded in amap_in_executor(self._check_average, replies, max_prefetch=PREFETCH):
                if encoded is None:
                    self.suspects.blame(reducer, f"made an average of part {index} that is too long")
                else:
                    self.ledger.put(index, encoded)
        except NotInGroup:
            # it will not send anything either: do not wait for its contribution
            self._drop(reducer, "is not in the group")
            self.suspects.blame(reducer, "is not in the group")
        except Exception as error:
            logger.info(f"reducer {reducer} failed: {error!r}")
            self.suspects.blame(reducer, f"failed to reduce: {_reason(error)}")

    async def _replies(self, reducer: str, indices: Sequence[int]) -> AsyncIterator[tuple[int, AveragingData]]:
        """The reducer's answers with the parts they are about; the stream is closed after the last."""
        async with aclosing(self.open_stream(reducer, self._contributions(indices))) as stream:
            messages = aiter_with_timeout(stream, self.timeouts.reducer_s)
            for index in indices:
                message = await anext(messages, None)
                if message is None:
                    raise SwarmError(f"ended its stream before the average of part {index}", field=reducer)
                self.traffic.received += message.ByteSize()
                yield index, message

    async def _contributions(self, indices: Sequence[int]) -> AsyncIterator[AveragingData]:
        first = True
        try:
            async for encoded in amap_in_executor(self._encode_contribution, as_aiter(*indices), max_prefetch=PREFETCH):
                message = AveragingData(
                    code=averaging_pb2.PART_FOR_AVERAGING, group_id=self.group_id if first else b"",
                    tensor_part=runtime_pb2.Tensor(buffer=encoded),
                )  # fmt: skip
                first = False
                self.traffic.sent += message.ByteSize()
                yield message
        except Exception as error:
            # hivemind would report it only once the replies end, and the reducer would wait for its time-out
            logger.warning(f"a contribution could not be encoded: {error!r}")
            yield AveragingData(code=averaging_pb2.INTERNAL_ERROR, group_id=self.group_id)

    def _encode_contribution(self, index: int) -> bytes:
        part = self.parts[index]
        values = self.vector[part.start : part.stop]
        encoded, lost = self.codec.encode_with_loss(values)
        if lost is not None:
            self.residuals.contribution[part] = lost
        return encoded if self.notary is None else self.notary.sign(index, encoded)

    def _check_average(self, numbered: tuple[int, AveragingData]) -> tuple[int, bytes | None]:
        index, message = numbered
        received, part = message.tensor_part.buffer, self.parts[index]
        if message.code == averaging_pb2.BAD_GROUP_ID:
            raise NotInGroup("gave up the group that others believe in", field=part.reducer)
        if message.code != averaging_pb2.AVERAGED_PART:
            raise SwarmError(f"answered with code {message.code}", field=part.reducer)
        return index, received if self.credible(index, received) else None

    def credible(self, index: int, received: bytes) -> bool:
        """Whether an average of a part, as it travels, is no longer than honest contributions could make it.

        To be asked of averages that come another way, too, before this member votes for them; what a quorum has
        decided is taken all the same. Raises ValueError for a wrong size, a value that is not finite or, with a
        notary, an average that its reducer has not signed.
        """
        encoded = received if self.notary is None else self.notary.unseal(index, received)
        length = _norm(self.codec.decode(encoded, self.parts[index].numel))
        longest = self._longest(self.parts[index])
        if length > longest:
            logger.warning(f"the average of part {index} is refused: its norm is {length:.3g}, above {longest:.3g}")
        return length <= longest

    def _longest(self, part: Part) -> float:
        """Norm up to which this member believes an average of the part. A late joiner, cold, has nothing to compare."""
        me = self.members.index(self.me)
        if self.weights[me] <= 0:
            return math.inf
        return longest_average(
            self.aggregation, part_norm=_norm(self.vector[part.start : part.stop]), vector_norm=self._vector_norm,
            share=part.numel / self.vector.numel(), me=me, steps=self._steps,
        )  # fmt: skip

    @cached_property
    def _vector_norm(self) -> float:
        return _norm(self.vector)

    # ------------------------------------------------------------------------------------------ as a reducer
    async def serve(self, sender: str, stream: AsyncIterator[AveragingData]) -> AsyncIterator[AveragingData]:
        """The reducer's side of `open_stream`: takes a contribution, yields averages in the order of the parts."""
        if sender not in self._live_senders or sender in self._started:
            yield AveragingData(code=averaging_pb2.PROTOCOL_VIOLATION)
            return
        self._started.add(sender)
        receiver = asyncio.create_task(self._receive_from(sender, stream))
        try:
            for index in self._mine:
                await self._averaged[index].wait()
                message = _reply(self.ledger.encoded(index))
                self.traffic.sent += message.ByteSize()
                yield message
            await await_hang_up()
        finally:
            if not receiver.done():
                receiver.cancel()
                self._drop(sender, "closed its stream")

    async def _receive_from(self, sender: str, stream: AsyncIterator[AveragingData]) -> None:
        try:
            remaining = iter(self._mine)
            index = next(remaining, None)
            async for message in aiter_with_timeout(stream, self.timeouts.sender_s):
                self.traffic.received += message.ByteSize()
                if index is None:
                    raise SwarmError("sent more parts than it was asked for", field=sender)
                if message.code == averaging_pb2.INTERNAL_ERROR:
                    raise SwarmError(f"could not encode part {index}", field=sender)
                if len(message.tensor_part.buffer) != self._contribution_bytes(index):
                    raise SwarmError(f"sent part {index} in a wrong size", field=sender)
                if index in self._inbox:
                    self._inbox[index][sender] = message.tensor_part.buffer
                    self._note_collected(index)
                index = next(remaining, None)
                if index is None:
                    return
            raise SwarmError("ended its stream early", field=sender)
        except Exception as error:
            self._drop(sender, _reason(error))

    def _contribution_bytes(self, index: int) -> int:
        overhead = 0 if self.notary is None else self.notary.contribution_overhead
        return self.codec.encoded_bytes(self.parts[index].numel) + overhead

    async def _drop_silent_senders(self) -> None:
        await asyncio.sleep(self.timeouts.sender_s)
        for sender in sorted(self._live_senders - self._started):
            self._drop(sender, "sent nothing")

    def _drop(self, sender: str, why: str) -> None:
        if sender in self._live_senders:
            logger.info(f"sender {sender} dropped: {why}")
            self._live_senders.discard(sender)
            self.suspects.blame(sender, why)
            for index in self._mine:
                self._note_collected(index)

    def _note_collected(self, index: int) -> None:
        if index in self._inbox and self._live_senders <= self._inbox[index].keys():
            self._collected[index].set()

    async def _reduce(self, index: int) -> None:
        self._note_collected(index)
        await self._collected[index].wait()
        received = self._inbox.pop(index)
        try:
            async with self._one_at_a_time:  # decoded contributions of all members take n x 4 MB for a full part
                encoded = await asyncio.get_running_loop().run_in_executor(None, self._average, index, received)
            self.ledger.put(index, encoded)
        except Exception as error:
            # the round goes on without this part, and those that wait for it hear of it at once
            logger.warning(f"part {index} could not be averaged: {error!r}")
        self._averaged[index].set()

    def _average(self, index: int, received: dict[str, bytes]) -> bytes:
        part = self.parts[index]
        contributions: list[Contribution] = []
        unusable: dict[str, Reason] = {}
        for member, weight, steps in zip(self.members, self.weights, self._steps, strict=True):
            if member != self.me and member not in received:
                continue
            own = member == self.me
            values = self.vector[part.start : part.stop] if own else self._decode(index, member, received[member])
            if values is None:
                unusable[member] = "not finite"
            else:
                contributions.append(Contribution(member, values, weight, steps))
        reduced = reduce_part(self.aggregation, contributions, part.numel, self.added.get(part), self.codec)
        self.dropped[index] = {**unusable, **reduced.dropped}
        if self.dropped[index]:
            logger.info(f"left out of part {index}: {self.dropped[index]}")
        if reduced.norm > self._longest(part):
            raise SwarmError(f"its norm of {reduced.norm:.3g} is more than honest contributions could give it")
        if reduced.lost is not None:
            self.residuals.average[part] = reduced.lost
        return reduced.encoded if self.notary is None else self.notary.seal(index, reduced.encoded)

    def _decode(self, index: int, member: str, received: bytes) -> Tensor | None:
        try:
            encoded = received if self.notary is None else self.notary.genuine(index, member, received)
            return self.codec.decode(encoded, self.parts[index].numel)
        except ValueError as error:
            logger.warning(f"a contribution of {member} ignored: {error}")
            self.suspects.blame(member, f"sent what cannot be used: {error}")
            return None


def _reason(error: Exception) -> str:
    """What happened, without the peer's name."""
    if isinstance(error, SwarmError):
        return error.message
    return str(error) or type(error).__name__


def _reply(encoded: bytes | None) -> AveragingData:
    """An average for those who contributed to it, or the word that there is none."""
    if encoded is None:
        return AveragingData(code=averaging_pb2.INTERNAL_ERROR)
    return AveragingData(code=averaging_pb2.AVERAGED_PART, tensor_part=runtime_pb2.Tensor(buffer=encoded))
