"""Opens a stream to each peer of a round while its group is still being found, so that no part waits for a dial.

Also the place where a relayed connection gets another chance to become direct: libp2p punches holes only when a relayed
connection is opened, and for that it must have been told by four public peers how its own router shows it. When two
homes first meet that is seldom so.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable

from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.p2p import P2P, PeerID
from hivemind.utils import get_logger

from cotrain.membership.document import MembershipSource
from cotrain.reachability import is_circuit
from cotrain.swarm.gate import Gate

logger = get_logger(__name__)

ATTEMPTS = 2
ANSWER_TIMEOUT_S = 4.0
"""A dial through a relay takes a second or two where lines are long; both attempts fit into a matchmaking of 10 s."""

FIRST_REDIAL_S = 20.0
REDIAL_EVERY_S = 600.0
"""A redial may cost the peer its place in this round's group, so it is rare."""


class RedialClock:
    """When a peer that is reached through the relay alone is to be dialled anew; seconds of one clock."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def is_due(self, peer: str, now: float) -> bool:
        """Asked only while the peer is reached through the relay alone; True once when its time has come."""
        due = self._due.setdefault(peer, now + FIRST_REDIAL_S)
        if now < due:
            return False
        self._due[peer] = now + REDIAL_EVERY_S
        return True

    def forget(self, peer: str) -> None:
        """It is reached in another way."""
        self._due.pop(peer, None)


class Connections:
    """Of one process to the members of one session."""

    def __init__(self, session: str, gate: Gate, membership: MembershipSource):
        """`membership` is this peer's own: what is said over a stream that is opened is an introduction."""
        self._session, self._gate, self._membership = session, gate, membership
        self._tasks: dict[str, asyncio.Task[bool]] = {}
        self._redials = RedialClock()
        self._may_disconnect = False

    def warm_up(self, p2p: P2P, peers: Iterable[str]) -> dict[str, asyncio.Task[bool]]:
        """Begin to open streams, and do not wait; each task says whether its peer has answered.

        A contributor is left out: nobody calls it in a round.
        """
        self._may_disconnect = True
        for peer in peers:
            certificate = self._gate.member(peer)
            if peer not in self._tasks and (certificate is None or certificate.role != "contribute"):
                self._tasks[peer] = asyncio.create_task(self._open(p2p, peer), name=peer)
                self._tasks[peer].add_done_callback(lambda task: self._tasks.pop(task.get_name(), None))
        return dict(self._tasks)

    def keep(self) -> None:
        """From here to the next `warm_up` the round uses the connections: none is ended to open a fresh one."""
        self._may_disconnect = False

    async def _open(self, p2p: P2P, peer: str) -> bool:
        for attempt in range(ATTEMPTS):
            try:
                if attempt == 0:
                    await self._redial_relayed(p2p, peer)
                await self._introduce(p2p, PeerID.from_base58(peer))
                return True
            except TimeoutError:
                # over a connection whose other end is gone nothing ever comes back: the next one must be fresh
                await self._disconnect(p2p, peer)
            except Exception as error:
                logger.info(f"attempt {attempt + 1} to open a stream to {peer} failed: {error!r}")
        logger.warning(f"{peer} did not answer in {ATTEMPTS} attempts; the round is tried with it all the same")
        return False

    async def _redial_relayed(self, p2p: P2P, peer: str) -> None:
        """Of two relayed peers the one with the smaller id acts."""
        routes = [
            str(address) for info in await p2p.list_peers() if str(info.peer_id) == peer for address in info.addrs
        ]
        if not routes or not all(map(is_circuit, routes)):
            self._redials.forget(peer)
        elif p2p.peer_id.to_base58() < peer and self._redials.is_due(peer, time.monotonic()):
            await self._disconnect(p2p, peer)

    async def _introduce(self, p2p: P2P, peer: PeerID) -> None:
        mine = self._membership.current().credential.model_dump_json(by_alias=True).encode()
        stub = Gate.get_stub(p2p, peer, namespace=self._session)
        await stub.rpc_introduce(BytesValue(value=mine), timeout=ANSWER_TIMEOUT_S)

    async def _disconnect(self, p2p: P2P, peer: str) -> None:
        if self._may_disconnect:
            with contextlib.suppress(Exception):  # there may be no connection left to end
                await p2p._client.disconnect(PeerID.from_base58(peer))
