"""Agreement on what a round averaged, and repair: after it, all survivors hold the same bytes or none applies any.

Single-decree Paxos (Lamport, "Paxos made simple", 2001) among the group's reducers, over a manifest: one digest for
each part. A reducer accepts a manifest only once it holds all its bytes, so whatever is decided can always be repaired
from a majority. In the common case (everybody reports the same complete manifest to the first ballot's leader) it
costs one round trip: a round of Fast Paxos (Lamport, 2006) whose quorum is everybody.

Every promise and vote is signed (`votes.py`). A decision is believed for its signatures only, and a proposer must show
the promises that leave it the choice. A majority cannot keep a liar from being in two of them: but two decisions for
one group take a voter that signs what contradicts, and decisions that were voted on are passed on by all, so that the
two signatures meet. Contributors do not vote: they ask for the decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from hivemind.utils import get_logger

from cotrain.errors import SwarmError
from cotrain.swarm.links import Answer, Links, Op, Vote
from cotrain.swarm.parts import Manifest, PartLedger
from cotrain.swarm.repair import NoDecision, fetch_missing
from cotrain.swarm.votes import (
    Decision,
    Electorate,
    ForgedVoteError,
    Promise,
    SignedVote,
    Signer,
    Word,
    WordBook,
    bound_by,
    decision_of,
    manifest_hash,
    votes_of,
)

logger = get_logger(__name__)

NO_BALLOT = -1
OnContradiction = Callable[[Word, Word], None]


class Agreement:
    """One reducer's side of the agreement of one group."""

    def __init__(
        self, *, electorate: Electorate, signer: Signer, ledger: PartLedger, links: Links, suspects: set[str],
        timeout_s: float, believes: Callable[[int, bytes], bool] = lambda index, encoded: True,
        on_contradiction: OnContradiction = lambda first, second: None,
    ):  # fmt: skip
        """`suspects` is shared with the reduction; they are only ever asked last.

        `believes`: whether this reducer may vote for a part that it had to fetch. `on_contradiction` is given two votes
        or promises that one voter cannot honestly have signed both.
        """
        self._electorate, self._signer, self._me = electorate, signer, signer.peer_id
        self._ledger, self._links, self._suspects, self._timeout_s = ledger, links, suspects, timeout_s
        self._believes, self._on_contradiction, self._words = believes, on_contradiction, WordBook()
        self._promised = NO_BALLOT
        self._reported: str | None = None
        self._accepted: tuple[SignedVote, Manifest] | None = None
        self._decision: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self._reports: dict[str, SignedVote | None] = {}
        self._report_arrived = asyncio.Event()
        self._notices: set[asyncio.Task[object]] = set()

    @property
    def decision(self) -> Decision | None:
        """What is decided, as far as it is known here."""
        return self._decision.result() if self._decision.done() else None

    # ------------------------------------------------------------------------------------------ proposer
    async def decide(self) -> Manifest:
        """The decided manifest, all its bytes in the ledger. Raises NoDecision."""
        voters = self._electorate.voters
        for ballot, leader in enumerate(voters):
            if self._decision.done():
                break
            if leader == self._me:
                await self._lead(ballot)
            else:
                await self._follow(leader, ballot)
        if not self._decision.done():
            await self._ask_around()
        if not self._decision.done():
            raise NoDecision(len(voters))
        manifest = tuple(self._decision.result().manifest)
        await fetch_missing(self._ledger, manifest, self._others, self._links, self._suspects)
        return manifest

    async def _ask_around(self) -> None:
        """The others may have decided while this member could not be told."""
        question = self._message("ask", 0)
        await asyncio.gather(*(self._call(peer, question) for peer in self._others), return_exceptions=True)

    async def _follow(self, leader: str, ballot: int) -> None:
        report = self._message("report", ballot, manifest=self._ledger.manifest, signed=self._report(ballot))
        try:
            await self._call(leader, report)
        except Exception as error:
            logger.info(f"leader {leader} of ballot {ballot} failed: {error!r}")
            self._suspects.add(leader)
            return
        await asyncio.wait({self._decision}, timeout=2 * self._timeout_s)

    def _report(self, ballot: int) -> SignedVote | None:
        """The vote for what is held, if it can count: in ballot 0, for a complete manifest, before any promise."""
        held = self._ledger.manifest
        if ballot != 0 or self._promised != NO_BALLOT or None in held:
            return None
        self._reported = manifest_hash(held)
        return self._electorate.vote(self._signer, "report", 0, self._reported)

    async def _lead(self, ballot: int) -> None:
        if ballot == 0 and await self._lead_fast_path():
            return
        promise = None if self._decision.done() else self._promise(ballot)
        if promise is None:
            return
        answers = await self._ask_all(self._message("prepare", ballot))
        promises = [promise, *self._promises_of(answers, ballot)]
        if len(promises) < self._electorate.quorum or self._decision.done():
            return
        manifest = await self._choose(promises, answers)
        if manifest is None or self._promised != ballot:
            return
        proposal = self._electorate.vote(self._signer, "accept", ballot, manifest_hash(manifest))
        self._accepted = (proposal, manifest)
        message = self._message("accept", ballot, manifest=manifest, signed=proposal, promises=promises)
        answers = await self._ask_all(message)
        votes = [proposal, *self._votes_of(answers, proposal)]
        if len(votes) >= self._electorate.quorum and not self._decision.done():
            await self._announce(decision_of(manifest, votes))

    async def _lead_fast_path(self) -> bool:
        """Wait for the reports; if everybody holds the same complete manifest it is decided at once."""
        await self._await_reports()
        mine = self._report(0)
        if mine is None or self._decision.done():
            return False
        reports = [self._reports.get(peer) for peer in self._others]
        votes = [mine, *(vote for vote in reports if vote is not None and vote.manifest == mine.manifest)]
        if len(votes) < len(self._electorate.voters):
            return False
        await self._announce(decision_of(self._ledger.manifest, votes))
        return True

    async def _await_reports(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        while not self._decision.done():
            missing = set(self._others) - self._reports.keys() - self._suspects
            remaining = deadline - loop.time()
            if not missing or remaining <= 0:
                return
            self._report_arrived.clear()
            waiter = asyncio.create_task(self._report_arrived.wait())
            try:
                # short waits: a member may become a suspect without a report arriving
                await asyncio.wait({waiter}, timeout=min(0.2, remaining))
            finally:
                waiter.cancel()

    def _promises_of(self, answers: dict[str, Answer], ballot: int) -> list[Promise]:
        promises = []
        for peer, answer in answers.items():
            promise = answer.promise
            if promise is None or (promise.voter, promise.ballot) != (peer, ballot):
                continue
            if self._electorate.has_promised(promise):
                self._note(promise)
                promises.append(promise)
        return promises

    def _votes_of(self, answers: dict[str, Answer], proposal: SignedVote) -> list[SignedVote]:
        wanted = proposal.op, proposal.ballot, proposal.manifest
        votes = []
        for peer, answer in answers.items():
            vote = answer.signed
            if vote is None or vote.voter != peer or not self._electorate.has_voted(vote):
                continue
            self._note(vote)
            if (vote.op, vote.ballot, vote.manifest) == wanted:
                votes.append(vote)
        return votes

    async def _choose(self, promises: Sequence[Promise], answers: dict[str, Answer]) -> Manifest | None:
        """The manifest to propose, its bytes fetched: what may already be decided, else the union of what is held."""
        if (bound := bound_by(promises)) is not None:
            known = [self._ledger.manifest, *(tuple(answer.held) for answer in answers.values())]
            known += [tuple(answer.accepted) for answer in answers.values() if answer.accepted is not None]
            known += [self._accepted[1]] if self._accepted is not None else []
            manifest = next((candidate for candidate in known if manifest_hash(candidate) == bound), None)
            return manifest if manifest is not None and await self._can_repair(manifest, answers) else None
        union = list(self._ledger.manifest)
        for answer in answers.values():
            if len(answer.held) == len(union):
                union = [mine or theirs for mine, theirs in zip(union, answer.held, strict=True)]
        if await self._can_repair(tuple(union), answers):
            return tuple(union)
        missing = set(self._ledger.missing(tuple(union)))
        return tuple(None if index in missing else digest for index, digest in enumerate(union))

    async def _announce(self, decision: Decision) -> None:
        self._settle(decision)
        message = self._decide_message(decision)
        for suspect in self._suspects & set(self._others):  # they may live after all, but nobody waits for them
            self._tell_soon(suspect, message)
        await self._ask_all(message)

    async def _ask_all(self, vote: Vote) -> dict[str, Answer]:
        """Answers of those others that answered. Suspects are asked only where the rest is no quorum."""
        peers = [peer for peer in self._others if peer not in self._suspects]
        if len(peers) + 1 < self._electorate.quorum:
            peers = self._others
        answers = await asyncio.gather(*(self._call(peer, vote) for peer in peers), return_exceptions=True)
        return {
            peer: answer
            for peer, answer in zip(peers, answers, strict=True)
            if isinstance(answer, Answer) and answer.op == vote.op
        }

    async def _call(self, peer: str, vote: Vote) -> Answer:
        """Send a vote, and take the decision over if the answer has one."""
        answer = await self._links.call(peer, vote)
        if answer.decision is not None:
            self._take_decision(answer.decision)
        return answer

    # ------------------------------------------------------------------------------------------ acceptor
    async def handle(self, caller: str, vote: Vote) -> Answer:
        """Answer the group member `caller`. Raises SwarmError if it may not send this."""
        if vote.op == "ask":
            await asyncio.wait({self._decision}, timeout=0.8 * self._timeout_s)
            return Answer(op="ask", decision=self.decision)
        if caller not in self._electorate.voters:
            raise SwarmError("is no reducer of this group: it may only ask", field=caller)
        if vote.op in ("report", "accept") and len(vote.manifest) != len(self._ledger.parts):
            raise SwarmError(
                f"a vote about {len(vote.manifest)} parts, there are {len(self._ledger.parts)}", field=caller
            )
        if vote.op in ("prepare", "accept") and self._electorate.leader(vote.ballot) != caller:
            raise SwarmError(f"does not lead ballot {vote.ballot}", field=caller)
        promise, signed = None, None
        if vote.op == "report":
            self._take_report(caller, vote)
        elif vote.op == "prepare":
            promise = self._promise(vote.ballot)
        elif vote.op == "accept":
            signed = await self._accept(caller, vote)
        elif vote.decision is not None:
            self._take_decision(vote.decision)
        preparing = vote.op == "prepare"
        return Answer(
            op=vote.op, promise=promise, signed=signed, decision=None if vote.op == "decide" else self.decision,
            held=list(self._ledger.manifest) if preparing else [],
            accepted=list(self._accepted[1]) if preparing and self._accepted is not None else None,
        )  # fmt: skip

    def _take_report(self, caller: str, vote: Vote) -> None:
        signed = vote.signed
        if signed is not None:
            expected = (caller, "report", 0, manifest_hash(vote.manifest))
            if (signed.voter, signed.op, signed.ballot, signed.manifest) != expected:
                raise ForgedVoteError("reports something else than it signs", field=caller)
            if not self._electorate.has_voted(signed):
                raise ForgedVoteError("sends a report with a false signature", field=caller)
            self._note(signed)
        self._reports[caller] = signed
        self._report_arrived.set()

    def _promise(self, ballot: int) -> Promise | None:
        """Once for each ballot, and never after a higher one."""
        if ballot <= self._promised:
            return None
        self._promised = ballot
        accepted = None if self._accepted is None else self._accepted[0]
        return self._electorate.promise(self._signer, ballot, self._reported, accepted)

    async def _accept(self, caller: str, vote: Vote) -> SignedVote | None:
        proposal, manifest = vote.signed, tuple(vote.manifest)
        if proposal is None or (proposal.ballot, proposal.manifest) != (vote.ballot, manifest_hash(manifest)):
            raise ForgedVoteError("proposes something else than it signs", field=caller)
        if self._electorate.has_voted(proposal):
            self._note(proposal)  # also one that must not be accepted may contradict another
        self._electorate.check_proposal(proposal, vote.promises)
        for promise in filter(self._electorate.has_promised, vote.promises):
            self._note(promise)
        if not self._may_accept(proposal):
            return None
        self._promised = vote.ballot
        if not await self._can_repair(manifest, [caller, *self._electorate.voters]):
            return None
        if not self._may_accept(proposal):  # while bytes were fetched another proposal may have come
            return None
        self._accepted = (proposal, manifest)
        return self._electorate.vote(self._signer, "accept", vote.ballot, proposal.manifest)

    def _may_accept(self, proposal: SignedVote) -> bool:
        if proposal.ballot < self._promised:
            return False
        before = None if self._accepted is None else self._accepted[0]
        return before is None or before.ballot < proposal.ballot or before.manifest == proposal.manifest

    def _take_decision(self, decision: Decision) -> None:
        if len(decision.manifest) != len(self._ledger.parts):
            raise SwarmError(f"a decision about {len(decision.manifest)} parts, there are {len(self._ledger.parts)}")
        self._electorate.check_decision(decision)
        if self._settle(decision) and decision.op == "accept":
            # pass it on: who has been told another decision finds out who signed for both
            for peer in self._others:
                self._tell_soon(peer, self._decide_message(decision))

    # ------------------------------------------------------------------------------------------ both
    def _settle(self, decision: Decision) -> bool:
        """Take a decision that is borne out; whether it is news."""
        for vote in filter(self._electorate.has_voted, votes_of(decision)):
            self._note(vote)
        if self._decision.done():
            return False
        self._decision.set_result(decision)
        return True

    def _note(self, word: Word) -> None:
        if (found := self._words.note(word)) is not None:
            logger.warning(f"{word.voter} has signed what contradicts itself")
            self._on_contradiction(*found)

    def _tell_soon(self, peer: str, message: Vote) -> None:
        notice = asyncio.create_task(self._tell(peer, message))
        self._notices.add(notice)
        notice.add_done_callback(self._notices.discard)

    async def _tell(self, peer: str, message: Vote) -> None:
        try:
            await self._links.call(peer, message)
        except Exception as error:
            logger.info(f"could not tell {peer} of the decision: {error!r}")

    async def _can_repair(self, manifest: Manifest, holders: Iterable[str]) -> bool:
        others = [peer for peer in holders if peer != self._me]
        try:
            await fetch_missing(self._ledger, manifest, others, self._links, self._suspects, self._believes)
        except SwarmError as error:
            logger.warning(f"a proposed manifest is not accepted: {error}")
            return False
        return True

    @property
    def _others(self) -> list[str]:
        return [peer for peer in self._electorate.voters if peer != self._me]

    def _decide_message(self, decision: Decision) -> Vote:
        return self._message("decide", decision.ballot, decision=decision)

    def _message(
        self, op: Op, ballot: int, *, manifest: Manifest = (), signed: SignedVote | None = None,
        promises: Sequence[Promise] = (), decision: Decision | None = None,
    ) -> Vote:  # fmt: skip
        return Vote(
            group=self._electorate.group, op=op, ballot=ballot, manifest=list(manifest), signed=signed,
            promises=list(promises), decision=decision,
        )  # fmt: skip
