"""Finds out how others can connect to this machine, before its daemon starts: with daemons that live for seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from hivemind.p2p import P2P, PeerID
from hivemind.utils import get_logger
from hivemind.utils.multiaddr import Multiaddr

from cotrain.errors import CotrainError, SwarmError
from cotrain.membership.document import MembershipSource
from cotrain.reachability import Address, Attachment, Connection, advice, decide, is_circuit, plain_addresses
from cotrain.swarm.daemon import DAEMON_TIMEOUT_S, LOOK_EVERY_S, RESERVATION_TIMEOUT_S, daemon_arguments, extra_flags
from cotrain.swarm.dial_back import AGAIN_AFTER_S, DialBackAnswer, ask_dial_back
from cotrain.swarm.gate import Gate

logger = get_logger(__name__)

QUESTIONS = 3
"""Somebody who has just joined and left is not dialled back at once."""
UNKNOWN = "the checkpointer did not say whether others can connect to this node; it takes part as if they could"


class Prober:
    """One machine's way to one session."""

    def __init__(
        self, *, session: str, host: str, port: int, initial_peers: Sequence[str], identity_path: Path,
        membership: MembershipSource,
    ):  # fmt: skip
        """`host` and `port` (0: any free one) are where the peer will listen, `initial_peers` the checkpointer."""
        self._session, self._host, self._port = session, host, port
        self._initial_peers, self._identity_path, self._membership = list(initial_peers), identity_path, membership

    async def find_out(self) -> Attachment:
        """At most half a minute or so. Raises SwarmError if there is no way to the checkpointer."""
        answer = await self._ask()
        reachable = None if answer is None else bool(answer.reachable)
        relayed = reachable is False and await self._is_relayed()
        connection = decide(reachable=reachable, relayed=relayed)
        if answer is None:
            return Attachment(connection=connection, port=self._port, notice=UNKNOWN)
        notice = advice(connection, port=self._port, seen_from=answer.seen_from)
        return Attachment(connection=connection, port=self._port, notice=notice)

    async def _ask(self) -> DialBackAnswer | None:
        """What a dialling back shows; None if there was none."""
        observer = str(Multiaddr(self._initial_peers[0])["p2p"])
        async with self._daemon("direct") as p2p:
            addresses = {(a.family, a.port): a for a in await _own_addresses(p2p) if a.transport == "tcp"}
            self._port = next(iter(addresses.values())).port
            gate = Gate(self._session, self._membership)
            await gate.add_p2p_handlers(p2p, namespace=self._session)
            for attempt in range(QUESTIONS):
                try:
                    await gate.require(PeerID.from_base58(observer))
                    return await ask_dial_back(p2p, observer, self._session, [str(a) for a in addresses.values()])
                except CotrainError as error:
                    logger.info(f"{error}")
                    if attempt + 1 < QUESTIONS:
                        await asyncio.sleep(AGAIN_AFTER_S)
        return None

    async def _is_relayed(self) -> bool:
        async with self._daemon("relayed") as p2p:
            try:
                async with asyncio.timeout(RESERVATION_TIMEOUT_S):
                    while not any(is_circuit(str(a)) for a in await p2p.get_visible_maddrs(latest=True)):  # noqa: ASYNC110
                        await asyncio.sleep(LOOK_EVERY_S)
            except TimeoutError:
                return False
        return True

    @asynccontextmanager
    async def _daemon(self, connection: Connection) -> AsyncIterator[P2P]:
        arguments, flags = daemon_arguments(
            host=self._host, port=self._port, connection=connection, initial_peers=self._initial_peers, is_relay=False
        )
        try:
            with extra_flags(flags):
                p2p = await P2P.create(
                    initial_peers=self._initial_peers, identity_path=str(self._identity_path),
                    check_if_identity_free=False, startup_timeout=DAEMON_TIMEOUT_S, **arguments,
                )  # fmt: skip
        except Exception as error:
            raise SwarmError(
                f"the peer-to-peer network could not be joined: {error}",
                hint=f"none of {', '.join(self._initial_peers)} could be reached from here",
            ) from error
        try:
            yield p2p
        finally:
            await p2p.shutdown()


async def _own_addresses(p2p: P2P) -> list[Address]:
    return plain_addresses([str(address) for address in await p2p.get_visible_maddrs()])
