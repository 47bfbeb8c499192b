"""Whether strangers can open a connection to this machine: the checkpointer dials back from a fresh identity.

A connection that is there already proves nothing (it may have been opened from behind a router), and p2pd does not
tell what its AutoNAT finds. So a second p2pd that listens nowhere and relays nothing tries each address.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Any

from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.p2p import P2P, P2PContext, PeerID, ServicerBase
from hivemind.utils import get_logger
from hivemind.utils.multiaddr import Multiaddr
from pydantic import BaseModel, ConfigDict, Field

from cotrain.errors import SwarmError
from cotrain.reachability import MOST_ADDRESSES, candidates, plain_addresses, without_peer
from cotrain.swarm.gate import Gate

logger = get_logger(__name__)

DIAL_TIMEOUT_S = 6.0
"""Longer than the five seconds after which libp2p gives up an address that does not answer."""
ANSWER_TIMEOUT_S = 60.0
AGAIN_AFTER_S = 10.0
"""A peer is dialled back at most this often."""
MOST_KNOWN = 4096
MOST_AT_ONCE = 4


class DialBackRequest(BaseModel):
    """Addresses under which a peer believes to be reached."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    addresses: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=MOST_ADDRESSES)]


class DialBackAnswer(BaseModel):
    """What the dialling showed.

    Attributes:
        seen_from: IP addresses from which the peer's connections come.
        reachable: those of the addresses tried that a stranger could connect to.
        tried: addresses that were dialled: those of the request, and their ports at `seen_from`. No others, so that
            nobody can have a third party dialled.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    seen_from: list[str]
    reachable: list[str]
    tried: list[str]


class DialBack(ServicerBase):
    """Dials members back, a few at a time."""

    def __init__(self, gate: Gate):
        self._gate = gate
        self._p2p: P2P | None = None
        self._dialled_at: dict[str, float] = {}
        self._turn = asyncio.Semaphore(MOST_AT_ONCE)

    async def add_p2p_handlers(self, p2p: P2P, *args: Any, **kwargs: Any) -> None:
        self._p2p = p2p
        await super().add_p2p_handlers(p2p, *args, **kwargs)

    async def rpc_dial_back(self, request: BytesValue, context: P2PContext) -> BytesValue:
        """A DialBackRequest for a DialBackAnswer; an empty answer for a stranger, or so soon after the last one."""
        peer = context.remote_id.to_base58()
        if not await self._gate.admits(context.remote_id) or not self._may_ask(peer):
            return BytesValue()
        wanted = DialBackRequest.model_validate_json(request.value)
        assert self._p2p is not None
        seen_from = await _seen_from(self._p2p, context.remote_id)
        tried = candidates(wanted.addresses, seen_from)
        async with self._turn:
            reachable = [address for address in tried if await can_connect(context.remote_id, address)]
        answer = DialBackAnswer(seen_from=seen_from, reachable=reachable, tried=tried)
        return BytesValue(value=answer.model_dump_json().encode())

    def _may_ask(self, peer: str) -> bool:
        now = time.monotonic()
        if now - self._dialled_at.get(peer, -AGAIN_AFTER_S) < AGAIN_AFTER_S:
            return False
        while len(self._dialled_at) >= MOST_KNOWN:
            del self._dialled_at[next(iter(self._dialled_at))]
        self._dialled_at[peer] = now
        return True


async def ask_dial_back(p2p: P2P, observer: str, session: str, addresses: Sequence[str]) -> DialBackAnswer:
    """Have the observer dial these libp2p addresses of this peer. Raises SwarmError if it does not."""
    request = DialBackRequest(addresses=[without_peer(address) for address in addresses[:MOST_ADDRESSES]])
    stub = DialBack.get_stub(p2p, PeerID.from_base58(observer), namespace=session)
    message = BytesValue(value=request.model_dump_json().encode())
    try:
        answer = await stub.rpc_dial_back(message, timeout=ANSWER_TIMEOUT_S)
        return DialBackAnswer.model_validate_json(answer.value)
    except Exception as error:
        raise SwarmError(f"the checkpointer did not dial back: {error!r}", field=observer) from error


async def can_connect(peer: PeerID, address: str) -> bool:
    """Whether a p2pd that has just been started, and that nobody knows, can connect to the peer there."""
    stranger = await P2P.create(
        dht_mode="client", no_listen=True, use_relay=False, auto_nat=False, nat_port_map=False,
        check_if_identity_free=False,
    )  # fmt: skip
    try:
        await asyncio.wait_for(stranger._client.connect(peer, [Multiaddr(address)]), DIAL_TIMEOUT_S)
    except Exception as error:
        logger.info(f"{peer} cannot be reached at {address}: {error!r}")
        return False
    finally:
        await stranger.shutdown()
    return True


async def _seen_from(p2p: P2P, peer: PeerID) -> list[str]:
    """The IP addresses that the peer's connections to this machine have at their other end."""
    connections = [str(address) for info in await p2p.list_peers() if info.peer_id == peer for address in info.addrs]
    return list(dict.fromkeys(address.host for address in plain_addresses(connections)))
