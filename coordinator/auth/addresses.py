"""Where a request comes from, and the keys under which limits count it. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

_CLIENT_PREFIX = {4: 32, 6: 64}
_BLOCK_PREFIX = {4: 24, 6: 48}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LOOPBACK: tuple[Network, ...] = (ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128"))

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def client_address(peer: str, forwarded: Sequence[str], proxies: Sequence[Network]) -> str:
    """The address that a request is counted under.

    Args:
        peer: the other end of the connection.
        forwarded: the values of all `X-Forwarded-For` headers, in order. A proxy adds whom it has seen at the end;
            what stands before the first entry that is no proxy's is what the client claims.
        proxies: who is believed.
    """
    entries = ",".join(forwarded).split(",")
    address = peer
    while entries and _is_in(address, proxies):
        entry = entries.pop().strip()
        if _parse(entry) is None:
            break
        address = entry
    return address


def client_key(address: str) -> str:
    """One client: an IPv4 address, or the /64 of an IPv6 address."""
    return _network(address, _CLIENT_PREFIX)


def block_key(address: str) -> str:
    """The neighbourhood of a client: the /24 of an IPv4 address, the /48 of an IPv6 address."""
    return _network(address, _BLOCK_PREFIX)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    address = _parse(host)
    return host == "localhost" if address is None else address.is_loopback


def _is_in(text: str, networks: Sequence[Network]) -> bool:
    address = _parse(text)
    return address is not None and any(address in network for network in networks)


def _network(address: str, prefixes: dict[int, int]) -> str:
    parsed = _parse(address)
    if parsed is None:  # no address at all, such as a Unix socket's
        return address
    plain = str(parsed).partition("%")[0]
    return str(ipaddress.ip_network(f"{plain}/{prefixes[parsed.version]}", strict=False))


def _parse(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
