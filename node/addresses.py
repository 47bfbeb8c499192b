"""At which of this machine's addresses a peer listens: found out, unless the volunteer says."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from cotrain.errors import InvalidRequestError, UnreachableError

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - a peer is there to be reached, and knows members from strangers


def listen_host(wanted: str | None, url: str) -> str:
    """The address that the volunteer wants; else loopback for a coordinator (`url`) on this machine, so that nothing
    listens to the outside; else every address, so that the peer is found again when the machine gets another one.

    Raises InvalidRequestError for what is no IP address, UnreachableError as `address_towards` does.
    """
    if wanted is not None:
        try:
            return str(ipaddress.ip_address(wanted))
        except ValueError as error:
            raise InvalidRequestError(
                f"{wanted!r} is no IP address", field="--host", hint="leave it out to listen at every address"
            ) from error
    towards = address_towards(url)
    return towards if ipaddress.ip_address(towards).is_loopback else ANY_ADDRESS


def address_towards(url: str) -> str:
    """The address of this machine from which packets to the host of `url` leave.

    Nothing is sent. Raises UnreachableError if the host is not known or there is no way to it.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise UnreachableError(
            f"the coordinator's name is not known: {error.strerror}", field=host, hint="check the address"
        ) from error
    # IPv4 first: more volunteers have it than IPv6
    for family, kind, protocol, _, target in sorted(found, key=lambda entry: entry[0] != socket.AF_INET):
        with socket.socket(family, kind, protocol) as probe:
            try:
                probe.connect(target)  # of a datagram socket: chooses the route, and no more
            except OSError:
                continue
            return str(ipaddress.ip_address(probe.getsockname()[0].partition("%")[0]))
    raise UnreachableError("this machine has no route to the coordinator", field=host, hint="is the network up?")
