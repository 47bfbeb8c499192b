"""Reductions are repeated and compared: honest ones hold, each kind of lie is proved, and nobody honest can be framed.

Peers with real keys average over streams joined in memory, and a third party gets nothing but the evidence as JSON.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import pytest
import torch
from hivemind.proto.averaging_pb2 import AveragingData
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cotrain.errors import SwarmError
from cotrain.swarm.all_reduce import Exchange, Replies, Residuals
from cotrain.swarm.audit import Witness, decided_part, same_part_before, two_averages, with_following
from cotrain.swarm.audit_service import InputsRequest, check_drawn, collect_inputs, pieces_of
from cotrain.swarm.claims import Claim, Input, is_claim_of_reducer, make_claim, seal, unseal
from cotrain.swarm.draw import Audit, draw_audits
from cotrain.swarm.evidence import (
    Evidence,
    EvidenceError,
    FalsePart,
    Material,
    TwoAverages,
    TwoVotes,
    accuse,
    find_fault,
    verify,
)
from cotrain.swarm.evidence import (
    Testimony as WitnessTestimony,
)
from cotrain.swarm.feedback import ErrorFeedback
from cotrain.swarm.groups import DecidedRound
from cotrain.swarm.notary import Notary, PartInputs, float32_bytes
from cotrain.swarm.parts import PartLedger
from cotrain.swarm.terms import GroupTerms
from cotrain.swarm.votes import Decision, Electorate, decision_of, manifest_hash
from cotrain.train.codec import BLOCK, make_codec
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
        self.feedback = {number: ErrorFeedback([NUMEL] * self.fragments) for number in range(self.count)}
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
        self, *, lies: dict[int, Lie] | None = None, residuals: dict[int, Tensor] | None = None, keep: bool = True
    ) -> Closed:
        """Average a random vector of each. `lies`: what a reducer signs for instead; `residuals`: what it starts from.

        With `keep` false the group does not decide.
        """
        terms, exchanges, notaries = self.terms(), {}, {}
        for number, name in enumerate(self.names):
            mine = [part for part in terms.parts if part.reducer == name]
            residual = self.feedback[number].for_round(self.round, mine)
            if residuals and number in residuals:
                residual.average.copy_(residuals[number])
            lie = (lies or {}).get(number)
            exchanges[name], notaries[name] = self._member(number, terms, residual, lie, exchanges)
        asyncio.run(_run_all(list(exchanges.values())))
        manifest = exchanges[self.names[0]].ledger.manifest
        electorate = Electorate.of(terms)
        voters = [number for number, name in enumerate(self.names) if name in terms.reducers]
        votes = [electorate.vote(signer(number), "report", 0, manifest_hash(manifest)) for number in voters]
        ledger = exchanges[self.names[0]].ledger
        if keep:
            for number, name in enumerate(self.names):
                mine = [part for part in terms.parts if part.reducer == name]
                self.feedback[number].keep(self.round, exchanges[name].residuals, mine)
            self.round += 1
        return Closed(DecidedRound(terms, decision_of(manifest, votes), ledger), notaries)

    def _member(
        self, number: int, terms: GroupTerms, residuals: Residuals, lie: Lie | None, exchanges: dict[str, Exchange]
    ) -> tuple[Exchange, Notary]:
        generator = torch.Generator().manual_seed(1000 * self.round + number)
        common = torch.randn(NUMEL, generator=torch.Generator().manual_seed(self.round))
        vector = common + 0.5 * torch.randn(NUMEL, generator=generator) + residuals.contribution
        kind = Notary if lie is None else LyingNotary
        notary = kind(terms, signer(number), vector=vector, residual=residuals.average.clone())
        if lie is not None:
            cast("LyingNotary", notary).lie = lie
        exchange = Exchange(
            me=signer(number).peer_id, members=terms.members, weights=[float(w) for w in terms.weights],
            parts=terms.parts, ledger=PartLedger(terms.parts), vector=vector, residuals=residuals,
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


async def _run_all(exchanges: Sequence[Exchange]) -> None:
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


# ---------------------------------------------------------------------------------------------- honest reducers
@pytest.mark.parametrize("codec", ["int4", "int8", "fp32"])
@pytest.mark.parametrize(
    ("aggregation", "fragments"), [("filter", 1), ("filter", 2), ("centered-clip", 1), ("median", 1), ("mean", 3)]
)
def test_honest_rounds_hold_to_the_last_bit_with_what_came_before_and_after(
    codec: str, aggregation: str, fragments: int
) -> None:
    peers = Peers(4, codec=codec, aggregation=aggregation, contributors=1, fragments=fragments)
    rounds = [peers.close() for _ in range(3 + fragments)]
    for number, closed in enumerate(rounds):
        is_first = number < fragments
        before = None if is_first else rounds[number - fragments]
        for index in range(len(closed.decided.terms.parts)):
            material = closed.material(index, before)
            assert find_fault(material) is None
            assert (material.previous is None) == is_first
            assert (material.residual is None) == (is_first or codec == "fp32")
            if number + fragments < len(rounds):
                followed = with_following(material, rounds[number + fragments].decided)
                assert followed is not None
                assert find_fault(followed) is None


def test_an_audit_holds_under_other_instruction_sets() -> None:
    peers = Peers(5)
    peers.close()
    before, closed = peers.close(), peers.close()
    text = closed.material(0, before).model_dump_json()
    check = (
        "import sys; from cotrain.swarm.evidence import Material, find_fault;"
        "print(find_fault(Material.model_validate_json(sys.stdin.read())))"
    )
    for capability in ("default", "avx2"):
        environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability}
        found = subprocess.run(
            [sys.executable, "-c", check], input=text, capture_output=True, text=True, check=True, env=environment
        )
        assert found.stdout.strip() == "None", capability


def test_a_group_of_other_peers_starts_the_residuals_of_its_averages_anew() -> None:
    feedback, ones = ErrorFeedback([NUMEL]), Residuals(torch.ones(NUMEL), torch.ones(NUMEL))
    small, large = Peers(2).terms().parts, Peers(3).terms().parts
    feedback.keep(4, ones, small[:1])
    assert feedback.for_round(5, small).average.sum() == small[0].numel
    assert not feedback.for_round(5, large).average.any()
    assert not feedback.for_round(6, small).average.any()
    assert feedback.for_round(6, small).contribution.all()
    feedback.forget()
    assert not feedback.for_round(5, small).contribution.any()


# ---------------------------------------------------------------------------------------------- lies are proved
def test_a_reducer_that_adds_noise_is_convicted_by_its_own_signature() -> None:
    closed = Peers(4).close(lies={2: noisy()})
    for number in range(4):
        material = closed.material(part_of(closed, number))
        assert find_fault(material) == ("wrong average" if number == 2 else None)
    body = FalsePart(fault="wrong average", material=closed.material(part_of(closed, 2)))
    evidence = as_a_third_party(accuse(body, signer(0), now=NOW))
    assert evidence.accused == signer(2).peer_id
    assert verify(evidence) == "proof"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 200), st.integers(0, 7))
def test_one_changed_bit_of_an_average_is_enough(from_the_end: int, bit: int) -> None:
    def flip(encoded: bytes) -> bytes:
        at = len(encoded) - from_the_end  # in the payload: a changed scale may not be finite
        return encoded[:at] + bytes([encoded[at] ^ 1 << bit]) + encoded[at + 1 :]

    closed = Peers(3).close(lies={1: flip})
    assert find_fault(closed.material(part_of(closed, 1))) == "wrong average"


def test_a_contribution_that_a_reducer_makes_up_convicts_it_by_its_claim_alone() -> None:
    closed = Peers(3).close()
    index, terms = part_of(closed, 1), closed.decided.terms
    victim = terms.members.index(signer(0).peer_id)
    encoded, claim = unseal(terms, index, cast("bytes", closed.decided.sealed(index)))
    real = cast("Input", claim.inputs[victim])
    for made_up in (
        Input(digest="b" * 64, signature=real.signature),
        Input(digest=real.digest, signature="c" * 128),
        Input(digest=real.digest, signature=None),
    ):
        inputs = [made_up if n == victim else row for n, row in enumerate(claim.inputs)]
        lie = make_claim(terms, index, encoded, inputs, claim.residual, signer(1))
        part = cast("Any", decided_part(closed.decided, index)).model_copy(update={"claim": lie})
        evidence = accuse(FalsePart(fault="forged input", material=Material(part=part)), signer(0), now=NOW)
        assert verify(as_a_third_party(evidence)) == "proof"


def test_a_residual_out_of_nothing_is_impossible_and_a_small_lie_about_it_breaks_the_chain() -> None:
    peers = Peers(3)
    first = peers.close()
    honest = peers.feedback[1].for_round(1, peers.terms().parts).average
    big = peers_with(peers, honest + 1.0)
    assert find_fault(big.material(part_of(big, 1), first)) == "impossible residual"

    small = peers_with(peers, honest * 0.9)  # encodes as before: only who audited the round before can tell
    material = small.material(part_of(small, 1), first)
    assert find_fault(material) is None
    followed = with_following(first.material(part_of(first, 1)), small.decided)
    assert followed is not None
    assert find_fault(followed) == "broken residual"
    for fault, shown in (
        ("impossible residual", big.material(part_of(big, 1), first)),
        ("broken residual", followed),
    ):
        evidence = accuse(FalsePart.model_validate({"fault": fault, "material": shown}), signer(0), now=NOW)
        assert verify(as_a_third_party(evidence)) == "proof"


def peers_with(peers: Peers, residual: Tensor) -> Closed:
    """The next round, in which p1 starts from this residual; nobody keeps anything of it."""
    return peers.close(residuals={1: residual}, keep=False)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.floats(0.0, 2.0), st.integers(0, 2**32))
def test_a_lie_about_a_residual_that_nobody_audited_is_below_half_a_level(size: float, seed: int) -> None:
    peers = Peers(2)
    first = peers.close()
    index = part_of(first, 1)
    bounds, part = first.decided.terms.parts[index], decided_part(first.decided, index)
    assert part is not None
    scales = np.frombuffer(part.average, "<u2", -(-bounds.numel // BLOCK)).astype(np.int32) << 16
    levels = torch.from_numpy(scales.view(np.float32)).repeat_interleave(BLOCK)[: bounds.numel]
    lie = torch.zeros(NUMEL)
    signs = torch.randn(bounds.numel, generator=torch.Generator().manual_seed(seed)).sign()
    lie[bounds.start : bounds.stop] = size * levels * signs
    closed = peers_with(peers, lie)
    if find_fault(closed.material(part_of(closed, 1), first)) is None:
        assert size <= 0.5


def test_two_averages_of_one_part_convict_their_reducer() -> None:
    closed = Peers(3).close()
    index, terms = part_of(closed, 1), closed.decided.terms
    encoded, claim = unseal(terms, index, cast("bytes", closed.decided.sealed(index)))
    other = noisy()(encoded)
    second = make_claim(terms, index, other, claim.inputs, claim.residual, signer(1))
    assert two_averages(closed.decided) == []
    closed.decided.ledger.put(index, seal(other, second))
    (found,) = two_averages(closed.decided)
    evidence = as_a_third_party(accuse(found, signer(2), now=NOW))
    assert (evidence.accused, verify(evidence)) == (signer(1).peer_id, "proof")
    same = TwoAverages(terms=terms, claims=(claim, claim))
    with pytest.raises(EvidenceError, match="are one"):
        verify(accuse(same, signer(2), now=NOW))


def test_two_votes_that_contradict_convict_their_voter() -> None:
    terms = Peers(3).terms()
    electorate = Electorate.of(terms)
    words = tuple(electorate.vote(signer(1), "accept", 0, digest * 64) for digest in "ab")
    body = TwoVotes.model_validate({"terms": terms, "words": words})
    evidence = as_a_third_party(accuse(body, signer(0), now=NOW))
    assert (evidence.accused, verify(evidence)) == (signer(1).peer_id, "proof")
    framed = words[1].model_copy(update={"voter": signer(2).peer_id})
    for pair in ((words[0], words[0]), (words[0], framed), (framed, framed)):
        with pytest.raises(EvidenceError):
            verify(accuse(TwoVotes(terms=terms, words=pair), signer(0), now=NOW))


# ---------------------------------------------------------------------------------------------- nobody is framed
def test_a_lying_witness_convinces_nobody() -> None:
    peers = Peers(4)
    closed = peers.close()
    index = part_of(closed, 1)
    true = closed.material(index)
    sender = signer(0).peer_id
    changed = dict(true.contributions) | {sender: bytes(len(true.contributions[sender]))}
    less = {member: content for member, content in true.contributions.items() if member != sender}
    part = true.part
    weights = part.terms.model_copy(update={"weights": (1, 8, 8, 8)})
    weights = GroupTerms.model_validate(weights.model_dump())
    framing = [
        true,
        true.model_copy(update={"contributions": changed}),
        true.model_copy(update={"contributions": less}),
        true.model_copy(update={"residual": bytes(4 * part.terms.parts[index].numel)}),
        true.model_copy(update={"part": part.model_copy(update={"average": noisy()(part.average)})}),
        true.model_copy(update={"part": part.model_copy(update={"terms": weights})}),
    ]
    for material in framing:
        with pytest.raises(EvidenceError):
            verify(accuse(FalsePart(fault="wrong average", material=material), signer(3), now=NOW))


def test_evidence_is_its_witnesss_and_accuses_who_signed() -> None:
    closed = Peers(3).close(lies={2: noisy()})
    body = FalsePart(fault="wrong average", material=closed.material(part_of(closed, 2)))
    evidence = accuse(body, signer(0), now=NOW)
    for change, why in [
        ({"witness": signer(1).peer_id}, "not signed by its witness"),
        ({"found_at": 5}, "not signed by its witness"),
        ({"accused": signer(1).peer_id}, "not signed by its witness"),
        ({"body": body.model_copy(update={"fault": "forged input"})}, "not signed by its witness"),
    ]:
        with pytest.raises(EvidenceError, match=why):
            verify(evidence.model_copy(update=change))
    other_fault = accuse(body.model_copy(update={"fault": "broken residual"}), signer(0), now=NOW)
    with pytest.raises(EvidenceError, match="shows no broken residual"):
        verify(other_fault)


def test_a_try_of_the_same_round_that_was_not_decided_frames_nobody() -> None:
    """What an encoding lost in it was thrown away: its claims say nothing about the next round."""
    peers = Peers(3)
    peers.group = "cd"
    failed = peers.close(residuals={1: torch.full((NUMEL,), 0.3)}, keep=False)  # p1 makes another average there
    peers.group = "ab"
    peers.close()
    later = peers.close()
    framing = with_following(failed.material(part_of(failed, 1)), later.decided)
    assert framing is not None
    assert find_fault(framing) == "broken residual", "had it been decided, this would be a fault"
    manifest = framing.part.decision.manifest
    alone = Electorate.of(failed.decided.terms).vote(signer(0), "accept", 0, manifest_hash(manifest))
    for signatures in ({}, {alone.voter: alone.signature}):
        decision = framing.part.decision.model_copy(update={"op": "accept", "signatures": signatures})
        shown = framing.model_copy(update={"part": framing.part.model_copy(update={"decision": decision})})
        with pytest.raises(EvidenceError, match="was not decided"):
            verify(accuse(FalsePart(fault="broken residual", material=shown), signer(0), now=NOW))


def test_rounds_that_do_not_follow_each_other_show_nothing() -> None:
    peers = Peers(3)
    rounds = [peers.close() for _ in range(3)]
    part = decided_part(rounds[2].decided, part_of(rounds[2], 1))
    assert part is not None
    assert same_part_before(part, rounds[0].decided) is None
    assert with_following(rounds[0].material(0), rounds[2].decided) is None
    old = decided_part(rounds[0].decided, part_of(rounds[0], 1))
    material = rounds[2].material(part_of(rounds[2], 1)).model_copy(update={"previous": old})
    with pytest.raises(SwarmError, match="do not follow each other"):
        find_fault(material)


# ---------------------------------------------------------------------------------------------- who audits whom
def many_decisions(terms: GroupTerms, count: int) -> list[Decision]:
    """Decisions about manifests that differ in one digest."""
    electorate = Electorate.of(terms)
    found = []
    for number in range(count):
        manifest = (f"{number:064x}", *("e" * 64 for _ in terms.parts[1:]))
        voters = [n for n in range(8) if signer(n).peer_id in terms.reducers]
        votes = [electorate.vote(signer(n), "report", 0, manifest_hash(manifest)) for n in voters]
        found.append(decision_of(manifest, votes))
    return found


def test_every_reducer_is_audited_as_often_and_by_everybody_but_itself() -> None:
    terms = Peers(4, contributors=1).terms()
    audits = [audit for decision in many_decisions(terms, 600) for audit in draw_audits(terms, decision)]
    assert 500 < len(audits) < 700  # one a round on average
    assert all(audit.witness != audit.reducer for audit in audits)
    assert all(terms.parts[audit.part].reducer == audit.reducer for audit in audits)
    pairs = Counter((audit.reducer, audit.witness) for audit in audits)
    assert len(pairs) == 3 * 3
    assert min(pairs.values()) > 30


def test_as_many_are_audited_as_wanted_and_parts_that_count_as_zero_are_not() -> None:
    terms = Peers(5).terms()
    for decision in many_decisions(terms, 20):
        assert [audit.reducer for audit in draw_audits(terms, decision, per_round=5.0)] == list(terms.reducers)
        assert draw_audits(terms, decision, per_round=0.0) == []
        none = decision.model_copy(update={"manifest": [None] * len(terms.parts)})
        assert draw_audits(terms, none, per_round=100.0) == []
    assert draw_audits(Peers(1).terms(), many_decisions(Peers(1).terms(), 1)[0], 100.0) == []


def test_a_reducer_cannot_change_its_own_draw_by_signing_otherwise() -> None:
    terms = Peers(3).terms()
    me = signer(0).peer_id
    changed = 0
    for decision in many_decisions(terms, 30):
        other = decision.model_copy(update={"signatures": {**decision.signatures, me: "0" * 128}})
        before, after = draw_audits(terms, decision, 3.0), draw_audits(terms, other, 3.0)
        assert [a for a in before if a.reducer == me] == [a for a in after if a.reducer == me]
        changed += before != after
    assert changed > 5  # as for the others: their draws hang on it


# ---------------------------------------------------------------------------------------------- inputs on the wire
def drawn(closed: Closed) -> Audit:
    """One of the audits of a round in which every reducer is audited."""
    return draw_audits(closed.decided.terms, closed.decided.decision, per_round=100.0)[0]


def test_only_the_witness_that_was_drawn_gets_inputs_and_only_with_the_decision() -> None:
    closed = Peers(4).close()
    terms, decision, audit = closed.decided.terms, closed.decided.decision, drawn(closed)
    asked = InputsRequest(group=terms.group, part=audit.part, decision=decision)
    check_drawn(terms, asked, audit.witness, 100.0)
    others = [member for member in terms.members if member != audit.witness]
    for other in others:
        with pytest.raises(SwarmError, match="was not drawn"):
            check_drawn(terms, asked, other, 100.0)
    forged = decision.model_copy(update={"manifest": [*decision.manifest[:-1], "f" * 64]})
    for change, why in [({"decision": forged}, "0 of 4 signatures hold"), ({"part": 99}, "there are not")]:
        with pytest.raises(SwarmError, match=why):
            check_drawn(terms, asked.model_copy(update=change), audit.witness, 100.0)


async def _as_stream(pieces: Sequence[tuple[int, bytes]]) -> AsyncIterator[tuple[int, bytes]]:
    for piece in pieces:
        yield piece


def collected(pieces: Sequence[tuple[int, bytes]], closed: Closed, index: int) -> PartInputs:
    part = decided_part(closed.decided, index)
    assert part is not None
    return asyncio.run(collect_inputs(_as_stream(pieces), part.terms, part.claim))


def test_inputs_arrive_in_pieces_and_no_more_than_the_claim_names() -> None:
    peers = Peers(3)
    peers.close()
    closed = peers.close()
    inputs = closed.notaries[closed.decided.terms.parts[1].reducer].inputs_of(1)
    pieces = list(pieces_of(inputs, closed.decided.terms.members))
    assert collected(pieces, closed, 1) == inputs
    assert inputs.residual is not None
    halves = [(n, part) for n, content in pieces for part in (content[:7], content[7:])]
    assert collected(halves, closed, 1) == inputs
    for bad in (
        pieces[:-1],
        [*pieces[:-1], (0, b"x")],
        [(7, b"x"), *pieces],
        [(0, pieces[0][1] + b"x")],
        [(0, b"")],
        [],
    ):
        with pytest.raises(SwarmError, match="hands out what it did not sign for"):
            collected(bad, closed, 1)


# ---------------------------------------------------------------------------------------------- claims
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.binary(max_size=300), st.lists(st.booleans(), min_size=3, max_size=3), st.booleans())
def test_a_sealed_average_is_read_as_it_was_signed(encoded: bytes, present: list[bool], has_residual: bool) -> None:
    terms = Peers(3).terms()
    number = next(n for n in range(3) if signer(n).peer_id == terms.parts[0].reducer)
    rows = [Input(digest=f"{n + 1:064x}", signature="ab" * 64) if there else None for n, there in enumerate(present)]
    claim = make_claim(terms, 0, encoded, rows, "d" * 64 if has_residual else None, signer(number))
    assert unseal(terms, 0, seal(encoded, claim)) == (encoded, claim)
    assert is_claim_of_reducer(terms, claim)
    for change in ({"part": 1}, {"average": "0" * 64}, {"inputs": tuple(rows[:2])}, {"residual": "e" * 64}):
        assert not is_claim_of_reducer(terms, claim.model_copy(update=change))
    with pytest.raises(ValueError, match="too short"):
        unseal(terms, 0, seal(b"", claim)[1:])


def test_a_contribution_counts_for_its_sender_part_and_group_only() -> None:
    terms, zeros = Peers(3).terms(), torch.zeros(NUMEL)
    sender = Notary(terms, signer(0), vector=zeros, residual=zeros)
    reducer = Notary(terms, signer(1), vector=zeros, residual=zeros)
    signed = sender.sign(1, b"values")
    assert reducer.genuine(1, signer(0).peer_id, signed) == b"values"
    elsewhere = Notary(
        GroupTerms.model_validate(terms.model_dump() | {"session": "x"}), signer(1), vector=zeros, residual=zeros
    )
    for notary, part, member, sent in [
        (reducer, 1, signer(2).peer_id, signed),
        (reducer, 0, signer(0).peer_id, signed),
        (reducer, 1, signer(0).peer_id, b"Values" + signed[6:]),
        (reducer, 1, signer(0).peer_id, b""),
        (elsewhere, 1, signer(0).peer_id, signed),
    ]:
        with pytest.raises(ValueError, match="not signed by its sender"):
            notary.genuine(part, member, sent)


def test_an_unsigned_average_is_not_believed_and_its_reducer_is_a_suspect() -> None:
    peers, closed = Peers(3), None

    class Unsigned(LyingNotary):
        def seal(self, index: int, encoded: bytes) -> bytes:
            return Notary.seal(self, index, encoded)[:-1] + b"x"

    terms, exchanges = peers.terms(), {}
    for number, name in enumerate(peers.names):
        residuals = Residuals.zeros(NUMEL)
        exchanges[name], notary = peers._member(number, terms, residuals, None, exchanges)
        if number == 1:
            notary.__class__ = Unsigned
    asyncio.run(_run_all(list(exchanges.values())))
    assert closed is None
    liar = signer(1).peer_id
    for name in (signer(0).peer_id, signer(2).peer_id):
        assert liar in exchanges[name].suspects
        missing = [terms.parts[i].reducer for i, d in enumerate(exchanges[name].ledger.manifest) if d is None]
        assert missing == [liar]


def test_terms_that_do_not_fit_together_are_refused() -> None:
    whole = Peers(2).terms().model_dump()
    for change in (
        {"weights": (8,)},
        {"steps": (4, 4, 4)},
        {"members": (whole["members"][0],) * 2},
        {"reducers": (signer(5).peer_id,)},
        {"reducers": ()},
        {"reducers": whole["members"][:1]},
        {"shares": (1,)},
        {"shares": (0, 0)},
        {"shares": (2, -1)},
        {"codec": "int2"},
    ):
        with pytest.raises(ValueError, match=r"validation error"):
            GroupTerms.model_validate(whole | change)


# ---------------------------------------------------------------------------------------------- the witness
def looked_at(
    closed: Closed, before: Closed | None = None, *, fetch: Any = None, witness: Witness | None = None
) -> tuple[list[Evidence], Witness]:
    """What the drawn witness finds; it fetches from the reducers' notaries."""

    async def from_notary(terms: GroupTerms, claim: Claim, decision: Decision) -> PartInputs:
        return closed.notaries[terms.parts[claim.part].reducer].inputs_of(claim.part)

    number = next(n for n in range(8) if signer(n).peer_id == drawn(closed).witness)
    chosen = witness or Witness(signer(number), fetch or from_notary, per_round=100.0)
    chosen._fetch = fetch or from_notary
    return asyncio.run(chosen.look_at(closed.decided, None if before is None else before.decided)), chosen


@pytest.mark.parametrize("fragments", [1, 2])
def test_the_witness_finds_nothing_wrong_with_honest_rounds(fragments: int) -> None:
    peers, rounds = Peers(4, fragments=fragments), list[Closed]()
    for number in range(6):
        rounds.append(peers.close())
        before = rounds[number - fragments] if number >= fragments else None
        assert looked_at(rounds[number], before)[0] == []


def test_one_witness_follows_each_fragment_by_itself() -> None:
    peers, rounds = Peers(4, fragments=2), list[Closed]()
    chosen, kept = None, 0
    for number in range(8):
        rounds.append(peers.close())
        before = rounds[number - 2] if number >= 2 else None
        found, chosen = looked_at(rounds[number], before, witness=chosen)
        assert found == []
        kept = max(kept, len(chosen._audited))
    assert kept <= 2


def test_the_witness_convicts_the_liar_it_is_drawn_for() -> None:
    closed = Peers(4).close(lies={number: noisy() for number in range(4)})
    (evidence,), _ = looked_at(closed)
    audits = draw_audits(closed.decided.terms, closed.decided.decision, per_round=100.0)
    assert evidence.accused in [audit.reducer for audit in audits if audit.witness == evidence.witness]
    assert verify(as_a_third_party(evidence)) == "proof"


def test_a_reducer_that_hands_out_nothing_or_something_else_is_testified_against() -> None:
    closed = Peers(4).close()

    async def nothing(terms: GroupTerms, claim: Claim, decision: Decision) -> PartInputs:
        raise ConnectionError

    async def other(terms: GroupTerms, claim: Claim, decision: Decision) -> PartInputs:
        inputs = closed.notaries[terms.parts[claim.part].reducer].inputs_of(claim.part)
        return PartInputs({member: bytes(len(c)) for member, c in inputs.contributions.items()}, inputs.residual)

    for fetch, complaint in ((nothing, "no inputs"), (other, "wrong inputs")):
        (evidence,), _ = looked_at(closed, fetch=fetch)
        assert isinstance(evidence.body, WitnessTestimony)
        assert evidence.body.complaint == complaint
        assert verify(as_a_third_party(evidence)) == "testimony"


def test_a_residual_of_a_reducer_that_had_no_such_part_is_complained_of() -> None:
    others, peers = Peers(2), Peers(3)
    before = others.close()
    peers.round = others.round
    residual = 0.01 * torch.ones(NUMEL)
    closed = peers.close(residuals=dict.fromkeys(range(3), residual))
    (evidence,), _ = looked_at(closed, before)
    assert isinstance(evidence.body, WitnessTestimony)
    assert evidence.body.complaint == "unfounded residual"


def test_float32_bytes_are_little_endian() -> None:
    assert float32_bytes(torch.tensor([1.0, -2.0])) == bytes.fromhex("0000803f000000c0")
