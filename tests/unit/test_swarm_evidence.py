"""Evidence: what a reducer or voter signed convicts it before a stranger, and nobody who is honest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cotrain.errors import SwarmError
from cotrain.swarm.all_reduce import Residuals
from cotrain.swarm.audit import decided_part, same_part_before, two_averages, with_following
from cotrain.swarm.claims import Input, make_claim, seal, unseal
from cotrain.swarm.evidence import (
    EvidenceError,
    FalsePart,
    Material,
    TwoAverages,
    TwoVotes,
    accuse,
    find_fault,
    verify,
)
from cotrain.swarm.feedback import ErrorFeedback
from cotrain.swarm.parts import Part
from cotrain.swarm.terms import GroupTerms
from cotrain.swarm.votes import Electorate, manifest_hash
from cotrain.train.codec import BLOCK
from tests.swarm_signers import signer
from tests.unit.audited_peers import NOW, NUMEL, Closed, Peers, as_a_third_party, noisy, part_of


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
    feedback, nothing = ErrorFeedback(1), torch.zeros(NUMEL)
    small, large = Peers(2).terms().parts, Peers(3).terms().parts
    ones = {part: torch.ones(part.numel) for part in small}
    feedback.keep(4, Residuals(ones, ones), small[:1])
    assert feedback.of_averages(5, small) == {small[0]: ones[small[0]]}
    assert feedback.of_averages(5, large) == {}
    assert feedback.of_averages(6, small) == {}
    assert feedback.with_lost(6, nothing).all()
    assert not nothing.any()
    feedback.forget()
    assert not feedback.with_lost(5, nothing).any()


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


@settings(max_examples=40, derandomize=True)
@given(st.integers(1, BLOCK // 2), st.integers(0, 7))
def test_one_changed_bit_of_an_average_is_enough(from_the_end: int, bit: int) -> None:
    def flip(encoded: bytes) -> bytes:
        at = len(encoded) - from_the_end  # in the last block, as a changed scale may not be finite
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
    honest = peers.feedback[1].of_averages(1, peers.terms().parts)
    big = peers_with(peers, {part: lost + 1.0 for part, lost in honest.items()})
    assert find_fault(big.material(part_of(big, 1), first)) == "impossible residual"

    # encodes as before: only who audited the round before can tell
    small = peers_with(peers, {part: lost * 0.9 for part, lost in honest.items()})
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


def peers_with(peers: Peers, added: Mapping[Part, Tensor]) -> Closed:
    """The next round, in which p1 adds this to its averages; nobody keeps anything of it."""
    return peers.close(instead={1: added}, keep=False)


@settings(max_examples=30, derandomize=True)
@given(st.floats(0.0, 2.0), st.integers(0, 2**32))
def test_a_lie_about_a_residual_that_nobody_audited_is_below_half_a_level(size: float, seed: int) -> None:
    peers = Peers(2)
    first = peers.close()
    index = part_of(first, 1)
    bounds, part = first.decided.terms.parts[index], decided_part(first.decided, index)
    assert part is not None
    scales = np.frombuffer(part.average, "<u2", -(-bounds.numel // BLOCK)).astype(np.int32) << 16
    levels = torch.from_numpy(scales.view(np.float32)).repeat_interleave(BLOCK)[: bounds.numel]
    signs = torch.randn(bounds.numel, generator=torch.Generator().manual_seed(seed)).sign()
    closed = peers_with(peers, {bounds: size * levels * signs})
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
    other = {part: torch.full((part.numel,), 0.3) for part in peers.terms().parts}
    failed = peers.close(instead={1: other}, keep=False)  # p1 makes another average there
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
