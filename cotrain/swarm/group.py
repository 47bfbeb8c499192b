"""What hivemind's matchmaking is asked for, and how the group that it answers with is read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from hivemind.averaging.group_info import GroupInfo
from hivemind.averaging.key_manager import GroupKeyManager
from hivemind.p2p import PeerID
from hivemind.utils import get_dht_time

from cotrain.errors import SwarmError
from cotrain.swarm.rounds import Announcement


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
