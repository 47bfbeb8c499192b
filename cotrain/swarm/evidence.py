"""What convicts a peer, and how somebody who was not there checks it.

A proof stands on signatures of the accused alone: whoever has it repeats the check and need not believe the witness.
There are three: a reducer's part that is not what it must be (`FalsePart`), two averages of one part (`TwoAverages`),
two votes that contradict (`TwoVotes`). A testimony is a witness's word: that a reducer kept back its inputs, or handed
out others than it signed for, cannot be proved. Nor can be shown that a reducer left out a contribution that it had,
saying that it never came.

A false part is told exactly: from the contributions that their senders signed, the weights and the rule that the
reducer signed along, and the residual that it signed, the reduction gives the same bytes on every machine. Only the
residual is the reducer's own. It must be what an audit of the round before would have found, and it must leave the
decided average of the round before as it was encoded. So a reducer that lies about it, in a part that nobody audited,
moves a value by less than half a level of its codec, and must risk the next audit to do so again.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from cotrain.errors import SwarmError
from cotrain.peer_key import PeerIdText, signed_by_peer
from cotrain.swarm.aggregate import Contribution, Reduced, reduce_part
from cotrain.swarm.claims import Claim, is_claim_of_reducer, is_contribution_of, seal
from cotrain.swarm.notary import float32_view
from cotrain.swarm.parts import Part, digest_of
from cotrain.swarm.terms import GroupTerms, Signature, Statement
from cotrain.swarm.votes import Decision, Electorate, ForgedVoteError, Promise, SignedVote, Signer, contradict
from cotrain.train.codec import make_codec

PURPOSE = "evidence"
Verdict = Literal["proof", "testimony"]
Fault = Literal["forged input", "wrong average", "impossible residual", "broken residual"]
Complaint = Literal["no inputs", "wrong inputs", "unfounded residual"]


class EvidenceError(SwarmError):
    """What is shown does not bear out the accusation."""


class _WithBytes(Statement):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class DecidedPart(_WithBytes):
    """An average that a reducer signed for and its group decided on."""

    terms: GroupTerms
    claim: Claim
    average: bytes
    """As it was encoded."""
    decision: Decision


class FollowingClaim(Statement):
    """What the same reducer signed for the same part in the next round that averaged it."""

    terms: GroupTerms
    claim: Claim


class Material(_WithBytes):
    """A part, and what its reducer made it of. The size is that of its contributions, at most some megabytes."""

    part: DecidedPart
    contributions: dict[PeerIdText, bytes] = Field(default_factory=dict)
    """By member: encoded; the reducer's own as little-endian float32. Not needed to show a forged input."""
    residual: bytes | None = None
    """Little-endian float32; None for zeros."""
    previous: DecidedPart | None = None
    following: FollowingClaim | None = None


class FalsePart(Statement):
    """A reducer signed for an average that its inputs do not give."""

    kind: Literal["false-part"] = "false-part"
    fault: Fault
    material: Material


class TwoAverages(Statement):
    """A reducer signed for two averages of one part."""

    kind: Literal["two-averages"] = "two-averages"
    terms: GroupTerms
    claims: tuple[Claim, Claim]


class TwoVotes(Statement):
    """A voter signed what contradicts."""

    kind: Literal["two-votes"] = "two-votes"
    terms: GroupTerms
    words: tuple[SignedVote | Promise, SignedVote | Promise]


class Testimony(Statement):
    """A witness says of a reducer what it cannot prove."""

    kind: Literal["testimony"] = "testimony"
    terms: GroupTerms
    claim: Claim
    complaint: Complaint


Body = Annotated[FalsePart | TwoAverages | TwoVotes | Testimony, Field(discriminator="kind")]


class Evidence(Statement):
    """An accusation, signed by who found it."""

    accused: PeerIdText
    witness: PeerIdText
    found_at: Annotated[int, Field(ge=0, le=2**40)]
    """Unix time."""
    body: Body
    signature: Signature

    def __str__(self) -> str:
        what: str = self.body.kind
        if isinstance(self.body, FalsePart):
            what = f"{what}, {self.body.fault}"
        elif isinstance(self.body, Testimony):
            what = f"{what}, {self.body.complaint}"
        return f"evidence against {self.accused}: {what}"


def accuse(body: Body, signer: Signer, *, now: float) -> Evidence:
    """Sign an accusation. `now`: Unix time."""
    accused, found_at = accused_by(body), int(now)
    content = _content(accused, signer.peer_id, found_at, body)
    signature = signer.sign(PURPOSE, content).hex()
    return Evidence(accused=accused, witness=signer.peer_id, found_at=found_at, body=body, signature=signature)


def accused_by(body: Body) -> str:
    """The peer whose signatures it stands on."""
    if isinstance(body, TwoVotes):
        return body.words[0].voter
    if isinstance(body, FalsePart):
        return _bounds(body.material.part.terms, body.material.part.claim).reducer
    claim = body.claim if isinstance(body, Testimony) else body.claims[0]
    return _bounds(body.terms, claim).reducer


def verify(evidence: Evidence) -> Verdict:
    """What the evidence is worth to somebody who knows neither witness nor accused. Raises EvidenceError.

    Pure. Who the peers are, and whether they belonged to the session at that time, is for the caller to know.
    """
    body = evidence.body
    content = _content(evidence.accused, evidence.witness, evidence.found_at, body)
    if not signed_by_peer(evidence.witness, PURPOSE, content, bytes.fromhex(evidence.signature)):
        raise EvidenceError("is not signed by its witness", field=evidence.witness)
    if accused_by(body) != evidence.accused:
        raise EvidenceError("accuses another peer than it shows signatures of", field=evidence.accused)
    if isinstance(body, FalsePart):
        if find_fault(body.material) != body.fault:
            raise EvidenceError(f"shows no {body.fault}", field=evidence.accused)
        return "proof"
    if isinstance(body, TwoVotes):
        _check_votes(body)
        return "proof"
    if isinstance(body, TwoAverages):
        _check_averages(body)
        return "proof"
    if not is_claim_of_reducer(body.terms, body.claim):
        raise EvidenceError("the accused has not signed for this part", field=evidence.accused)
    return "testimony"


def _check_votes(body: TwoVotes) -> None:
    electorate = Electorate.of(body.terms)
    for word in body.words:
        if not (electorate.has_voted(word) if isinstance(word, SignedVote) else electorate.has_promised(word)):
            raise EvidenceError("a vote is not the accused one's", field=word.voter)
    if not contradict(*body.words):
        raise EvidenceError("an honest voter may sign both", field=body.words[0].voter)


def _check_averages(body: TwoAverages) -> None:
    first, second = body.claims
    if first.part != second.part or not all(is_claim_of_reducer(body.terms, claim) for claim in body.claims):
        raise EvidenceError("these are not two claims of one reducer about one part")
    if first == second:
        raise EvidenceError("the two claims are one")


# ---------------------------------------------------------------------------------------------- a part
def find_fault(material: Material) -> Fault | None:
    """What is wrong with a part; None if it is what it must be.

    Raises EvidenceError if what is shown is not what the reducer signed for.
    """
    part = material.part
    if not is_claim_of_reducer(part.terms, part.claim) or digest_of(part.average) != part.claim.average:
        raise EvidenceError("its reducer has not signed for this average")
    if has_forged_input(part.terms, part.claim):
        return "forged input"
    _check_inputs(material)
    reduced = _repeat(material)
    if reduced is None or reduced.encoded != part.average:
        return "wrong average"
    if material.previous is not None and _is_impossible(material, material.previous):
        return "impossible residual"
    if material.following is not None and _is_broken(material, material.following, reduced.lost):
        return "broken residual"
    return None


def has_forged_input(terms: GroupTerms, claim: Claim) -> bool:
    """Whether a claim names a contribution that the member has not signed for."""
    reducer = _bounds(terms, claim).reducer
    return not all(
        found is None
        or member == reducer
        or (
            found.signature is not None
            and is_contribution_of(terms, claim.part, member, found.digest, bytes.fromhex(found.signature))
        )
        for member, found in zip(terms.members, claim.inputs, strict=True)
    )


def _check_inputs(material: Material) -> None:
    claim = material.part.claim
    named = {m: found.digest for m, found in zip(material.part.terms.members, claim.inputs, strict=True) if found}
    shown = {member: digest_of(content) for member, content in material.contributions.items()}
    residual = None if material.residual is None else digest_of(material.residual)
    if shown != named or residual != claim.residual:
        raise EvidenceError("shows other inputs than the reducer signed for")


def _repeat(material: Material) -> Reduced | None:
    """The reduction once more; None if these inputs give no average."""
    terms, codec = material.part.terms, make_codec(material.part.terms.codec)
    part = _bounds(terms, material.part.claim)
    contributions = []
    for member, weight, steps in zip(terms.members, terms.weights, terms.steps, strict=True):
        if member not in material.contributions:
            continue
        content = material.contributions[member]
        try:
            values = _float32(content, part.numel) if member == part.reducer else codec.decode(content, part.numel)
        except ValueError:
            continue  # the reducer could not use it either
        if bool(torch.isfinite(values).all()):
            contributions.append(Contribution(member, values, float(weight), steps))
    try:
        return reduce_part(terms.aggregation, contributions, part.numel, _residual(material, part.numel), codec)
    except (SwarmError, ValueError):
        return None


def _is_impossible(material: Material, previous: DecidedPart) -> bool:
    """Whether the residual would have changed how the average of the round before was encoded."""
    _check_follows(previous, material.part.terms, material.part.claim)
    codec, numel = make_codec(previous.terms.codec), _bounds(previous.terms, previous.claim).numel
    residual = _residual(material, numel)
    if residual is None:
        return False
    try:
        average = codec.decode(previous.average, numel).add_(residual)
        return codec.encode(average) != previous.average
    except ValueError as error:
        raise EvidenceError(f"the average of the round before cannot be read: {error}") from error


def _is_broken(material: Material, following: FollowingClaim, lost: Tensor | None) -> bool:
    """Whether the next residual is neither zero nor what this encoding lost."""
    _check_follows(material.part, following.terms, following.claim)
    return following.claim.residual not in (None, None if lost is None else digest_of(float32_view(lost)))


def _check_follows(part: DecidedPart, terms: GroupTerms, claim: Claim) -> None:
    """Raises EvidenceError unless the claim is the same reducer's about the same part, in the next round of it."""
    if not is_claim_of_reducer(terms, claim) or not is_claim_of_reducer(part.terms, part.claim):
        raise EvidenceError("a neighbouring round's claim is not signed by its reducer")
    if not part.terms.is_followed_by(terms) or _bounds(part.terms, part.claim) != _bounds(terms, claim):
        raise EvidenceError("the rounds shown do not follow each other")
    # a round may have been tried before, without a decision: what it lost is then thrown away
    try:
        Electorate.of(part.terms).check_decision(part.decision)
    except ForgedVoteError as error:
        raise EvidenceError(f"the round before was not decided: {error}") from error
    sealed = digest_of(seal(part.average, part.claim))
    if len(part.decision.manifest) != len(part.terms.parts) or part.decision.manifest[part.claim.part] != sealed:
        raise EvidenceError("the group decided on another average")


def _bounds(terms: GroupTerms, claim: Claim) -> Part:
    if claim.part >= len(terms.parts):
        raise EvidenceError(f"there is no part {claim.part}")
    return terms.parts[claim.part]


def _residual(material: Material, numel: int) -> Tensor | None:
    return None if material.residual is None else _float32(material.residual, numel)


def _float32(content: bytes, numel: int) -> Tensor:
    if len(content) != 4 * numel:
        raise ValueError(f"{numel} values have {4 * numel} bytes, not {len(content)}")
    return torch.from_numpy(np.frombuffer(content, "<f4").astype(np.float32))


def _content(accused: str, witness: str, found_at: int, body: Body) -> bytes:
    text = json.dumps([accused, witness, found_at, body.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(text.encode()).digest()
