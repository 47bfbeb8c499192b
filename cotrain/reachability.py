"""How others connect to a peer: decided before its daemon starts, and what the volunteer is told of it. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from cotrain.membership.certificate import Role

Connection = Literal["direct", "relayed", "outgoing"]
"""direct: others connect to the peer. relayed: through the checkpointer, which passes the bytes on, where the routers
between let no direct connection through. outgoing: not at all; the peer opens every connection itself."""

MOST_ADDRESSES = 8


class Address(NamedTuple):
    """What libp2p calls `/ip4/HOST/tcp/PORT` or `/ip6/HOST/udp/PORT/quic-v1`."""

    family: str
    host: str
    transport: str
    port: int

    def __str__(self) -> str:
        suffix = "/quic-v1" if self.transport == "udp" else ""
        return f"/{self.family}/{self.host}/{self.transport}/{self.port}{suffix}"


def parse_address(address: str) -> Address:
    """The peer's id at its end is left out. Raises ValueError for another form, an address at a relay included."""
    pieces = without_peer(address).strip("/").split("/")
    plain = (len(pieces) == 4 and pieces[2] == "tcp") or (len(pieces) == 5 and pieces[2::2] == ["udp", "quic-v1"])
    if is_circuit(address) or not plain or pieces[0] not in ("ip4", "ip6"):
        raise ValueError(f"{address} is not an address of the form /ip4/HOST/tcp/PORT or /ip4/HOST/udp/PORT/quic-v1")
    return Address(pieces[0], pieces[1], pieces[2], int(pieces[3]))


def plain_addresses(addresses: Sequence[str]) -> list[Address]:
    """Those of the addresses that are a machine's own."""
    found = []
    for address in addresses:
        try:
            found.append(parse_address(address))
        except ValueError:
            continue
    return found


def without_peer(address: str) -> str:
    """A libp2p address without the peer's id at its end."""
    return address.partition("/p2p/")[0]


def is_circuit(address: str) -> bool:
    """Whether the address is one at a relay."""
    return "/p2p-circuit" in address


def is_loopback(address: str) -> bool:
    """Whether only this machine can use the libp2p address."""
    return any(ipaddress.ip_address(found.host).is_loopback for found in plain_addresses([address]))


def candidates(addresses: Sequence[str], seen_from: Sequence[str]) -> list[str]:
    """What may be dialled: addresses at which the peer has been seen, and its ports there (a forwarded port).

    TCP only: what a router lets in of UDP depends on what has gone out just before.
    """
    found: dict[str, None] = {}
    for address in plain_addresses(addresses):
        for host in seen_from:
            if address.transport == "tcp" and address.family == ("ip6" if ":" in host else "ip4"):
                found[str(address._replace(host=host))] = None
    return list(found)[:MOST_ADDRESSES]


class Attachment(BaseModel):
    """How this machine is attached to the network.

    Attributes:
        connection: how others connect to it.
        port: TCP port that has been tried; the peer must listen there.
        notice: what the volunteer should know; may be empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    connection: Connection
    port: int
    notice: str = ""


def decide(*, reachable: bool | None, relayed: bool) -> Connection:
    """How others shall connect to a peer: the first way that works, of direct, relayed and outgoing.

    Args:
        reachable: whether a stranger could connect to it; None: it could not be found out, and is taken for true.
        relayed: whether the checkpointer has given it an address.
    """
    if reachable is None or reachable:
        return "direct"
    return "relayed" if relayed else "outgoing"


def role_for(connection: Connection) -> Role:
    """What a peer asks the coordinator to be: only one that others reach can average parts and vote."""
    return "contribute" if connection == "outgoing" else "reduce"


def connection_of(role: Role, addresses: Sequence[str]) -> Connection | None:
    """How others connect to a peer of this role that is reached at these libp2p addresses; None if it has told none."""
    if role == role_for("outgoing"):
        return "outgoing"
    if not addresses:
        return None
    return "relayed" if any(map(is_circuit, addresses)) else "direct"


def advice(connection: Connection, *, port: int, seen_from: Sequence[str]) -> str:
    """What it costs the volunteer, and what to do; empty for a peer that is reached directly."""
    if connection == "direct":
        return ""
    seen = ", ".join(seen_from) or "an unknown address"
    closed = (
        f"other peers cannot open a connection to this node: it listens at port {port}, the coordinator sees it at "
        f"{seen}, and nothing answers there. "
    )
    cost = {
        "relayed": (
            "They reach it through the coordinator's machine: it takes its full part, but its traffic goes twice over "
            "that machine's line unless the routers let a direct connection through, which makes rounds slower for "
            "everybody. "
        ),
        "outgoing": (
            "The coordinator's machine does not relay for it either, so it only contributes: it brings its own to each "
            "round and fetches the average, but averages nothing for others and has no vote. "
        ),
    }[connection]
    return f"{closed}{cost}To mend it, {way_to_mend(port)}"


def way_to_mend(port: int) -> str:
    """What lets others connect to the peer that listens at this port."""
    return (
        f"forward TCP and UDP port {port} of the router to this machine and join with --port {port}, or open them in "
        "the firewall"
    )
