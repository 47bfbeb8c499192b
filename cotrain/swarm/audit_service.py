"""A reducer hands the inputs of a part to the witness that was drawn for it, and to nobody else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, AsyncIterator  # noqa: UP035 - hivemind knows a stream by typing's name

from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.p2p import P2P, P2PContext, PeerID, ServicerBase
from hivemind.utils.asyncio import aiter_with_timeout
from pydantic import Field

from cotrain.errors import SwarmError
from cotrain.swarm.claims import Claim
from cotrain.swarm.draw import AUDITS_PER_ROUND, Audit, draw_audits
from cotrain.swarm.gate import Gate
from cotrain.swarm.groups import Group
from cotrain.swarm.notary import PartInputs
from cotrain.swarm.send_rate import SendRate
from cotrain.swarm.streams import await_hang_up
from cotrain.swarm.terms import GroupTerms, Statement
from cotrain.swarm.votes import Decision, Electorate
from cotrain.train.codec import make_codec

PIECE_BYTES = 2**20


class InputsRequest(Statement):
    """A witness asks for the inputs of a part, and shows the decision that drew it."""

    group: Annotated[str, Field(pattern=r"^[0-9a-f]{1,128}$")]
    part: Annotated[int, Field(ge=0, lt=2**32)]
    decision: Decision


class AuditService(ServicerBase):
    """Answers, under the session's name, what this peer's averages were made of."""

    def __init__(
        self, gate: Gate, group_of: Callable[[str, str], Awaitable[Group]], *, rate: SendRate,
        per_round: float = AUDITS_PER_ROUND,
    ) -> None:  # fmt: skip
        """`group_of(group, caller)` raises SwarmError for a group that one of them is not in."""
        self._gate, self._group_of, self._rate, self._per_round = gate, group_of, rate, per_round

    async def rpc_fetch_inputs(self, request: BytesValue, context: P2PContext) -> AsyncIterator[BytesValue]:
        """Pieces of the inputs: the member's number (4 bytes, big-endian), then bytes. A stranger gets nothing."""
        if not await self._gate.admits(context.remote_id):
            return
        caller, asked = context.remote_id.to_base58(), InputsRequest.model_validate_json(request.value)
        group = await self._group_of(asked.group, caller)
        check_drawn(group.terms, asked, caller, self._per_round)
        inputs = group.notary.inputs_of(asked.part)
        for number, piece in pieces_of(inputs, group.terms.members):
            await self._rate.take(len(piece))
            yield BytesValue(value=number.to_bytes(4, "big") + piece)
        await await_hang_up()


def check_drawn(terms: GroupTerms, asked: InputsRequest, caller: str, per_round: float) -> None:
    """Raises SwarmError unless the decision that the caller shows holds, and draws it to audit this part."""
    if len(asked.decision.manifest) != len(terms.parts) or asked.part >= len(terms.parts):
        raise SwarmError("asks about parts that there are not", field=caller)
    Electorate.of(terms).check_decision(asked.decision)
    wanted = Audit(asked.part, terms.parts[asked.part].reducer, caller)
    if wanted not in draw_audits(terms, asked.decision, per_round):
        raise SwarmError(f"was not drawn to audit part {asked.part}", field=caller)


async def fetch_inputs(
    p2p: P2P, session: str, terms: GroupTerms, claim: Claim, decision: Decision, *, timeout_s: float
) -> PartInputs:
    """Fetch from its reducer what an average was made of; `timeout_s` for each piece of at most 1 MiB.

    Raises SwarmError for more or less than the claim names.
    """
    reducer = PeerID.from_base58(terms.parts[claim.part].reducer)
    request = InputsRequest(group=terms.group, part=claim.part, decision=decision)
    stub: Any = AuditService.get_stub(p2p, reducer, namespace=session)
    async with aclosing(await stub.rpc_fetch_inputs(BytesValue(value=request.model_dump_json().encode()))) as stream:
        return await collect_inputs(_numbered(aiter_with_timeout(stream, timeout_s)), terms, claim)


async def _numbered(messages: AsyncIterator[BytesValue]) -> AsyncIterator[tuple[int, bytes]]:
    async for message in messages:
        yield int.from_bytes(message.value[:4], "big"), message.value[4:]


def pieces_of(inputs: PartInputs, members: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    """The inputs of a part in the order of the members, the residual last, in pieces of at most 1 MiB."""
    rows = [(number, inputs.contributions[member]) for number, member in enumerate(members)
            if member in inputs.contributions]  # fmt: skip
    rows += [] if inputs.residual is None else [(len(members), inputs.residual)]
    for number, content in rows:
        for start in range(0, len(content), PIECE_BYTES):
            yield number, content[start : start + PIECE_BYTES]


async def collect_inputs(pieces: AsyncIterator[tuple[int, bytes]], terms: GroupTerms, claim: Claim) -> PartInputs:
    """Put pieces together, no more than the claim names. Raises SwarmError for anything else and for less."""
    missing = _expected_bytes(terms, claim)
    found = {number: bytearray() for number in missing}
    while any(missing.values()):
        arrived = await anext(pieces, None)
        if arrived is None:
            raise SwarmError("ended its stream before all inputs were there", field=terms.parts[claim.part].reducer)
        number, piece = arrived
        if not piece or len(piece) > missing.get(number, 0):
            raise SwarmError("hands out what it did not sign for", field=terms.parts[claim.part].reducer)
        found[number] += piece
        missing[number] -= len(piece)
    residual = found.pop(len(terms.members), None)
    contributions = {terms.members[number]: bytes(content) for number, content in found.items()}
    return PartInputs(contributions, None if residual is None else bytes(residual))


def _expected_bytes(terms: GroupTerms, claim: Claim) -> dict[int, int]:
    part = terms.parts[claim.part]
    encoded, plain = make_codec(terms.codec).encoded_bytes(part.numel), 4 * part.numel
    rows = enumerate(zip(terms.members, claim.inputs, strict=True))
    expected = {n: plain if member == part.reducer else encoded for n, (member, row) in rows if row is not None}
    return expected if claim.residual is None else {**expected, len(terms.members): plain}
