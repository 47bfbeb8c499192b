"""Peers of one group in memory, whose rounds can be looked at, and reducers that sign for something else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import torch
from hivemind.proto.averaging_pb2 import AveragingData
from torch import Tensor

from cotrain.swarm.all_reduce import Exchange, Replies
from cotrain.swarm.audit import decided_part, same_part_before
from cotrain.swarm.evidence import (
    Evidence,
    Material,
)
from cotrain.swarm.feedback import ErrorFeedback
from cotrain.swarm.groups import DecidedRound
from cotrain.swarm.notary import Notary
from cotrain.swarm.parts import Part, PartLedger
from cotrain.swarm.terms import GroupTerms
from cotrain.swarm.votes import Electorate, decision_of, manifest_hash
from cotrain.train.codec import make_codec
from tests.swarm_signers import signer

NUMEL = 1500
NOW = 1_800_000_000.0


# ---------------------------------------------------------------------------------------------- peers in memory
@dataclass
class Closed:
    """A round as it was decided, and the members' notaries, which hold the inputs."""

    decided: DecidedRound
    notaries: dict[str, Notary]

    def material(self, index: int, before: Closed | None = None) -> Material:
        part = decided_part(self.decided, index)
        assert part is not None
        inputs = self.notaries[self.decided.terms.parts[index].reducer].inputs_of(index)
        previous = None if before is None else same_part_before(part, before.decided)
        return Material(
            part=part, contributions=dict(inputs.contributions), residual=inputs.residual, previous=previous
        )  # fmt: skip


Lie = Callable[[bytes], bytes]


class LyingNotary(Notary):
    """Signs for another average than the one that was reduced."""

    lie: Lie

    def seal(self, index: int, encoded: bytes) -> bytes:
        return super().seal(index, self.lie(encoded))


@dataclass
class Peers:
    """Peers p0, p1, ... and what each carries from round to round. The last ones may be contributors."""

    count: int
    codec: str = "int4"
    aggregation: str = "filter"
    contributors: int = 0
    fragments: int = 1
    round: int = 0
    group: str = "ab"
    feedback: dict[int, ErrorFeedback] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.feedback = {number: ErrorFeedback(self.fragments) for number in range(self.count)}
        self.names = [signer(number).peer_id for number in range(self.count)]

    def terms(self) -> GroupTerms:
        members = tuple(sorted(self.names))
        reduces = [member in self.names[: self.count - self.contributors] for member in members]
        return GroupTerms.model_validate({
            "session": "test", "group": self.group, "round": self.round, "state": "a" * 64, "members": members,
            "weights": (8,) * self.count, "steps": (4,) * self.count, "numel": NUMEL, "codec": self.codec,
            "reducers": tuple(member for member, may in zip(members, reduces, strict=True) if may),
            "shares": tuple(map(int, reduces)), "fragments": self.fragments, "aggregation": self.aggregation,
        })  # fmt: skip

    def close(
        self,
        *,
        lies: dict[int, Lie] | None = None,
        instead: Mapping[int, Mapping[Part, Tensor]] | None = None,
        keep: bool = True,
    ) -> Closed:
        """Average a random vector of each. `lies`: what a reducer signs for instead; `instead`: what it adds.

        With `keep` false the group does not decide.
        """
        terms, exchanges, notaries = self.terms(), {}, {}
        for number, name in enumerate(self.names):
            mine = [part for part in terms.parts if part.reducer == name]
            added = self.feedback[number].of_averages(self.round, mine)
            added = (instead or {}).get(number, added)
            lie = (lies or {}).get(number)
            exchanges[name], notaries[name] = self._member(number, terms, added, lie, exchanges)
        asyncio.run(run_all(list(exchanges.values())))
        manifest = exchanges[self.names[0]].ledger.manifest
        electorate = Electorate.of(terms)
        voters = [number for number, name in enumerate(self.names) if name in terms.reducers]
        votes = [electorate.vote(signer(number), "report", 0, manifest_hash(manifest)) for number in voters]
        ledger = exchanges[self.names[0]].ledger
        if keep:
            for number, name in enumerate(self.names):
                mine = [part for part in terms.parts if part.reducer == name]
                self.feedback[number].keep(self.round, exchanges[name].take_residuals(), mine)
            self.round += 1
        return Closed(DecidedRound(terms, decision_of(manifest, votes), ledger), notaries)

    def _member(
        self,
        number: int,
        terms: GroupTerms,
        added: Mapping[Part, Tensor],
        lie: Lie | None,
        exchanges: dict[str, Exchange],
    ) -> tuple[Exchange, Notary]:
        generator = torch.Generator().manual_seed(1000 * self.round + number)
        common = torch.randn(NUMEL, generator=torch.Generator().manual_seed(self.round))
        vector = common + 0.5 * torch.randn(NUMEL, generator=generator)
        kind = Notary if lie is None else LyingNotary
        vector = self.feedback[number].with_lost(self.round, vector)
        notary = kind(terms, signer(number), vector=vector, added=added)
        if lie is not None:
            cast("LyingNotary", notary).lie = lie
        exchange = Exchange(
            me=signer(number).peer_id, members=terms.members, weights=[float(w) for w in terms.weights],
            parts=terms.parts, ledger=PartLedger(terms.parts), vector=vector, added=added,
            codec=make_codec(terms.codec), group_id=bytes.fromhex(terms.group), steps=terms.steps,
            aggregation=terms.aggregation, notary=notary,
            open_stream=partial(_open_stream, exchanges, signer(number).peer_id),
        )  # fmt: skip
        return exchange, notary


async def _open_stream(
    exchanges: dict[str, Exchange], sender: str, reducer: str, requests: AsyncIterator[AveragingData]
) -> Replies:
    served = cast("AsyncGenerator[AveragingData, None]", exchanges[reducer].serve(sender, requests))
    async with aclosing(served) as replies:
        async for message in replies:
            yield message


async def run_all(exchanges: Sequence[Exchange]) -> None:
    await asyncio.gather(*(exchange.run() for exchange in exchanges))


def noisy(terms_codec: str = "int4") -> Lie:
    """Adds a tenth of the average's own size in noise."""

    def lie(encoded: bytes) -> bytes:
        codec = make_codec(terms_codec)
        numel = max(n for n in range(1, NUMEL + 1) if codec.encoded_bytes(n) == len(encoded))
        values = codec.decode(encoded, numel)
        noise = torch.randn(numel, generator=torch.Generator().manual_seed(1))
        return codec.encode(values + 0.1 * values.std() * noise)

    return lie


def part_of(closed: Closed, number: int) -> int:
    """The number of the part that this peer reduced."""
    return [part.reducer for part in closed.decided.terms.parts].index(signer(number).peer_id)


def as_a_third_party(evidence: Evidence) -> Evidence:
    """What arrives elsewhere."""
    return Evidence.model_validate_json(evidence.model_dump_json())
