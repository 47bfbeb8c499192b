"""Which of this machine's addresses other peers should be told: found out, unless the volunteer says."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from cotrain.errors import UnreachableError


def address_towards(url: str) -> str:
    """The address of this machine from which packets to the host of `url` leave.

    Loopback for a coordinator on this machine, so that nothing listens to the outside then. Nothing is sent. Raises
    UnreachableError if the host is not known or there is no way to it.
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
