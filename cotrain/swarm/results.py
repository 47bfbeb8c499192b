"""The averages of the last rounds, for peers that follow or that missed a round."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated, AsyncIterator  # noqa: UP035 - hivemind knows a stream by typing's name

from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.p2p import P2P, P2PContext, PeerID, ServicerBase
from hivemind.utils.asyncio import aiter_with_timeout
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cotrain.errors import SwarmError
from cotrain.swarm.gate import Gate
from cotrain.swarm.parts import Part
from cotrain.swarm.streams import await_hang_up
from cotrain.train.codec import Codec
from cotrain.train.diloco import RoundTotals

ROUNDS_KEPT = 4
"""Rounds whose averaged bytes are kept."""


class RoundHeader(BaseModel):
    """First message of a fetched round: the average's parts follow as encoded bytes, one message each."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    round: Annotated[int, Field(ge=0)]
    samples: Annotated[int, Field(ge=0, le=2**60)]
    positions: Annotated[int, Field(ge=0, le=2**60)]
    parts: Annotated[list[tuple[int, int, bool]], Field(max_length=100_000)]
    """(start, stop, present) of each part; one that is not present counts as zero and is not sent."""

    @property
    def totals(self) -> RoundTotals:
        return RoundTotals(self.samples, self.positions)

    @property
    def zeroed_parts(self) -> int:
        """Parts that nobody held."""
        return sum(not present for _, _, present in self.parts)

    def covers(self, numel: int) -> bool:
        """Whether the parts, one after the other, make up a vector of `numel` values."""
        bounds = [0, *itertools.chain.from_iterable((start, stop) for start, stop, _ in self.parts), numel]
        return bounds[::2] == bounds[1::2]


class RoundService(ServicerBase):
    """Answers, under the session's name, what the last rounds averaged."""

    def __init__(self, gate: Gate) -> None:
        self._results: dict[int, tuple[RoundHeader, list[bytes]]] = {}
        self._gate = gate

    def keep(self, round_: int, totals: RoundTotals, parts: Sequence[Part], encoded: Sequence[bytes | None]) -> None:
        """Serve a round's average: the encoded bytes of each part, None where it counts as zero."""
        bounds = [(part.start, part.stop, buffer is not None) for part, buffer in zip(parts, encoded, strict=True)]
        header = RoundHeader(round=round_, samples=totals.samples, positions=totals.positions, parts=bounds)
        self._results[round_] = (header, [buffer for buffer in encoded if buffer is not None])
        for old in sorted(self._results)[:-ROUNDS_KEPT]:
            del self._results[old]

    async def rpc_fetch_round(self, request: BytesValue, context: P2PContext) -> AsyncIterator[BytesValue]:
        """The request is the round, decimal; only an empty message if it is not held, or not for strangers."""
        if not await self._gate.admits(context.remote_id):
            yield BytesValue()
            return
        found = self._results.get(int(request.value.decode()))
        if found is None:
            yield BytesValue()
        else:
            header, encoded = found
            yield BytesValue(value=header.model_dump_json().encode())
            for buffer in encoded:
                yield BytesValue(value=buffer)
        await await_hang_up()


async def fetch_round(
    p2p: P2P, peer: str, session: str, round_: int, codec: Codec, out: Tensor, *, timeout_s: float
) -> RoundHeader | None:
    """Fetch the average of round `round_` from a peer into `out` [n]; None if the peer does not hold it.

    Raises SwarmError or ValueError for what does not make up n values.
    """
    stub = RoundService.get_stub(p2p, PeerID.from_base58(peer), namespace=session)
    request = BytesValue(value=str(round_).encode())
    async with aclosing(await asyncio.wait_for(stub.rpc_fetch_round(request), timeout_s)) as stream:
        messages = aiter_with_timeout(stream, timeout_s)
        first = await anext(messages, BytesValue())
        if not first.value:
            return None
        header = RoundHeader.model_validate_json(first.value)
        if not header.covers(out.numel()) or header.round != round_:
            raise SwarmError("sent parts that do not make up the vector", field=peer)
        for start, stop, present in header.parts:
            if not present:
                out[start:stop] = 0.0
                continue
            message = await anext(messages, None)
            if message is None:
                raise SwarmError(f"ended its stream before the values from {start} on", field=peer)
            out[start:stop] = codec.decode(message.value, stop - start)
    return header
