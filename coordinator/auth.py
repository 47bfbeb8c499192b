"""Who may do what: participants' tokens, and which web pages may talk to this coordinator."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import urlsplit

from cotrain.errors import NotAuthorizedError

_SCHEME = "bearer"


def new_token() -> str:
    """A secret of 256 random bits, safe in URLs and headers."""
    return secrets.token_urlsafe(32)


def token_sha256(token: str) -> str:
    """What the coordinator keeps of a token: 64 hexadecimal digits."""
    return hashlib.sha256(token.encode()).hexdigest()


def bearer_token(authorization: str | None) -> str:
    """The token of an `Authorization: Bearer` header. Raises NotAuthorizedError if there is none."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != _SCHEME or not token.strip():
        raise NotAuthorizedError(
            "a participant's token is needed", field="Authorization",
            hint="send the token from the registration as `Authorization: Bearer <token>`",
        )  # fmt: skip
    return token.strip()


def token_matches(token: str, stored_sha256: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(token_sha256(token), stored_sha256)


def origin_allowed(origin: str | None, host: str, public_url: str) -> bool:
    """Whether a browser's page at `origin` may act here: only this coordinator's own pages may.

    Programs send no Origin and are let through; a browser cannot leave it out.
    """
    if origin is None:
        return True
    return urlsplit(origin).netloc in {host, urlsplit(public_url).netloc}
