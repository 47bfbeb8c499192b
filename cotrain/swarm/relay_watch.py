"""Notices that the relay has forgotten this peer: after its restart p2pd asks for no new place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hivemind.dht import DHT
from hivemind.utils import get_logger

from cotrain.reachability import is_circuit

logger = get_logger(__name__)

LOOK_EVERY_S = 5.0
LOST_AFTER_S = 30.0
"""Longer than a relay takes to give a place, and p2pd to notice that it has none."""


class RelayWatch:
    """Looks after a relayed peer's address at the relay. `run` belongs into a loop beside the training."""

    def __init__(self, dht: DHT, relay_is_there: Callable[[], bool]):
        """`relay_is_there`: whether the checkpointer is in view; while it is not, a restart would not help."""
        self._dht, self._relay_is_there = dht, relay_is_there
        self.is_lost = False
        """Whether the relay is there, and has given this peer no address for a while."""

    async def run(self) -> None:
        """Until the address is lost, or for ever."""
        p2p = await self._dht.replicate_p2p()
        without_s = 0.0
        while without_s < LOST_AFTER_S:
            await asyncio.sleep(LOOK_EVERY_S)
            addresses = await p2p.get_visible_maddrs(latest=True)
            placed = any(is_circuit(str(address)) for address in addresses)
            without_s = 0.0 if placed or not self._relay_is_there() else without_s + LOOK_EVERY_S
        self.is_lost = True
        logger.warning("the relay is there, but has no place for this peer any more")
