"""The last rounds, for peers that follow or missed one: what was averaged, by whom, and the decision on it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, AsyncIterator  # noqa: UP035 - hivemind knows a stream by typing's name

from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.p2p import P2P, P2PContext, PeerID, ServicerBase
from hivemind.utils.asyncio import aiter_with_timeout
from pydantic import Field
from torch import Tensor

from cotrain.errors import SwarmError
from cotrain.swarm.claims import encoded_of, is_in
from cotrain.swarm.gate import Gate
from cotrain.swarm.parts import digest_of
from cotrain.swarm.send_rate import SendRate
from cotrain.swarm.streams import await_hang_up
from cotrain.swarm.terms import GroupTerms, Statement
from cotrain.swarm.votes import Decision
from cotrain.train.codec import Codec
from cotrain.train.diloco import RoundTotals

ROUNDS_KEPT = 4
"""Rounds that are kept with their sealed averages."""


class RoundHeader(Statement):
    """First message of a fetched round: the sealed averages of its parts follow, one message each, zeros left out."""

    terms: GroupTerms
    decision: Decision
    samples: Annotated[int, Field(ge=0, le=2**60)]
    positions: Annotated[int, Field(ge=0, le=2**60)]

    @property
    def totals(self) -> RoundTotals:
        return RoundTotals(self.samples, self.positions)

    @property
    def zeroed_parts(self) -> int:
        """Parts that nobody held: each counts as zero."""
        return self.decision.manifest.count(None)

    def is_about(self, round_: int, numel: int) -> bool:
        """Whether it is a round's, and its parts make up a vector of `numel` values."""
        terms = self.terms
        return (terms.round, terms.numel) == (round_, numel) and len(terms.parts) == len(self.decision.manifest)


@dataclass(frozen=True)
class FetchedRound:
    """A round as somebody brought it: its averages are those of its manifest, the decision is unchecked.

    Attributes:
        values_in: for each member of the group, in how many values of the average its contribution was, as far as the
            reducers' claims tell.
    """

    header: RoundHeader
    values_in: tuple[int, ...]


class RoundService(ServicerBase):
    """Answers, under the session's name, what the last rounds averaged."""

    def __init__(self, gate: Gate, rate: SendRate) -> None:
        self._results: dict[int, tuple[RoundHeader, list[bytes]]] = {}
        self._gate, self._rate = gate, rate

    def keep(self, terms: GroupTerms, decision: Decision, totals: RoundTotals, sealed: Sequence[bytes | None]) -> None:
        """Serve a round: the sealed average of each part, None where it counts as zero."""
        header = RoundHeader(terms=terms, decision=decision, samples=totals.samples, positions=totals.positions)
        self._results[terms.round] = (header, [buffer for buffer in sealed if buffer is not None])
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
            header, sealed = found
            yield BytesValue(value=header.model_dump_json().encode())
            for buffer in sealed:
                await self._rate.take(len(buffer))
                yield BytesValue(value=buffer)
        await await_hang_up()


async def fetch_round(
    p2p: P2P, peer: str, session: str, round_: int, codec: Codec, out: Tensor, *, timeout_s: float
) -> FetchedRound | None:
    """Fetch the average of round `round_` from a peer into `out` [n]; None if the peer does not hold it.

    Raises SwarmError or ValueError for what does not make up n values, or is not what its own manifest names.
    """
    stub = RoundService.get_stub(p2p, PeerID.from_base58(peer), namespace=session)
    request = BytesValue(value=str(round_).encode())
    async with aclosing(await asyncio.wait_for(stub.rpc_fetch_round(request), timeout_s)) as stream:
        messages = aiter_with_timeout(stream, timeout_s)
        first = await anext(messages, BytesValue())
        if not first.value:
            return None
        header = RoundHeader.model_validate_json(first.value)
        if not header.is_about(round_, out.numel()):
            raise SwarmError("sent parts that do not make up the vector", field=peer)
        terms, values_in = header.terms, [0] * len(header.terms.members)
        for part, digest in zip(terms.parts, header.decision.manifest, strict=True):
            if digest is None:
                out[part.start : part.stop] = 0.0
                continue
            message = await anext(messages, None)
            if message is None:
                raise SwarmError(f"ended its stream before the values from {part.start} on", field=peer)
            if digest_of(message.value) != digest:
                raise SwarmError(f"sent other values from {part.start} on than its manifest names", field=peer)
            out[part.start : part.stop] = codec.decode(encoded_of(terms, message.value), part.numel)
            for member, present in enumerate(is_in(terms, message.value)):
                values_in[member] += part.numel * present
    return FetchedRound(header, tuple(values_in))
