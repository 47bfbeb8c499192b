"""What somebody who was not there makes of evidence: is it about this session, does it hold, and what it says. Pure.

Evidence comes from anybody who is a member, so it is bounded before it is looked at: a vector or a codec other than the
session's would make the repetition as expensive as its sender likes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from cotrain.config import RunConfig
from cotrain.errors import SwarmError
from cotrain.sections import Aggregation
from cotrain.swarm.evidence import (
    Body,
    Complaint,
    Evidence,
    EvidenceError,
    FalsePart,
    Fault,
    TwoAverages,
    TwoVotes,
    Verdict,
    verify,
)
from cotrain.swarm.evidence import Testimony as WitnessTestimony
from cotrain.swarm.parts import PART_VALUES
from cotrain.swarm.terms import CodecName, GroupTerms
from cotrain.train.codec import make_codec

FAULTS: dict[Fault, str] = {
    "wrong average": "signed for an average of part {part} that its inputs do not give",
    "forged input": "signed for a contribution to part {part} that its sender has not signed",
    "impossible residual": "added a residual to part {part} that would have changed its average of the round before",
    "broken residual": "passed on another residual than its average of part {part} left",
}
COMPLAINTS: dict[Complaint, str] = {
    "no inputs": "handed out no inputs of part {part}, or could not be reached any more",
    "wrong inputs": "handed out other inputs of part {part} than it had signed for",
    "unfounded residual": "added a residual to part {part} that no round before accounts for",
}
_MEMBER_BYTES = 4096
"""More than the JSON about one member: its places in three terms and claims, and in two decisions."""
_PART_BYTES = 256
"""More than the JSON about one part: its digests in two decisions."""
_OTHER_BYTES = 64 * 1024
_MEMBER_COMMAS, _PART_COMMAS, _OTHER_COMMAS = 64, 8, 1024


@dataclass(frozen=True)
class SessionFacts:
    """What all terms of a session have in common."""

    session: str
    fragment_sizes: tuple[int, ...]
    codec: CodecName
    aggregation: Aggregation

    @classmethod
    def of(cls, config: RunConfig, fragment_sizes: Sequence[int]) -> SessionFacts:
        return cls(config.session.id, tuple(fragment_sizes), config.diloco.codec, config.swarm.aggregation)

    def most_bytes(self, members: int) -> int:
        """Size that no evidence about a group of so many members exceeds, as JSON with base64."""
        values = min(max(self.fragment_sizes), PART_VALUES)
        encoded = make_codec(self.codec).encoded_bytes(values)
        # the contributions, this average and the one before; the reducer's own contribution and its residual
        binary = (members + 2) * encoded + 2 * 4 * values
        return binary * 4 // 3 + members * _MEMBER_BYTES + self._parts(members) * _PART_BYTES + _OTHER_BYTES

    def most_commas(self, members: int) -> int:
        """Commas that no evidence about such a group exceeds.

        While a wrong value is refused it takes up to a kilobyte of memory, and a value has two bytes.
        """
        return members * _MEMBER_COMMAS + self._parts(members) * _PART_COMMAS + _OTHER_COMMAS

    def _parts(self, members: int) -> int:
        return max(self.fragment_sizes) // PART_VALUES + members + 1


@dataclass(frozen=True)
class Judgement:
    """Evidence that holds, and what it is worth.

    Attributes:
        round: as people count, from 1.
        what: what the accused did, in words that go on from its name.
    """

    accused: str
    witness: str
    verdict: Verdict
    round: int
    what: str


def judge(content: bytes, facts: SessionFacts, *, witness: str, members: int) -> tuple[Evidence, Judgement]:
    """Read and check evidence that `witness` has handed in. Raises EvidenceError for what is to be refused.

    `members`: how many a group may have. Whether the accused belongs to the session is for the coordinator to know.
    """
    if len(content) > facts.most_bytes(members) or content.count(b",") > facts.most_commas(members):
        raise EvidenceError(f"is more than evidence about {members} members can be", field=witness)
    try:
        evidence = Evidence.model_validate_json(content)
    except ValidationError as error:
        # what was sent is not repeated: it may be megabytes
        raise EvidenceError(f"is not evidence: {error.errors(include_input=False)[0]['msg']}") from None
    if evidence.witness != witness:
        raise EvidenceError("was found by another peer than hands it in", field=evidence.witness)
    for terms in terms_of(evidence.body):
        _check_terms(terms, facts)
    body = evidence.body
    if isinstance(body, WitnessTestimony) and witness not in body.terms.members:
        raise EvidenceError("is the testimony of one who was not in the group", field=witness)
    try:
        verdict = verify(evidence)
    except EvidenceError:
        raise
    except (SwarmError, ValueError) as error:
        raise EvidenceError(f"cannot be checked: {error}", field=evidence.accused) from error
    return evidence, judgement_of(evidence, verdict)


def judgement_of(evidence: Evidence, verdict: Verdict) -> Judgement:
    """The judgement on evidence that has been verified."""
    round_ = next(terms_of(evidence.body)).round + 1
    return Judgement(evidence.accused, evidence.witness, verdict, round_, in_words(evidence.body))


def terms_of(body: Body) -> Iterator[GroupTerms]:
    """All terms that evidence shows; first those of the round that it is about."""
    if not isinstance(body, FalsePart):
        yield body.terms
        return
    material = body.material
    yield material.part.terms
    for neighbour in (material.previous, material.following):
        if neighbour is not None:
            yield neighbour.terms


def in_words(body: Body) -> str:
    """What the accused did, to go on from its name."""
    if isinstance(body, FalsePart):
        return FAULTS[body.fault].format(part=body.material.part.claim.part)
    if isinstance(body, TwoAverages):
        return f"signed for two averages of part {body.claims[0].part}"
    if isinstance(body, TwoVotes):
        return "signed two votes that contradict each other"
    return COMPLAINTS[body.complaint].format(part=body.claim.part)


def _check_terms(terms: GroupTerms, facts: SessionFacts) -> None:
    sizes = facts.fragment_sizes
    expected = (facts.session, len(sizes), sizes[terms.round % len(sizes)], facts.codec, facts.aggregation)
    found = (terms.session, terms.fragments, terms.numel, terms.codec, terms.aggregation)
    if found != expected:
        raise EvidenceError(f"is about other terms than this session's: {found}, not {expected}")
