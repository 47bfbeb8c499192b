"""A peer that trains nothing: it bootstraps a session's swarm, follows every round, and serves the state to joiners.

It also judges the evidence that members have found.

Invariant: whoever joins finds the outer state here, also when all volunteers are gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from hivemind.dht import DHT
from hivemind.p2p import PeerID
from hivemind.utils import get_logger

from cotrain.config import RunConfig
from cotrain.errors import SwarmError
from cotrain.membership.document import MembershipSource
from cotrain.swarm.credit import credits_of
from cotrain.swarm.dht import DhtThread, Directory
from cotrain.swarm.dial_back import DialBack
from cotrain.swarm.evidence_service import EvidenceService, Keep
from cotrain.swarm.follow import Followed, StateFollower
from cotrain.swarm.gate import Gate
from cotrain.swarm.introductions import Introductions
from cotrain.swarm.judgement import SessionFacts
from cotrain.swarm.line_speed import LineProbe
from cotrain.swarm.loop import LoopThread
from cotrain.swarm.silence import require_running
from cotrain.swarm.state import SharedState, StateService
from cotrain.train.codec import make_codec
from cotrain.train.diloco import OuterOptimizer, OuterState, RoundLengths
from cotrain.train.fragments import Fragments

logger = get_logger(__name__)

FOLLOW_TIMEOUT_S = 60.0
MEMBERS_OUT_OF_VIEW = 8
"""A group may have had so many more members than the swarm has peers in view."""


class SessionObserver:
    """One session as its observer sees it. Several may share a DHT, its thread and a loop."""

    def __init__(
        self, config: RunConfig, initial: OuterState, *, samples_wanted: int, dht: DHT, dht_thread: DhtThread,
        loop: LoopThread, membership: MembershipSource, keep_evidence: Keep = lambda content, judgement: None,
        convicted: Collection[str] = (), fragments: Fragments | None = None,
    ):  # fmt: skip
        """`initial` is served until the swarm is ahead of it; `fragments` as the trainers have them.

        `keep_evidence`, `convicted`: see EvidenceService.
        """
        self._dht, self._dht_thread, self._loop = dht, dht_thread, loop
        self._session = config.session.id
        self._shared = SharedState(initial.parameters.numel())
        self._gate = Gate(self._session, membership)
        sizes = (fragments or Fragments.whole(initial.parameters.numel())).sizes()
        self._evidence = EvidenceService(
            self._gate, SessionFacts.of(config, sizes), round_=lambda: self.state.round,
            members=lambda: len(self._directory.view.trainers()) + MEMBERS_OUT_OF_VIEW, keep=keep_evidence,
            convicted=convicted,
        )  # fmt: skip
        self._services = (
            self._gate, StateService(self._shared, self._gate), DialBack(self._gate), LineProbe(self._gate),
            self._evidence,
        )  # fmt: skip
        self._directory = Directory(
            dht, self._session, record_ttl_s=config.swarm.record_ttl_s, role="observe", gate=self._gate,
            introduce=Introductions(dht, loop, self._gate),
        )  # fmt: skip
        self._follower = StateFollower(
            session=self._session, shared=self._shared, codec=make_codec(config.diloco.codec),
            optimizer=OuterOptimizer.from_config(config, samples_wanted, fragments),
            view=lambda: self._directory.view,
        )  # fmt: skip
        self._lengths = RoundLengths.from_config(config, samples_wanted)
        self.digest = initial.digest()
        self.credits: Mapping[str, int] | None = None
        """Samples by peer that the newest state's round owes (`credit.py`); None where that is not known."""
        self.state = self._shared.publish(initial, self.digest)
        loop.run(self._serve(), 30.0)
        self._announce()
        dht_thread.add(self._directory)

    async def _serve(self) -> None:
        p2p = await self._dht.replicate_p2p()
        for service in self._services:
            await service.add_p2p_handlers(p2p, namespace=self._session)

    async def _stop_serving(self) -> None:
        p2p = await self._dht.replicate_p2p()
        for service in self._services:
            await service.remove_p2p_handlers(p2p, namespace=self._session)

    @property
    def trainers(self) -> dict[str, tuple[int, str]]:
        """(round, digest) of each peer that trains, as it announces them."""
        return {peer: (record.round, record.digest) for peer, record in self._directory.view.trainers().items()}

    @property
    def bytes_received(self) -> int:
        return self._follower.bytes_received

    @property
    def followed(self) -> Followed | None:
        """How the newest state came here; None for the one that it began with."""
        return self._follower.last

    def wait_for_news(self, timeout_s: float) -> bool:
        """Wait until the swarm is ahead of the state held here; False when the time is over."""
        return self._directory.wait_for(lambda view: bool(view.donors(self.state.round + 1)), timeout_s)

    def follow(self) -> bool:
        """Catch up with the swarm, if it is ahead; True if the state has changed.

        When whoever was ahead cannot be reached any more (all left at once, say), the state held here stays the
        newest that is left.
        """
        if not self._is_behind():
            self._directory.rest_in_round(self.state.round, self._lengths.inner_steps_at(self.state.samples))
            return False
        try:
            self.state, self.digest = self._loop.run(
                self._catch_up(), 2 * FOLLOW_TIMEOUT_S, meanwhile=lambda: require_running(self._dht)
            )
        except SwarmError as error:
            logger.warning(f"stays at round {self.state.round}: {error}")
            return False
        self._announce()
        return True

    async def _catch_up(self) -> tuple[OuterState, str]:
        p2p = await self._dht.replicate_p2p()
        newer = await self._follower.catch_up(p2p, self.state, timeout_s=FOLLOW_TIMEOUT_S, needed=self._is_behind)
        self.credits = await self._credits()
        return newer

    async def _credits(self) -> Mapping[str, int] | None:
        """Of the round that was just fetched, while `digest` is still that of the state before it."""
        fetched = None if self._follower.last is None else self._follower.last.fetched
        if fetched is None:
            return None
        members = fetched.header.terms.members
        strangers = [member for member in members if self._gate.member(member) is None]
        if len(strangers) <= MEMBERS_OUT_OF_VIEW:  # a donor may have made thousands of them up
            await asyncio.gather(*map(self._meet, strangers), return_exceptions=True)
        roles = {member: known.role for member in members if (known := self._gate.member(member)) is not None}
        trainers = len(self._directory.view.trainers())
        try:
            return credits_of(fetched, session=self._session, state=self.digest, roles=roles, trainers=trainers)
        except SwarmError as error:
            logger.warning(f"round {fetched.header.terms.round + 1} is credited to nobody: {error}")
            return None

    async def _meet(self, peer: str) -> None:
        await self._gate.require(PeerID.from_base58(peer))

    def _is_behind(self) -> bool:
        return bool(self._directory.view.donors(self.state.round + 1))

    def _announce(self) -> None:
        self._directory.announce(urgent=True, round=self.state.round, digest=self.digest, committed=self.state.samples)

    def close(self) -> None:
        """Withdraw from the session; the DHT and the others' sessions stay."""
        self._dht_thread.remove(self._directory)
        self._loop.run(self._stop_serving(), 30.0)
        self._evidence.close()
