"""Who audits whom, what inputs it gets, and what a witness finds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import torch

from cotrain.errors import SwarmError
from cotrain.swarm.audit import Witness, decided_part
from cotrain.swarm.audit_service import InputsRequest, check_drawn, collect_inputs, pieces_of
from cotrain.swarm.claims import Claim
from cotrain.swarm.draw import Audit, draw_audits
from cotrain.swarm.evidence import (
    Evidence,
    verify,
)
from cotrain.swarm.evidence import (
    Testimony as WitnessTestimony,
)
from cotrain.swarm.notary import PartInputs
from cotrain.swarm.terms import GroupTerms
from cotrain.swarm.votes import Decision, Electorate, decision_of, manifest_hash
from tests.swarm_signers import signer
from tests.unit.audited_peers import Closed, Peers, as_a_third_party, noisy


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
    for bad in ([*pieces[:-1], (0, b"x")], [(7, b"x"), *pieces], [(0, pieces[0][1] + b"x")], [(0, b"")]):
        with pytest.raises(SwarmError, match="hands out what it did not sign for"):
            collected(bad, closed, 1)
    for short in (pieces[:-1], []):
        with pytest.raises(SwarmError, match="ended its stream before all inputs were there"):
            collected(short, closed, 1)


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
    added = {part: torch.full((part.numel,), 0.01) for part in peers.terms().parts}
    closed = peers.close(instead=dict.fromkeys(range(3), added))
    (evidence,), _ = looked_at(closed, before)
    assert isinstance(evidence.body, WitnessTestimony)
    assert evidence.body.complaint == "unfounded residual"
