"""Asking peers that have come into view for their certificates, beside everything else."""

from __future__ import annotations

import threading

from hivemind.dht import DHT
from hivemind.p2p import PeerID
from hivemind.utils import get_logger

from cotrain.membership.sealed import MembershipError
from cotrain.swarm.gate import Gate
from cotrain.swarm.loop import LoopThread

logger = get_logger(__name__)


class Introductions:
    """Called with a peer's id, it has the gate ask that peer. Opens the connection before a round needs it, too."""

    def __init__(self, dht: DHT, loop: LoopThread, gate: Gate):
        self._dht, self._loop, self._gate = dht, loop, gate
        self._under_way: set[str] = set()
        self._refused: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, peer: str) -> None:
        """Start asking, unless it is being asked already. Does not wait."""
        with self._lock:
            if peer in self._under_way:
                return
            self._under_way.add(peer)
        self._loop.start(self._ask(peer))

    async def _ask(self, peer: str) -> None:
        try:
            await self._gate.require(PeerID.from_base58(peer), await self._dht.replicate_p2p())
            self._refused.discard(peer)
        except (MembershipError, ValueError) as error:  # ValueError: a name that is no peer id
            if peer not in self._refused:
                logger.warning(f"{peer} is not let in: {error}")
            self._refused.add(peer)
        finally:
            with self._lock:
                self._under_way.discard(peer)
