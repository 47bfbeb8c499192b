"""Signed votes about what a round averaged, and when they make a decision. Pure, but for the signing.

A decision is believed for its signatures, whoever brings it. Votes are signed with the peer's own Ed25519 key over the
group's terms, the group, the round, the ballot and the manifest's hash, so that none counts for anything else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import Field

from cotrain.errors import SwarmError
from cotrain.peer_key import PeerIdText, signed_by_peer
from cotrain.swarm.parts import Manifest
from cotrain.swarm.terms import MOST_MEMBERS, Digest, GroupTerms, Signature, Statement

PURPOSE = "vote"
Ballot = Annotated[int, Field(ge=0, lt=MOST_MEMBERS)]
WireManifest = Annotated[list[Digest | None], Field(max_length=100_000)]


class ForgedVoteError(SwarmError):
    """A vote, a promise or a decision that its signatures do not bear out."""


class Signer(Protocol):
    """A peer's own key; `cotrain.peer_key.PeerSigner` is one."""

    peer_id: str

    def sign(self, purpose: str, content: bytes) -> bytes:
        """64 bytes of Ed25519."""
        ...


class SignedVote(Statement):
    """A voter's word for one manifest in one ballot.

    `report`: it holds these bytes; in ballot 0 the reports of all voters decide. `accept`: it has accepted them, as
    the proposer did before it asked; the votes of more than half decide.
    """

    voter: PeerIdText
    op: Literal["report", "accept"]
    ballot: Ballot
    manifest: Digest
    signature: Signature


class Promise(Statement):
    """A voter's word to accept nothing in ballots below this one, and what it has signed before."""

    voter: PeerIdText
    ballot: Ballot
    reported: Digest | None
    """The manifest that it reported in ballot 0, if it did."""
    accepted: SignedVote | None
    """Of the highest ballot in which it accepted one: the vote of that ballot's leader."""
    signature: Signature


class Decision(Statement):
    """A manifest, and the signatures that make it the group's."""

    manifest: WireManifest
    op: Literal["report", "accept"]
    ballot: Ballot
    signatures: Annotated[dict[PeerIdText, Signature], Field(max_length=MOST_MEMBERS)]


@dataclass(frozen=True)
class Electorate:
    """Who votes, and about what. Every signature of a group's votes holds for its electorate alone."""

    terms: str
    group: str
    round: int
    voters: tuple[str, ...]

    @classmethod
    def of(cls, terms: GroupTerms) -> Electorate:
        return cls(terms.digest, terms.group, terms.round, terms.reducers)

    @property
    def quorum(self) -> int:
        """How many are more than half."""
        return len(self.voters) // 2 + 1

    def leader(self, ballot: int) -> str | None:
        """Each voter leads one ballot, so none can vouch for what it claims to have accepted in an earlier one."""
        return self.voters[ballot] if ballot < len(self.voters) else None

    # ------------------------------------------------------------------------------------------ signing
    def vote(self, signer: Signer, op: Literal["report", "accept"], ballot: int, manifest: str) -> SignedVote:
        signature = signer.sign(PURPOSE, self._content(op, ballot, manifest)).hex()
        return SignedVote(voter=signer.peer_id, op=op, ballot=ballot, manifest=manifest, signature=signature)

    def promise(self, signer: Signer, ballot: int, reported: str | None, accepted: SignedVote | None) -> Promise:
        signature = signer.sign(PURPOSE, self._promise_content(ballot, reported, accepted)).hex()
        return Promise(
            voter=signer.peer_id, ballot=ballot, reported=reported, accepted=accepted, signature=signature
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------ checking
    def has_voted(self, vote: SignedVote) -> bool:
        """Whether it is a voter's own signature about this group."""
        content = self._content(vote.op, vote.ballot, vote.manifest)
        return self._is_voters(vote.voter, vote.ballot) and _holds(vote.voter, content, vote.signature)

    def has_promised(self, promise: Promise) -> bool:
        """Whether it is a voter's own, and what it says to have accepted was proposed by that ballot's leader."""
        accepted = promise.accepted
        if accepted is not None and not (
            accepted.op == "accept"
            and accepted.ballot < promise.ballot
            and accepted.voter == self.leader(accepted.ballot)
            and self.has_voted(accepted)
        ):
            return False
        content = self._promise_content(promise.ballot, promise.reported, accepted)
        return self._is_voters(promise.voter, promise.ballot) and _holds(promise.voter, content, promise.signature)

    def check_decision(self, decision: Decision) -> None:
        """Raises ForgedVoteError unless the votes of all (reports in ballot 0) or of more than half bear it out.

        Each signature must hold: what else is in a decision could be chosen by who puts it together.
        """
        if decision.op == "report" and decision.ballot != 0:
            raise ForgedVoteError("reports decide in ballot 0 only", field="decision")
        needed = len(self.voters) if decision.op == "report" else self.quorum
        held = sum(self.has_voted(vote) for vote in votes_of(decision))
        if held < needed or held < len(decision.signatures):
            raise ForgedVoteError(
                f"{held} of {len(decision.signatures)} signatures hold, {needed} are needed", field="decision"
            )

    def check_proposal(self, vote: SignedVote, promises: Sequence[Promise]) -> None:
        """Raises ForgedVoteError unless the promises leave the ballot's leader free to propose this manifest."""
        if vote.op != "accept" or vote.voter != self.leader(vote.ballot) or not self.has_voted(vote):
            raise ForgedVoteError(f"is not proposed by the leader of ballot {vote.ballot}", field=vote.voter)
        valid = [p for p in promises if p.ballot == vote.ballot and self.has_promised(p)]
        if len({promise.voter for promise in valid}) < self.quorum:
            raise ForgedVoteError("is proposed without the promises of more than half", field=vote.voter)
        if bound_by(valid) not in (None, vote.manifest):
            raise ForgedVoteError("proposes another manifest than the promises name", field=vote.voter)

    def _is_voters(self, peer: str, ballot: int) -> bool:
        return peer in self.voters and ballot < len(self.voters)

    def _content(self, op: str, ballot: int, manifest: str) -> bytes:
        return _canonical([self.terms, self.group, self.round, op, ballot, manifest])

    def _promise_content(self, ballot: int, reported: str | None, accepted: SignedVote | None) -> bytes:
        before = None if accepted is None else [accepted.ballot, accepted.manifest]
        return _canonical([self.terms, self.group, self.round, "promise", ballot, reported, before])


def bound_by(promises: Iterable[Promise]) -> str | None:
    """The manifest's hash that may already be decided, and must be proposed again; None if there is no such one.

    That of the highest ballot in which anything was accepted; else the one that all of them reported, since reports
    decide only if they are unanimous.
    """
    promises = list(promises)
    accepted = [promise.accepted for promise in promises if promise.accepted is not None]
    if accepted:
        return max(accepted, key=lambda vote: (vote.ballot, vote.manifest)).manifest
    reported = {promise.reported for promise in promises}
    return reported.pop() if len(reported) == 1 else None


def votes_of(decision: Decision) -> list[SignedVote]:
    """The votes that a decision carries, unchecked."""
    manifest = manifest_hash(decision.manifest)
    return [
        SignedVote(voter=voter, op=decision.op, ballot=decision.ballot, manifest=manifest, signature=signature)
        for voter, signature in decision.signatures.items()
    ]


def decision_of(manifest: Manifest, votes: Iterable[SignedVote]) -> Decision:
    """Put votes for one manifest in one ballot together; at least one."""
    votes = list(votes)
    return Decision(
        manifest=list(manifest), op=votes[0].op, ballot=votes[0].ballot,
        signatures={vote.voter: vote.signature for vote in votes},
    )  # fmt: skip


def manifest_hash(manifest: Sequence[str | None]) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(_canonical(list(manifest))).hexdigest()


# ---------------------------------------------------------------------------------------------- contradictions
Word = SignedVote | Promise


def contradict(first: Word, second: Word) -> bool:
    """Whether no honest voter signs both, each valid in the same electorate."""
    if first.voter != second.voter:
        return False
    if isinstance(first, SignedVote) and isinstance(second, SignedVote):
        return (first.op, first.ballot) == (second.op, second.ballot) and first.manifest != second.manifest
    if isinstance(first, Promise) and isinstance(second, Promise):
        return first.ballot == second.ballot and _said(first) != _said(second)
    vote, promise = (first, second) if isinstance(first, SignedVote) else (second, first)
    assert isinstance(vote, SignedVote)
    assert isinstance(promise, Promise)
    if vote.op == "report":
        return vote.ballot == 0 and promise.reported != vote.manifest
    if vote.ballot >= promise.ballot:
        return False
    # it accepted this before it promised, or broke the promise afterwards
    before = promise.accepted
    if before is None or before.ballot < vote.ballot:
        return True
    return before.ballot == vote.ballot and before.manifest != vote.manifest


class WordBook:
    """All that voters have signed in one group, as far as it has come here; finds what contradicts."""

    def __init__(self) -> None:
        self._words: dict[str, list[Word]] = {}

    def note(self, word: Word) -> tuple[Word, Word] | None:
        """Keep a valid vote or promise; with an earlier one of the same voter, if the two contradict."""
        known = self._words.setdefault(word.voter, [])
        if word in known:
            return None
        known.append(word)
        return next(((other, word) for other in known if contradict(other, word)), None)


def signatures_without(decision: Decision, voter: str) -> Mapping[str, str]:
    """The signatures of all but one, in the order of the voters' ids: what that one could not choose."""
    return {peer: decision.signatures[peer] for peer in sorted(decision.signatures) if peer != voter}


def _said(promise: Promise) -> tuple[str | None, tuple[int, str] | None]:
    before = None if promise.accepted is None else (promise.accepted.ballot, promise.accepted.manifest)
    return promise.reported, before


def _canonical(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _holds(peer: str, content: bytes, signature: str) -> bool:
    return signed_by_peer(peer, PURPOSE, content, bytes.fromhex(signature))
