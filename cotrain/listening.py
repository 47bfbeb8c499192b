"""The address that a server of cotrain listens on."""

from __future__ import annotations

import errno
import socket

from cotrain.errors import CotrainError


class AddressError(CotrainError):
    """The address to listen on cannot be had."""

    code = "address-unavailable"
    http_status = 503
    exit_code = 69


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises AddressError that names the address and the way out."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise AddressError(
            f"port {port} on {host} is taken" if taken else f"cannot listen on {host}, port {port}: {error.strerror}",
            field="--port" if taken else "--host",
            hint="choose another with --port, or 0 for any free one" if taken else "is it an address of this machine?",
        ) from error


def address_url(host: str, port: int, *, over_tls: bool = False) -> str:
    """`http://host:port`, with an IPv6 address in brackets; the wildcard address is reached on loopback."""
    scheme = "https" if over_tls else "http"
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"
