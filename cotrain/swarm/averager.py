"""One round of averaging, in a process of its own: matchmaking by hivemind, then the exact all-reduce.

hivemind's DecentralizedAverager gives the process, the matchmaking and the transport; its own all-reduce is not used,
because with a lossy codec every peer would end with another average, and a failed reducer would leave peers diverged
while the step "succeeds".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any, AsyncIterator  # noqa: UP035 - hivemind knows a stream by typing's name

import torch
from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.averaging.averager import DecentralizedAverager
from hivemind.averaging.group_info import GroupInfo
from hivemind.dht import DHT
from hivemind.p2p import P2P, P2PContext, PeerID
from hivemind.proto import averaging_pb2
from hivemind.proto.averaging_pb2 import AveragingData
from hivemind.utils import MPFuture, get_dht_time, get_logger
from hivemind.utils.asyncio import achain, as_aiter
from torch import Tensor

from cotrain.errors import SwarmError
from cotrain.membership.certificate import Role
from cotrain.membership.document import MembershipSource, certificate_of
from cotrain.membership.sealed import MembershipError
from cotrain.sections import Aggregation
from cotrain.swarm.all_reduce import Exchange, Replies, Timeouts, Traffic
from cotrain.swarm.audit import Witness
from cotrain.swarm.audit_service import AuditService, fetch_inputs
from cotrain.swarm.claims import Claim
from cotrain.swarm.commit import Agreement
from cotrain.swarm.connections import Connections
from cotrain.swarm.draw import AUDITS_PER_ROUND
from cotrain.swarm.evidence import Evidence, TwoVotes, accuse
from cotrain.swarm.feedback import ErrorFeedback
from cotrain.swarm.gate import Gate
from cotrain.swarm.group import (
    GroupSearch,
    MembersOnly,
    learn_announced,
    quorate_of,
    read_announcements,
    roles_of,
    terms_of,
)
from cotrain.swarm.groups import DecidedRound, Group, GroupTable
from cotrain.swarm.inquiry import Inquiry
from cotrain.swarm.links import PartsRequest, Vote, links_over
from cotrain.swarm.notary import Notary, PartInputs
from cotrain.swarm.outcome import RoundOutcome
from cotrain.swarm.parts import PartLedger
from cotrain.swarm.results import RoundService
from cotrain.swarm.rounds import Announcement, round_totals
from cotrain.swarm.send_rate import SendRate
from cotrain.swarm.silence import START_TIMEOUT_S, await_start
from cotrain.swarm.state import SharedState, StateService
from cotrain.swarm.streams import await_hang_up
from cotrain.swarm.suspects import Suspects
from cotrain.swarm.terms import CodecName, GroupTerms
from cotrain.swarm.thread_pool import renew_thread_pool
from cotrain.swarm.votes import Decision, Electorate, Signer, Word
from cotrain.train.codec import make_codec

logger = get_logger(__name__)


class RoundAverager(DecentralizedAverager):
    """Averages one flat pseudo-gradient a round; serves the outer state and the last rounds' averages.

    What it does follows from its certificate. A reducer averages parts, votes, and can be called. A contributor only
    calls: it brings its own and asks for what came of it.
    """

    # hivemind caches the table of RPCs in these; a subclass would inherit the table of its parent
    _rpc_handlers = None
    _stub_type = None

    def __init__(
        self, vector: Tensor, dht: DHT, *, session: str, codec: CodecName, state: SharedState, gate: Gate,
        membership: MembershipSource, signer: Signer, matchmaking_s: float, min_peers: int = 1,
        aggregation: Aggregation = "filter", fragment_sizes: Sequence[int] = (),
        audits_per_round: float = AUDITS_PER_ROUND,
        timeouts: Timeouts | None = None, on_evidence: Callable[[Evidence], None] = lambda evidence: None,
        most_bytes_per_s: int | None = None,
    ):  # fmt: skip
        """`vector` [n] float32: the pseudo-gradient goes in, the average comes out; it is moved to shared memory.

        `fragment_sizes`: round r averages the vector's first `fragment_sizes[r % F]` values; absent: always all.
        `membership` is this peer's own, `signer` its key. `on_evidence` is called in the averager's process as soon as
        something is found; the training process gets it with the next outcome. `most_bytes_per_s`: see SendRate.
        """
        self._codec_name, self._codec, self._aggregation = codec, make_codec(codec), aggregation
        self._timeouts, self._gate, self._signer = timeouts or Timeouts(), gate, signer
        self._membership, self._role = membership, _own_role(membership)
        self._connections = Connections(session, gate, membership)
        self._matchmaking_s, self._min_peers = matchmaking_s, min_peers
        self._fragment_sizes = tuple(fragment_sizes) or (vector.numel(),)
        self._feedback = ErrorFeedback(len(self._fragment_sizes))
        self._groups = GroupTable()
        self._spare: list[Tensor] = []
        self._before: dict[int, DecidedRound] = {}
        self._rate = rate = SendRate(most_bytes_per_s)
        self._state_service, self._round_service = StateService(state, gate, rate), RoundService(gate, rate)
        self._audit_service = AuditService(gate, self._groups.of, per_round=audits_per_round, rate=rate)
        self._witness = Witness(signer, self._fetch_inputs, per_round=audits_per_round)
        self._on_evidence = on_evidence
        self._evidence: list[Evidence] = []
        self._audits: set[asyncio.Task[None]] = set()
        super().__init__(
            [vector], dht, start=False, prefix=session, target_group_size=None,
            min_matchmaking_time=matchmaking_s, request_timeout=0.5 * matchmaking_s, allow_state_sharing=False,
            client_mode=True if self._role == "contribute" else None,
        )  # fmt: skip
        self.run_in_background(await_ready=False)
        await_start(self, self._ready, START_TIMEOUT_S, dht)
        if self.client_mode:  # hivemind gives it no handlers; this one others need, over connections that it opened
            self._outer_pipe.send(("_answer_introductions", [], {}))

    # ---------------------------------------------------------------------------- in the training process
    def close_round(self, announcement: Announcement, expected: Sequence[str] = ()) -> MPFuture:
        """Find a group, if need be of the `expected` peers, and average with it; the future gives a RoundOutcome.

        Its exceptions: OutdatedStateError, or SwarmError if there was no group or no decision; the vector is
        then as it was. A peer that announces nobody else alive closes the round without looking for anybody.
        """
        future: MPFuture = MPFuture()
        arguments = {"announcement": announcement, "expected": list(expected), "future": future}
        self._outer_pipe.send(("_close_round", [], arguments))
        return future

    def forget_residuals(self) -> None:
        """Drop the error feedback: this peer has taken over another outer state."""
        self._outer_pipe.send(("_forget_residuals", [], {}))

    def learn_revocations(self, sealed: Sequence[str]) -> None:
        """Tell the averager's process of certificates that hold no more."""
        self._outer_pipe.send(("_learn_revocations", [list(sealed)], {}))

    # ---------------------------------------------------------------------------- in the averager's process
    async def add_p2p_handlers(self, p2p: P2P, *args: Any, **kwargs: Any) -> None:
        renew_thread_pool()
        await super().add_p2p_handlers(p2p, *args, **kwargs)
        await self._gate.add_p2p_handlers(p2p, namespace=self.prefix)
        await self._state_service.add_p2p_handlers(p2p, namespace=self.prefix)
        await self._round_service.add_p2p_handlers(p2p, namespace=self.prefix)
        await self._audit_service.add_p2p_handlers(p2p, namespace=self.prefix)

    async def _answer_introductions(self) -> None:
        renew_thread_pool()
        await self._gate.add_p2p_handlers(self._p2p, namespace=self.prefix)

    async def _forget_residuals(self) -> None:
        self._feedback.forget()

    async def _learn_revocations(self, sealed: list[str]) -> None:
        for text in sealed:
            self._gate.learn_revocations(text)

    async def _admits(self, peer: PeerID) -> bool:
        """Whether a peer is a member that may be averaged with."""
        if peer == self.peer_id:
            return True
        try:
            return (await self._gate.require(peer)).role != "observe"
        except MembershipError as error:
            logger.info(f"{error}")
            return False

    async def _close_round(self, *, announcement: Announcement, expected: list[str], future: MPFuture) -> None:
        self._connections.warm_up(self._p2p, expected)
        try:
            started = time.monotonic()
            credential = self._membership.current().credential.model_dump_json(by_alias=True)
            mine = announcement.model_copy(update={"credential": credential})
            info = await self._find_group(mine, announcement.alive)
            self._connections.keep()
            matchmaking_s = time.monotonic() - started
            decided, outcome = await self._average_with(info, mine, matchmaking_s)
            future.set_result(outcome)
            self._audit_soon(decided)
        except SwarmError as error:
            future.set_exception(error)
        except Exception as error:
            logger.warning("the round failed", exc_info=True)
            future.set_exception(SwarmError(f"the round failed: {error!r}"))

    async def _find_group(self, announcement: Announcement, expected_peers: int) -> GroupInfo:
        said = announcement.model_dump_json().encode()
        if expected_peers <= 1:
            return GroupInfo(time.time_ns().to_bytes(20, "big"), (self.peer_id,), (said,))
        # a group of the expected size starts at once; without it, everybody waits the whole matchmaking time
        self._matchmaking.target_group_size = expected_peers
        self._matchmaking.potential_leaders.target_group_size = expected_peers
        directory = self._matchmaking.group_key_manager
        if not isinstance(directory, MembersOnly):  # hivemind makes it late, and anew in each process
            self._matchmaking.group_key_manager = MembersOnly(directory, self._admits)
        scheduled = get_dht_time() + self._matchmaking_s
        search = GroupSearch(scheduled, scheduled + 0.5 * self._matchmaking_s, said)
        try:
            group = await self._matchmaking.look_for_group(search)
        except Exception as error:
            raise SwarmError(f"looking for a group failed: {error!r}") from error
        if group is not None:
            return group
        raise SwarmError(
            f"no group formed within {search.deadline - scheduled + self._matchmaking_s:.1f} s, "
            f"{expected_peers - 1} other peers were expected",
            hint="local work is kept and the round is tried again",
        )

    async def _average_with(
        self, info: GroupInfo, mine: Announcement, matchmaking_s: float
    ) -> tuple[DecidedRound, RoundOutcome]:
        started, me = time.monotonic(), self._signer.peer_id
        announcements = read_announcements(info)
        if announcements.get(me) != mine:
            raise SwarmError("the group's leader changed what this peer announced")
        roles = roles_of(announcements, self._gate, me, self._role)
        quorate = quorate_of(announcements, me, self._min_peers)
        terms = terms_of(
            quorate, announcements, roles, session=self.prefix, group=info.group_id.hex(),
            numel=self._fragment_sizes[quorate.round % len(self._fragment_sizes)],
            fragments=len(self._fragment_sizes), codec=self._codec_name, aggregation=self._aggregation,
        )  # fmt: skip
        given, into = self._averaged_tensors[0][: terms.numel], self._spare.pop() if self._spare else None
        with_lost = self._feedback.with_lost
        vector = await asyncio.get_running_loop().run_in_executor(None, with_lost, terms.round, given, into)
        group = self._open_group(terms, vector)
        # fresh memory of this size costs more than the copying, and nobody asks about groups of the past
        self._spare = [old.exchange.vector for old in self._groups.register(group)]
        exchange = group.exchange
        await exchange.run()
        made = exchange.ledger.manifest
        manifest = await group.agreement.decide()
        assert group.agreement.decision is not None
        decided = DecidedRound(terms, group.agreement.decision, exchange.ledger)
        encoded = decided.averages()
        await asyncio.get_running_loop().run_in_executor(None, self._apply, terms, encoded)
        mine_decided = [p for i, p in enumerate(terms.parts) if p.reducer == me and made[i] == manifest[i] is not None]
        self._feedback.keep(terms.round, exchange.take_residuals(), mine_decided)
        totals = round_totals([announcements[member] for member in terms.members])
        sealed = [decided.sealed(index) for index in range(len(terms.parts))]
        self._round_service.keep(terms, decided.decision, totals, sealed)
        evidence, self._evidence = tuple(self._evidence), []
        return decided, RoundOutcome(
            round=terms.round, members=terms.members, weights=tuple(map(float, terms.weights)), totals=totals,
            zeroed_parts=manifest.count(None), suspects=exchange.suspects.reasons(),
            matchmaking_s=matchmaking_s, reducing_s=time.monotonic() - started,
            bytes_sent=exchange.traffic.sent, bytes_received=exchange.traffic.received, reducers=terms.reducers,
            dropped={member: why for found in exchange.dropped.values() for member, why in sorted(found.items())},
            evidence=evidence,
        )  # fmt: skip

    def _open_group(self, terms: GroupTerms, vector: Tensor) -> Group:
        me, ledger, suspects, traffic = self._signer.peer_id, PartLedger(terms.parts), Suspects(), Traffic()
        added = self._feedback.of_averages(terms.round, [part for part in terms.parts if part.reducer == me])
        notary = Notary(terms, self._signer, vector=vector, added=added)
        exchange = Exchange(
            me=me, members=terms.members, weights=[float(weight) for weight in terms.weights], parts=terms.parts,
            ledger=ledger, vector=vector, added=added, codec=self._codec,
            group_id=bytes.fromhex(terms.group), open_stream=self._open_stream, timeouts=self._timeouts,
            suspects=suspects, traffic=traffic, steps=terms.steps, aggregation=terms.aggregation, notary=notary,
        )  # fmt: skip
        links = links_over(self._stub, terms.group, traffic, self._timeouts.vote_s)
        electorate = Electorate.of(terms)
        if me not in terms.reducers:
            inquiry = Inquiry(
                electorate=electorate, ledger=ledger, links=links, suspects=suspects, first=terms.members.index(me)
            )
            return Group(terms, exchange, notary, inquiry)
        agreement = Agreement(
            electorate=electorate, signer=self._signer, ledger=ledger, links=links, suspects=suspects,
            timeout_s=self._timeouts.vote_s, believes=exchange.credible,
            on_contradiction=lambda first, second: self._accuse_voter(terms, first, second),
        )  # fmt: skip
        return Group(terms, exchange, notary, agreement)

    @torch.no_grad()
    def _apply(self, terms: GroupTerms, encoded: Sequence[bytes | None]) -> None:
        vector = self._averaged_tensors[0]
        for part, buffer in zip(terms.parts, encoded, strict=True):
            values = vector[part.start : part.stop]
            if buffer is None:
                values.zero_()
            else:
                self._codec.decode(buffer, part.numel, out=values)

    # ------------------------------------------------------------------------------------------ audits
    def _audit_soon(self, decided: DecidedRound) -> None:
        """Beside the next round: nobody waits for it."""
        fragment = decided.terms.round % decided.terms.fragments
        before, self._before[fragment] = self._before.get(fragment), decided
        task = asyncio.create_task(self._audit(decided, before))
        self._audits.add(task)
        task.add_done_callback(self._audits.discard)

    async def _audit(self, decided: DecidedRound, before: DecidedRound | None) -> None:
        try:
            for evidence in await self._witness.look_at(decided, before):
                self._found(evidence)
        except Exception:
            logger.warning(f"the audit of round {decided.terms.round} failed", exc_info=True)

    async def _fetch_inputs(self, terms: GroupTerms, claim: Claim, decision: Decision) -> PartInputs:
        return await fetch_inputs(self._p2p, self.prefix, terms, claim, decision, timeout_s=self._timeouts.reducer_s)

    def _accuse_voter(self, terms: GroupTerms, first: Word, second: Word) -> None:
        self._found(accuse(TwoVotes(terms=terms, words=(first, second)), self._signer, now=time.time()))

    def _found(self, evidence: Evidence) -> None:
        logger.warning(f"{evidence}")
        self._evidence.append(evidence)
        self._on_evidence(evidence)

    # ------------------------------------------------------------------------------------------ links to other members
    def _stub(self, peer: str) -> Any:
        return self.get_stub(self._p2p, PeerID.from_base58(peer), namespace=self.prefix)

    async def _open_stream(self, reducer: str, requests: AsyncIterator[AveragingData]) -> Replies:
        async with aclosing(await self._stub(reducer).rpc_aggregate_part(self._rate.paced(requests))) as replies:
            async for message in replies:
                yield message

    # ------------------------------------------------------------------------------------------ RPCs
    async def rpc_join_group(
        self, request: averaging_pb2.JoinRequest, context: P2PContext
    ) -> AsyncIterator[averaging_pb2.MessageFromLeader]:
        """hivemind's own, for members; the word that the group begins must not be lost: it would begin without us."""
        learn_announced(self._gate, context.remote_id.to_base58(), request.gather)
        if not await self._admits(context.remote_id):
            yield averaging_pb2.MessageFromLeader(code=averaging_pb2.PROTOCOL_VIOLATION)
            return
        async for message in super().rpc_join_group(request, context):
            yield message
        await await_hang_up()

    async def rpc_aggregate_part(
        self, stream: AsyncIterator[AveragingData], context: P2PContext
    ) -> AsyncIterator[AveragingData]:
        """A member sends its contribution to the parts that this peer reduces, and receives their averages."""
        if not await self._admits(context.remote_id):
            yield AveragingData(code=averaging_pb2.PROTOCOL_VIOLATION)
            return
        sender = context.remote_id.to_base58()
        first = await asyncio.wait_for(anext(aiter(stream)), self._timeouts.sender_s)
        try:
            group = await self._groups.of(first.group_id.hex(), sender)
        except SwarmError:
            yield AveragingData(code=averaging_pb2.BAD_GROUP_ID)
            await await_hang_up()
            return
        async for message in self._rate.paced(group.exchange.serve(sender, achain(as_aiter(first), stream))):
            yield message

    async def rpc_vote(self, request: BytesValue, context: P2PContext) -> BytesValue:
        """A member's control message of the agreement; an empty answer for a stranger."""
        if not await self._admits(context.remote_id):
            return BytesValue()
        caller, vote = context.remote_id.to_base58(), Vote.model_validate_json(request.value)
        group = await self._groups.of(vote.group, caller)
        answer = await group.agreement.handle(caller, vote)
        return BytesValue(value=answer.model_dump_json().encode())

    async def rpc_fetch_parts(self, request: BytesValue, context: P2PContext) -> AsyncIterator[BytesValue]:
        """A member fetches encoded averages that it lacks: index (4 bytes, big-endian), then the bytes, if any.

        A stranger gets nothing.
        """
        if not await self._admits(context.remote_id):
            return
        wanted = PartsRequest.model_validate_json(request.value)
        group = await self._groups.of(wanted.group, context.remote_id.to_base58())
        for index in wanted.indices:
            encoded = group.exchange.ledger.encoded(index) or b""
            await self._rate.take(len(encoded))
            yield BytesValue(value=index.to_bytes(4, "big") + encoded)
        await await_hang_up()

    async def rpc_download_state(
        self, _request: averaging_pb2.DownloadRequest, _context: P2PContext
    ) -> AsyncIterator[averaging_pb2.DownloadData]:
        """hivemind's own download has neither digest nor bound: `StateService` takes its place."""
        return
        yield  # makes this a stream, an empty one


def _own_role(membership: MembershipSource) -> Role:
    """What this peer takes itself for. The others go by its certificate: with one that does not hold it is alone."""
    try:
        return certificate_of(membership.current()).role
    except MembershipError as error:
        logger.warning(f"this peer's own certificate does not hold: {error}")
        return "reduce"
