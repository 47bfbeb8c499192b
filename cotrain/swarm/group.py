"""What hivemind's matchmaking is asked for, and how the group that it answers with is read.

The leader of a group passes on what the members announced. It cannot make up a role, which the coordinator signed, nor
change a member's announcement without that member leaving, nor tell two members two things: they would sign different
terms, and no vote or part of one would hold for the other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hivemind.averaging.group_info import GroupInfo
from hivemind.averaging.key_manager import GroupKeyManager
from hivemind.p2p import PeerID
from hivemind.utils import get_dht_time

from cotrain.errors import SwarmError
from cotrain.membership.certificate import Role
from cotrain.membership.sealed import MembershipError
from cotrain.sections import Aggregation
from cotrain.swarm.gate import Gate
from cotrain.swarm.outcome import MinorityError, OutdatedStateError
from cotrain.swarm.rounds import (
    Announcement,
    Quorate,
    averaging_weights,
    missing_for_majority,
    quorate_members,
)
from cotrain.swarm.shares import reducer_shares
from cotrain.swarm.terms import CodecName, GroupTerms


@dataclass(frozen=True)
class GroupSearch:
    """What hivemind's matchmaking needs to know of a step.

    Attributes:
        scheduled_time: when the group should begin, in DHT time, seconds.
        deadline: when looking for a group ends, in DHT time, seconds.
        data_for_gather: this peer's announcement, as JSON; each member gets everybody's.
    """

    scheduled_time: float
    deadline: float
    data_for_gather: bytes

    def get_timeout(self) -> float:
        return max(0.0, self.deadline - get_dht_time())


class MembersOnly:
    """hivemind's directory of peers that look for a group, without those that are no members."""

    def __init__(self, directory: GroupKeyManager, admits: Callable[[PeerID], Awaitable[bool]]):
        self._directory, self._admits = directory, admits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._directory, name)

    async def get_averagers(self, group_key: str, only_active: bool) -> list[tuple[PeerID, float]]:
        """Peer and expiration of each member that looks for a group."""
        found = await self._directory.get_averagers(group_key, only_active)
        admitted = await asyncio.gather(*(self._admits(peer) for peer, _ in found))
        return [entry for entry, good in zip(found, admitted, strict=True) if good]


def read_announcements(info: GroupInfo) -> dict[str, Announcement]:
    """What each member of a formed group announced. Raises SwarmError for a group that cannot be."""
    peers = [peer.to_base58() for peer in info.peer_ids]
    if len(set(peers)) != len(peers):
        raise SwarmError("the leader formed a group with a peer twice")
    announcements = {}
    for peer, said in zip(peers, info.gathered, strict=True):
        try:
            announcements[peer] = Announcement.model_validate_json(said)
        except ValueError as error:
            raise SwarmError(f"announced what cannot be read: {error}", field=peer) from error
    return announcements


def roles_of(announcements: Mapping[str, Announcement], gate: Gate, me: str, my_role: Role) -> dict[str, Role]:
    """What each member may do, by its certificate; who is not known yet shows it in its announcement.

    Raises SwarmError if somebody is in the group who may not average.
    """
    roles = {me: my_role}
    for peer, said in announcements.items():
        if peer != me:
            try:
                roles[peer] = admit_announced(gate, peer, said)
            except MembershipError as error:
                raise SwarmError(f"the group's leader let in {peer}, who may not average here: {error}") from error
    return roles


def admit_announced(gate: Gate, peer: str, said: Announcement) -> Role:
    """The role of a peer that announced this. Raises MembershipError for a stranger or one that may only observe.

    What it shows here counts, not what it has shown before: its role may have changed, and all members read the same.
    """
    known = None if said.credential else gate.member(peer)
    certificate = known or gate.admit(peer, said.credential.encode())
    if certificate.role == "observe":
        raise MembershipError("may only observe", field=peer)
    return certificate.role


def learn_announced(gate: Gate, peer: str, said: bytes) -> None:
    """Take note of the credential in what a peer sends to join a group, so that it need not be asked for it."""
    with contextlib.suppress(ValueError, MembershipError):  # what does not hold is refused where the role is asked for
        admit_announced(gate, peer, Announcement.model_validate_json(said))


def quorate_of(announcements: Mapping[str, Announcement], me: str, min_peers: int) -> Quorate:
    """The members that average together. Raises OutdatedStateError or MinorityError if this peer's are not they."""
    quorate, mine = quorate_members(announcements), announcements[me]
    if me not in quorate.members:
        raise OutdatedStateError(
            f"holds round {mine.round} ({mine.digest[:12]}), the group holds round {quorate.round} "
            f"({quorate.digest[:12]})",
            details={"round": quorate.round, "digest": quorate.digest},
        )
    if missing := missing_for_majority([announcements[member] for member in quorate.members], min_peers):
        met = len(quorate.members)
        raise MinorityError(
            f"{met} peers with the same state met, {met + missing} are needed",
            hint="local work is kept and the round is tried again",
        )
    return quorate


def terms_of(
    quorate: Quorate, announcements: Mapping[str, Announcement], roles: Mapping[str, Role], *, session: str,
    group: str, numel: int, fragments: int, codec: CodecName, aggregation: Aggregation,
) -> GroupTerms:  # fmt: skip
    """What the members sign. Raises MinorityError if none of them may reduce."""
    said = [announcements[member] for member in quorate.members]
    reducers = tuple(member for member in quorate.members if roles[member] == "reduce")
    if not reducers:
        raise MinorityError(
            f"none of the {len(said)} peers that met may reduce",
            hint="a group needs a peer that others can reach; local work is kept and the round is tried again",
        )
    return GroupTerms(
        session=session, group=group, round=quorate.round, state=quorate.digest, members=quorate.members,
        weights=tuple(int(weight) for weight in averaging_weights(said)), steps=tuple(one.steps for one in said),
        reducers=reducers, numel=numel, fragments=fragments, codec=codec, aggregation=aggregation,
        shares=tuple(reducer_shares([one.uplink for one in said], [member in reducers for member in quorate.members])),
    )  # fmt: skip
