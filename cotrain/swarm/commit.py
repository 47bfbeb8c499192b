"""Agreement on what a round averaged, and repair: after it, all survivors hold the same bytes or none applies any.

Single-decree Paxos (Lamport, "Paxos made simple", 2001) over a manifest: one digest for each part. A member accepts a
manifest only once it holds all its bytes, so whatever is decided can always be repaired from a majority. In the
common case (everybody reports the same complete manifest to the first ballot's leader) it costs one round trip.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from hivemind.utils import get_logger
from pydantic import BaseModel, ConfigDict, Field

from cotrain.errors import SwarmError
from cotrain.swarm.parts import Manifest, PartLedger, digest_of

logger = get_logger(__name__)

NO_BALLOT = -1
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Vote(BaseModel):
    """A control message of the agreement, or the answer to one.

    `manifest` is what is reported, proposed, accepted or decided; in an answer `promised`, `accepted_ballot` and
    `accepted` are the answering member's state and `manifest` is what it holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    group: Annotated[str, Field(pattern=r"^[0-9a-f]{1,128}$")]
    op: Literal["report", "prepare", "accept", "decide"]
    ballot: Annotated[int, Field(ge=0, le=10_000)]
    manifest: Annotated[list[Digest | None], Field(max_length=100_000)]
    promised: Annotated[int, Field(ge=NO_BALLOT, le=10_000)] = NO_BALLOT
    accepted_ballot: Annotated[int, Field(ge=NO_BALLOT, le=10_000)] = NO_BALLOT
    accepted: Annotated[list[Digest | None] | None, Field(max_length=100_000)] = None


class NoDecision(SwarmError):
    """Too few members answered: nothing is applied, local work is kept, the next round tries again."""


@dataclass(frozen=True)
class Links:
    """How an agreement reaches the other members.

    Attributes:
        call: send a vote to a member and return its answer; raises on failure or after its own timeout.
        fetch: ask a member for the encoded averages of parts; yields (index, bytes), unchecked.
    """

    call: Callable[[str, Vote], Awaitable[Vote]]
    fetch: Callable[[str, Sequence[int]], AsyncIterator[tuple[int, bytes]]]


class Agreement:
    """One member's side of the agreement of one group."""

    def __init__(
        self, *, group: str, me: str, members: Sequence[str], ledger: PartLedger, links: Links,
        suspects: set[str], timeout_s: float,
    ):  # fmt: skip
        """`members` in the same order everywhere; `suspects` is shared with the reduction and only ever asked last."""
        self._group, self._me, self._members = group, me, list(members)
        self._ledger, self._links, self._suspects, self._timeout_s = ledger, links, suspects, timeout_s
        self._quorum = len(self._members) // 2 + 1
        self._promised = NO_BALLOT
        self._accepted_ballot = NO_BALLOT
        self._accepted: Manifest | None = None
        self._decision: asyncio.Future[Manifest] = asyncio.get_running_loop().create_future()
        self._reports: dict[str, Manifest] = {}
        self._report_arrived = asyncio.Event()
        self._notices: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------------------------------ proposer
    async def decide(self) -> Manifest:
        """The decided manifest, all its bytes in the ledger. Raises NoDecision."""
        for ballot in range(2 * len(self._members)):
            if self._decision.done():
                break
            leader = self._members[ballot % len(self._members)]
            if leader == self._me:
                await self._lead(ballot)
            elif ballot < len(self._members) or leader not in self._suspects:
                await self._follow(leader, ballot)
        if not self._decision.done():
            raise NoDecision(
                f"the {len(self._members)} members of the group could not agree",
                hint="local work is kept and the round is tried again",
            )
        manifest = self._decision.result()
        await self.repair(manifest, self._members)
        return manifest

    async def _follow(self, leader: str, ballot: int) -> None:
        try:
            await self._links.call(leader, self._vote("report", ballot, self._ledger.manifest))
        except Exception as error:
            logger.info(f"leader {leader} of ballot {ballot} failed: {error!r}")
            self._suspects.add(leader)
            return
        await asyncio.wait({self._decision}, timeout=2 * self._timeout_s)

    async def _lead(self, ballot: int) -> None:
        if ballot == 0 and await self._lead_fast_path():
            return
        if self._promised > ballot or self._decision.done():
            return
        self._promised = ballot
        answers = await self._ask_all(self._vote("prepare", ballot, ()))
        answers = {peer: answer for peer, answer in answers.items() if answer.promised == ballot}
        if len(answers) + 1 < self._quorum:
            return
        manifest = await self._choose(answers)
        if manifest is None or self._promised != ballot:
            return
        self._accepted_ballot, self._accepted = ballot, manifest
        answers = await self._ask_all(self._vote("accept", ballot, manifest))
        accepted = sum(answer.accepted_ballot == ballot for answer in answers.values())
        if accepted + 1 >= self._quorum:
            await self._announce(ballot, manifest)

    async def _lead_fast_path(self) -> bool:
        """Wait for the reports; if everybody holds the same complete manifest it is decided without a vote."""
        await self._await_reports()
        mine = self._ledger.manifest
        complete = None not in mine and self._promised == NO_BALLOT
        if not complete or any(self._reports.get(peer) != mine for peer in self._others):
            return False
        # every member holds these very bytes, and whoever leads a later ballot can only choose them again
        await self._announce(0, mine)
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

    async def _choose(self, answers: dict[str, Vote]) -> Manifest | None:
        """The manifest to propose, its bytes fetched: what may already be decided, else the union of what is held."""
        votes = [(self._accepted_ballot, self._accepted)]
        votes += [(a.accepted_ballot, None if a.accepted is None else tuple(a.accepted)) for a in answers.values()]
        _, bound = max(votes, key=lambda vote: vote[0])
        if bound is not None:
            try:
                await self.repair(bound, answers)
            except SwarmError:
                return None
            return bound
        union = list(self._ledger.manifest)
        for answer in answers.values():
            if len(answer.manifest) == len(union):
                union = [mine or theirs for mine, theirs in zip(union, answer.manifest, strict=True)]
        manifest = tuple(union)
        try:
            await self.repair(manifest, answers)
        except SwarmError:
            missing = set(self._ledger.missing(manifest))
            return tuple(None if index in missing else digest for index, digest in enumerate(manifest))
        return manifest

    async def _announce(self, ballot: int, manifest: Manifest) -> None:
        self._settle(manifest)
        for suspect in self._suspects & set(self._others):  # they may live after all, but nobody waits for them
            self._tell_soon(suspect, manifest)
        await self._ask_all(self._vote("decide", ballot, manifest))

    async def _ask_all(self, vote: Vote) -> dict[str, Vote]:
        """Answers of those others that answered. Suspects are asked only where the rest is no quorum."""
        peers = [peer for peer in self._others if peer not in self._suspects]
        if len(peers) + 1 < self._quorum:
            peers = self._others
        answers = await asyncio.gather(*(self._links.call(peer, vote) for peer in peers), return_exceptions=True)
        return {
            peer: answer
            for peer, answer in zip(peers, answers, strict=True)
            if isinstance(answer, Vote) and answer.op == vote.op
        }

    # ------------------------------------------------------------------------------------------ acceptor
    async def handle(self, caller: str, vote: Vote) -> Vote:
        """Answer a vote of the group member `caller`. Raises SwarmError if it may not send it."""
        if len(vote.manifest) not in (0, len(self._ledger.parts)):
            raise SwarmError(
                f"a vote about {len(vote.manifest)} parts, there are {len(self._ledger.parts)}", field=caller
            )
        if vote.op == "report":
            self._take_report(caller, vote)
        elif self._members[vote.ballot % len(self._members)] != caller:
            raise SwarmError(f"does not lead ballot {vote.ballot}", field=caller)
        elif vote.op == "prepare":
            self._promised = max(self._promised, vote.ballot)
        elif vote.op == "accept":
            await self._accept(caller, vote)
        else:
            self._settle(tuple(vote.manifest))
        return self._vote(vote.op, vote.ballot, self._ledger.manifest)

    def _take_report(self, caller: str, vote: Vote) -> None:
        self._reports[caller] = tuple(vote.manifest)
        self._report_arrived.set()
        if self._decision.done():  # it came too late to be told with the others
            self._tell_soon(caller, self._decision.result())

    def _tell_soon(self, peer: str, manifest: Manifest) -> None:
        notice = asyncio.create_task(self._tell(peer, manifest))
        self._notices.add(notice)
        notice.add_done_callback(self._notices.discard)

    async def _tell(self, peer: str, manifest: Manifest) -> None:
        ballot = self._members.index(self._me)  # a ballot that this member leads
        try:
            await self._links.call(peer, self._vote("decide", ballot, manifest))
        except Exception as error:
            logger.info(f"could not tell {peer} of the decision: {error!r}")

    async def _accept(self, caller: str, vote: Vote) -> None:
        if vote.ballot < self._promised:
            return
        self._promised = vote.ballot
        manifest = tuple(vote.manifest)
        try:
            await self.repair(manifest, [caller, *self._members])
        except SwarmError as error:
            logger.warning(f"cannot accept ballot {vote.ballot}: {error}")
            return
        if vote.ballot >= self._promised:  # a later ballot may have come while bytes were fetched
            self._promised = self._accepted_ballot = vote.ballot
            self._accepted = manifest

    # ------------------------------------------------------------------------------------------ both
    async def repair(self, manifest: Manifest, holders: Iterable[str]) -> None:
        """Fetch the parts of `manifest` that are missing here. Raises SwarmError if some are nowhere to be had."""
        for peer in sorted((p for p in dict.fromkeys(holders) if p != self._me), key=self._suspects.__contains__):
            wanted = self._ledger.missing(manifest)
            if not wanted:
                return
            try:
                async for index, encoded in self._links.fetch(peer, wanted):
                    if index in wanted and digest_of(encoded) == manifest[index]:
                        self._ledger.replace(index, encoded)
            except Exception as error:
                logger.info(f"could not fetch parts from {peer}: {error!r}")
        if missing := self._ledger.missing(manifest):
            raise SwarmError(f"{len(missing)} decided parts could not be had from any member")

    @property
    def _others(self) -> list[str]:
        return [peer for peer in self._members if peer != self._me]

    def _settle(self, manifest: Manifest) -> None:
        if not self._decision.done():
            self._decision.set_result(manifest)

    def _vote(self, op: Literal["report", "prepare", "accept", "decide"], ballot: int, manifest: Manifest) -> Vote:
        return Vote(
            group=self._group, op=op, ballot=ballot, manifest=list(manifest), promised=self._promised,
            accepted_ballot=self._accepted_ballot, accepted=None if self._accepted is None else list(self._accepted),
        )  # fmt: skip
