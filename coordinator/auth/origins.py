"""Which web pages may act here: only this coordinator's own."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def origin_allowed(origin: str | None, host: str, public_url: str) -> bool:
    """Whether a page at `origin` may change something here or open a socket.

    Programs send no Origin and are let through; a browser cannot leave it out. What the request says of the host
    counts only where it is an address: a name that is not the public one may have been pointed here by a stranger.

    Args:
        origin: the request's Origin header.
        host: the request's Host header.
        public_url: what the settings say.
    """
    if origin is None:
        return True
    return _authority(origin) in _own_authorities(host, public_url)


def cookie_origin_allowed(origin: str | None, host: str, public_url: str) -> bool:
    """Whether a cookie that came with `origin` may authorize a change: it must be there, and of the public scheme."""
    if origin is None or not origin_allowed(origin, host, public_url):
        return False
    return urlsplit(origin).scheme == urlsplit(public_url).scheme


def _own_authorities(host: str, public_url: str) -> set[str]:
    own = {urlsplit(public_url).netloc.lower()}
    return own | {host.lower()} if _is_address(host) else own


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # brackets that do not close
        return ""


def _is_address(host: str) -> bool:
    """Whether a Host header holds an IP address or `localhost`: names that no foreign DNS server can give out."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost":
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
