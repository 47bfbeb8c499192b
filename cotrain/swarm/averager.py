"""One round of averaging, in a process of its own: matchmaking by hivemind, then the exact all-reduce.

hivemind's DecentralizedAverager gives the process, the matchmaking and the transport; its own all-reduce is not used,
because with a lossy codec every peer would end with another average, and a failed reducer would leave peers diverged
while the step "succeeds".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, AsyncIterator  # noqa: UP035 - hivemind knows a stream by typing's name

import torch
from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.averaging.averager import DecentralizedAverager
from hivemind.averaging.group_info import GroupInfo
from hivemind.dht import DHT
from hivemind.p2p import P2P, P2PContext, PeerID
from hivemind.proto import averaging_pb2
from hivemind.proto.averaging_pb2 import AveragingData
from hivemind.utils import MPFuture, get_dht_time, get_logger
from hivemind.utils.asyncio import achain, aiter_with_timeout, as_aiter
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cotrain.errors import SwarmError
from cotrain.membership.sealed import MembershipError
from cotrain.sections import Aggregation
from cotrain.swarm.all_reduce import Exchange, Replies, Residuals, Timeouts, Traffic
from cotrain.swarm.commit import Agreement, Links, Vote
from cotrain.swarm.gate import Gate
from cotrain.swarm.group import GroupSearch, MembersOnly, read_announcements
from cotrain.swarm.outcome import MinorityError, OutdatedStateError, RoundOutcome
from cotrain.swarm.parts import PART_VALUES, PartLedger, partition
from cotrain.swarm.results import RoundService
from cotrain.swarm.rounds import (
    Announcement,
    Quorate,
    averaging_weights,
    missing_for_majority,
    quorate_members,
    round_totals,
)
from cotrain.swarm.state import SharedState, StateService
from cotrain.swarm.streams import await_hang_up
from cotrain.train.codec import BLOCK, Codec

logger = get_logger(__name__)

GROUP_WAIT_S = 2.0
"""How long a message may arrive before its group is known here."""


class PartsRequest(BaseModel):
    """Members ask for the bytes of parts of their group."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    group: Annotated[str, Field(pattern=r"^[0-9a-f]{1,128}$")]
    indices: Annotated[list[Annotated[int, Field(ge=0, le=100_000)]], Field(max_length=100_000)]


@dataclass
class _Group:
    """A group that this peer is or was a member of."""

    round: int
    members: tuple[str, ...]
    exchange: Exchange
    agreement: Agreement


class RoundAverager(DecentralizedAverager):
    """Averages one flat pseudo-gradient a round; serves the outer state and the last rounds' averages."""

    # hivemind caches the table of RPCs in these; a subclass would inherit the table of its parent
    _rpc_handlers = None
    _stub_type = None

    def __init__(
        self, vector: Tensor, dht: DHT, *, session: str, codec: Codec, state: SharedState, gate: Gate,
        matchmaking_s: float, aggregation: Aggregation = "filter", min_peers: int = 1, timeouts: Timeouts | None = None,
    ):  # fmt: skip
        """`vector` [n] float32: the pseudo-gradient goes in, the average comes out; it is moved to shared memory."""
        self._codec, self._timeouts, self._gate = codec, timeouts or Timeouts(), gate
        self._state_service = StateService(state, gate)
        self._residuals: Residuals | None = None
        self._groups: dict[str, _Group] = {}
        self._group_opened: asyncio.Event | None = None
        self._round_service = RoundService(gate)
        self._matchmaking_s, self._min_peers, self._aggregation = matchmaking_s, min_peers, aggregation
        super().__init__(
            [vector], dht, start=True, prefix=session, target_group_size=None,
            min_matchmaking_time=matchmaking_s, request_timeout=0.5 * matchmaking_s, allow_state_sharing=False,
        )  # fmt: skip

    # ---------------------------------------------------------------------------- in the training process
    def close_round(self, announcement: Announcement) -> MPFuture:
        """Find a group and average the vector with it; the future gives a RoundOutcome.

        Its exceptions: OutdatedStateError, or SwarmError if there was no group or no decision; the vector is
        then as it was. A peer that announces nobody else alive closes the round without looking for anybody.
        """
        future: MPFuture = MPFuture()
        arguments = {"announcement": announcement, "future": future}
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
        self._group_opened = asyncio.Event()
        await super().add_p2p_handlers(p2p, *args, **kwargs)
        await self._gate.add_p2p_handlers(p2p, namespace=self.prefix)
        await self._state_service.add_p2p_handlers(p2p, namespace=self.prefix)
        await self._round_service.add_p2p_handlers(p2p, namespace=self.prefix)

    async def _forget_residuals(self) -> None:
        self._residuals = None

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

    async def _close_round(self, *, announcement: Announcement, future: MPFuture) -> None:
        try:
            started = time.monotonic()
            group = await self._find_group(announcement, announcement.alive)
            matchmaking_s = time.monotonic() - started
            future.set_result(await self._average_with(group, announcement, matchmaking_s))
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
            strangers = [str(peer) for peer in group.peer_ids if not await self._admits(peer)]
            if strangers:
                raise SwarmError(f"the group's leader let in {', '.join(strangers)}, who may not average here")
            return group
        raise SwarmError(
            f"no group formed within {search.deadline - scheduled + self._matchmaking_s:.1f} s, "
            f"{expected_peers - 1} other peers were expected",
            hint="local work is kept and the round is tried again",
        )

    async def _average_with(self, info: GroupInfo, mine: Announcement, matchmaking_s: float) -> RoundOutcome:
        started, me = time.monotonic(), self.peer_id.to_base58()
        announcements = read_announcements(info)
        quorate = quorate_members(announcements)
        if me not in quorate.members:
            raise OutdatedStateError(
                f"holds round {mine.round} ({mine.digest[:12]}), the group holds round {quorate.round} "
                f"({quorate.digest[:12]})",
                details={"round": quorate.round, "digest": quorate.digest},
            )
        said = [announcements[member] for member in quorate.members]
        if missing := missing_for_majority(said, self._min_peers):
            raise MinorityError(
                f"{len(said)} peers with the same state met, {len(said) + missing} are needed",
                hint="local work is kept and the round is tried again",
            )
        totals = round_totals(said)
        numel = self._averaged_tensors[0].numel()
        residuals = (self._residuals or Residuals.zeros(numel)).clone()
        group = self._open_group(info.group_id, quorate, said, residuals)
        self._register(info.group_id.hex(), group)
        await group.exchange.run()
        manifest = await group.agreement.decide()
        encoded = [group.exchange.ledger.encoded(i) if d is not None else None for i, d in enumerate(manifest)]
        await asyncio.get_running_loop().run_in_executor(None, self._apply, group, encoded)
        self._residuals = residuals
        self._round_service.keep(quorate.round, totals, group.exchange.parts, encoded)
        traffic = group.exchange.traffic
        return RoundOutcome(
            round=quorate.round, members=quorate.members, weights=tuple(group.exchange.weights), totals=totals,
            zeroed_parts=manifest.count(None), suspects=tuple(sorted(group.exchange.suspects)),
            dropped=_dropped_members(group.exchange),
            matchmaking_s=matchmaking_s, reducing_s=time.monotonic() - started,
            bytes_sent=traffic.sent, bytes_received=traffic.received,
        )  # fmt: skip

    def _open_group(
        self,
        group_id: bytes,
        quorate: Quorate,
        said: Sequence[Announcement],
        residuals: Residuals,
    ) -> _Group:
        members, weights = quorate.members, averaging_weights(said)
        me, vector = self.peer_id.to_base58(), self._averaged_tensors[0]
        parts = partition(vector.numel(), members, [1] * len(members), BLOCK, PART_VALUES)
        ledger, suspects, traffic = PartLedger(parts), set[str](), Traffic()
        exchange = Exchange(
            me=me, members=members, weights=weights, parts=parts, ledger=ledger,
            vector=vector + residuals.contribution, residuals=residuals, codec=self._codec, group_id=group_id,
            open_stream=self._open_stream, timeouts=self._timeouts, suspects=suspects, traffic=traffic,
            steps=[one.steps for one in said], aggregation=self._aggregation,
        )  # fmt: skip
        agreement = Agreement(
            group=group_id.hex(), me=me, members=members, ledger=ledger, suspects=suspects,
            links=self._links(group_id, traffic), timeout_s=self._timeouts.vote_s,
        )  # fmt: skip
        return _Group(quorate.round, members, exchange, agreement)

    def _register(self, group: str, state: _Group) -> None:
        assert self._group_opened is not None
        self._groups[group] = state
        for old in list(self._groups)[:-2]:
            del self._groups[old]
        self._group_opened.set()  # wakes all that wait; those who come later wait for the next one
        self._group_opened = asyncio.Event()

    @torch.no_grad()
    def _apply(self, group: _Group, encoded: Sequence[bytes | None]) -> None:
        vector = self._averaged_tensors[0]
        for part, buffer in zip(group.exchange.parts, encoded, strict=True):
            values = vector[part.start : part.stop]
            if buffer is None:
                values.zero_()
            else:
                values.copy_(self._codec.decode(buffer, part.numel))

    # ------------------------------------------------------------------------------------------ links to other members
    def _stub(self, peer: str) -> Any:
        return self.get_stub(self._p2p, PeerID.from_base58(peer), namespace=self.prefix)

    async def _open_stream(self, reducer: str, requests: AsyncIterator[AveragingData]) -> Replies:
        async with aclosing(await self._stub(reducer).rpc_aggregate_part(requests)) as replies:
            async for message in replies:
                yield message

    def _links(self, group_id: bytes, traffic: Traffic) -> Links:
        async def call(peer: str, vote: Vote) -> Vote:
            message = BytesValue(value=vote.model_dump_json().encode())
            traffic.sent += message.ByteSize()
            answer = await self._stub(peer).rpc_vote(message, timeout=self._timeouts.vote_s)
            traffic.received += answer.ByteSize()
            return Vote.model_validate_json(answer.value)

        async def fetch(peer: str, indices: Sequence[int]) -> AsyncIterator[tuple[int, bytes]]:
            request = PartsRequest(group=group_id.hex(), indices=list(indices))
            call = self._stub(peer).rpc_fetch_parts(BytesValue(value=request.model_dump_json().encode()))
            async with aclosing(await call) as stream:
                messages = aiter_with_timeout(stream, self._timeouts.vote_s)
                for _ in indices:
                    message = await anext(messages)
                    traffic.received += message.ByteSize()
                    yield int.from_bytes(message.value[:4], "big"), message.value[4:]

        return Links(call, fetch)

    async def _group_of(self, group: str, caller: str) -> _Group:
        """The group that a message is about; raises SwarmError for one that this peer and the caller are not in."""
        try:
            async with asyncio.timeout(GROUP_WAIT_S):
                while group not in self._groups:
                    assert self._group_opened is not None
                    await self._group_opened.wait()
        except TimeoutError:
            raise SwarmError(f"not a member of group {group[:12]}") from None
        if caller not in self._groups[group].members:
            raise SwarmError(f"is not a member of group {group[:12]}", field=caller)
        return self._groups[group]

    # ------------------------------------------------------------------------------------------ RPCs
    async def rpc_join_group(
        self, request: averaging_pb2.JoinRequest, context: P2PContext
    ) -> AsyncIterator[averaging_pb2.MessageFromLeader]:
        """hivemind's own, for members; the word that the group begins must not be lost: it would begin without us."""
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
            group = await self._group_of(first.group_id.hex(), sender)
        except SwarmError:
            yield AveragingData(code=averaging_pb2.BAD_GROUP_ID)
            await await_hang_up()
            return
        async for message in group.exchange.serve(sender, achain(as_aiter(first), stream)):
            yield message

    async def rpc_vote(self, request: BytesValue, context: P2PContext) -> BytesValue:
        """A member's control message of the agreement; an empty answer for a stranger."""
        if not await self._admits(context.remote_id):
            return BytesValue()
        caller, vote = context.remote_id.to_base58(), Vote.model_validate_json(request.value)
        group = await self._group_of(vote.group, caller)
        answer = await group.agreement.handle(caller, vote)
        return BytesValue(value=answer.model_dump_json().encode())

    async def rpc_fetch_parts(self, request: BytesValue, context: P2PContext) -> AsyncIterator[BytesValue]:
        """A member fetches encoded averages that it lacks: index (4 bytes, big-endian), then the bytes, if any.

        A stranger gets nothing.
        """
        if not await self._admits(context.remote_id):
            return
        wanted = PartsRequest.model_validate_json(request.value)
        group = await self._group_of(wanted.group, context.remote_id.to_base58())
        for index in wanted.indices:
            encoded = group.exchange.ledger.encoded(index) or b""
            yield BytesValue(value=index.to_bytes(4, "big") + encoded)
        await await_hang_up()

    async def rpc_download_state(
        self, _request: averaging_pb2.DownloadRequest, _context: P2PContext
    ) -> AsyncIterator[averaging_pb2.DownloadData]:
        """hivemind's own download has neither digest nor bound: `StateService` takes its place."""
        return
        yield  # makes this a stream, an empty one


def _dropped_members(exchange: Exchange) -> dict[str, str]:
    return {member: reason for part in exchange.dropped.values() for member, reason in sorted(part.items())}


def renew_thread_pool() -> None:
    """Make torch safe for several new threads of a forked process; call it in a new thread, before there are others.

    If the parent had called `torch.set_num_threads`, each new thread's first operation asks for torch's thread pool.
    After a fork the first to ask replaces the inherited one, without a lock: two at once fail with "Invalid thread
    pool!".
    """
    torch.get_num_threads()
