"""The libp2p daemon of a peer: with which arguments it runs, and the DHT that starts it."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hivemind.dht import DHT
from hivemind.dht.node import DHTNode
from hivemind.p2p import P2P

from cotrain.errors import SwarmError
from cotrain.peer_key import PeerSigner
from cotrain.reachability import Connection, is_circuit
from cotrain.swarm.mailbox import open_mailbox
from cotrain.swarm.records import OwnedRecords
from cotrain.swarm.silence import START_TIMEOUT_S, answer_of, await_start

DAEMON_TIMEOUT_S = 60.0
RESERVATION_TIMEOUT_S = 15.0
"""How long a relay may take to give a peer an address; it takes one second."""
LOOK_EVERY_S = 0.2
LOST_DAEMON_EXIT = 69
RELAY_LIMITS = {
    "relayService": 1,
    "relayTimeLimit": "24h",
    "relayDataLimit": 2**40,
    "relayMaxCircuits": 64,
    "relayBufferSize": 2**18,
}
"""p2pd's own: half an hour, 4 GiB, 16 circuits for each peer, and two buffers of 16 MiB for each circuit."""


def listen_addresses(host: str, port: int) -> list[str]:
    """Where p2pd listens: TCP, and QUIC at the same UDP port; port 0 is any free one, of each its own.

    Loopback gets TCP alone. `0.0.0.0` or `::` is every address that the machine has or will get, of both families.
    Raises SwarmError for what is no IP address.
    """
    address = ip_address_of(host)
    if address.is_loopback:
        return [f"/ip{address.version}/{host}/tcp/{port}"]
    places = ["/ip4/0.0.0.0", "/ip6/::"] if address.is_unspecified else [f"/ip{address.version}/{host}"]
    return [f"{place}/{transport}" for place in places for transport in (f"tcp/{port}", f"udp/{port}/quic-v1")]


def ip_address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Raises SwarmError for what is no IP address."""
    try:
        return ipaddress.ip_address(host)
    except ValueError as error:
        raise SwarmError("is no IP address", field=host, hint="0.0.0.0 listens at every address") from error


def daemon_arguments(
    *, host: str, port: int, connection: Connection, initial_peers: Sequence[str], is_relay: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of `P2P.create`, and the flags of p2pd that hivemind 1.1.12 has no argument for.

    On loopback nothing is relayed. Elsewhere the checkpointer is the relay, on automatic reachability: forced to be
    public, p2pd starts a second relay with libp2p's defaults (128 KB, 2 minutes), which cuts large transfers.
    """
    local = ip_address_of(host).is_loopback
    arguments: dict[str, Any] = {
        "host_maddrs": listen_addresses(host, port), "nat_port_map": False, "use_relay": not local,
        # tells others whether they can be reached; without it p2pd punches no holes, either
        "auto_nat": not local,
    }  # fmt: skip
    flags: dict[str, Any] = {}
    if not local:
        flags |= RELAY_LIMITS if is_relay else {"relayService": 0}
    if connection == "relayed":
        arguments |= {
            "use_auto_relay": True,
            "force_reachability": "private",
            "trusted_relays": one_each(initial_peers),
        }
        flags["relayDiscovery"] = 0  # with it, three minutes go by before the first address
    return arguments, flags


def one_each(addresses: Sequence[str]) -> list[str]:
    """The first address of each peer. p2pd takes two of the same relay for two relays, and waits for the second."""
    first: dict[str, str] = {}
    for address in addresses:
        first.setdefault(address.rpartition("/p2p/")[2], address)
    return list(first.values())


@contextmanager
def extra_flags(flags: dict[str, Any]) -> Iterator[None]:
    """While entered, every p2pd that this process or one that it forks starts gets these flags as well."""
    make = P2P._make_process_args

    def with_flags(*args: Any, **kwargs: Any) -> list[str]:
        return make(*args, **kwargs, **flags)

    P2P._make_process_args = staticmethod(with_flags)  # type: ignore[method-assign]
    try:
        yield
    finally:
        P2P._make_process_args = staticmethod(make)  # type: ignore[method-assign]


def start_dht(
    *, host: str, port: int, initial_peers: Sequence[str], identity_path: Path, connection: Connection = "direct",
    is_relay: bool = False,
) -> DHT:  # fmt: skip
    """A DHT node with its p2pd, listening on `host:port` (0: a free port). Raises SwarmError with the reason.

    Its process ends with its daemon, and the daemon with it.
    """
    arguments, flags = daemon_arguments(
        host=host, port=port, connection=connection, initial_peers=initial_peers, is_relay=is_relay
    )
    open_mailbox()
    try:
        with extra_flags(flags):
            dht = DHT(
                start=True, await_ready=False, initial_peers=list(initial_peers), identity_path=str(identity_path),
                # whoever starts this process holds a lock on the identity; hivemind's own check starts a second p2pd
                check_if_identity_free=False,
                record_validators=[OwnedRecords(PeerSigner(identity_path))],
                # others would ask a peer that they cannot reach
                client_mode=connection == "outgoing",
                startup_timeout=DAEMON_TIMEOUT_S, **arguments,
            )  # fmt: skip
        await_start(dht, dht._ready, START_TIMEOUT_S)
        ask(dht, _end_with_daemon)
        # hivemind asks for these when they are needed, and would wait for ever
        dht._peer_id, dht._client_mode = ask(dht, DHT._get_peer_id), ask(dht, DHT._get_client_mode)
    except Exception as error:
        reached = f"none of {', '.join(initial_peers)} could be reached" if initial_peers else f"port {port} taken?"
        raise SwarmError(f"the peer-to-peer network could not be joined: {error}", hint=reached) from error
    return dht


async def _end_with_daemon(_dht: DHT, node: DHTNode) -> None:
    """In the DHT's process. Without its daemon it would go on answering, from its own memory."""

    async def end() -> None:
        await node.p2p._child.wait()
        if node.is_alive:  # nobody has asked it to shut down
            os._exit(LOST_DAEMON_EXIT)

    node.p2p.end_with_daemon = asyncio.create_task(end())  # a task that nobody holds may be collected


def ask(dht: DHT, question: Callable[[DHT, DHTNode], Awaitable[Any]]) -> Any:
    """What a coroutine gives that is run in the DHT's process. Raises SwarmError if that process ends or is silent."""
    return answer_of(dht.run_coroutine(question, return_future=True), START_TIMEOUT_S, dht)


def addresses_of(dht: DHT, *, latest: bool = False) -> list[str]:
    """Under which libp2p addresses the peer can be reached; `latest`: as the daemon knows them now.

    Raises SwarmError like `ask`.
    """
    return [str(address) for address in ask(dht, functools.partial(DHT._get_visible_maddrs, latest=latest))]


def has_relay(dht: DHT) -> bool:
    """Whether a relay gives this peer an address, within a few seconds. Raises SwarmError like `ask`."""
    deadline = time.monotonic() + RESERVATION_TIMEOUT_S
    while not any(map(is_circuit, addresses_of(dht, latest=True))):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_EVERY_S)  # p2pd tells nobody of a new address
    return True
