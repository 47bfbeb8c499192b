"""Bearer tokens: made, hashed, read from a header. Of a participant or of a signed-in account."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from cotrain.errors import NotAuthorizedError

_SCHEME = "bearer"


def new_token() -> str:
    """A secret of 256 random bits, safe in URLs, headers and cookies."""
    return secrets.token_urlsafe(32)


def token_sha256(token: str) -> str:
    """What the coordinator keeps of a token: 64 hexadecimal digits."""
    # a header may hold bytes that are no text; such a token is unknown, not a fault
    return hashlib.sha256(token.encode(errors="backslashreplace")).hexdigest()


def given_token(authorization: str | None) -> str:
    """The token of an `Authorization: Bearer` header; empty if there is none."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == _SCHEME else ""


def bearer_token(authorization: str | None) -> str:
    """The token of an `Authorization: Bearer` header. Raises NotAuthorizedError if there is none."""
    token = given_token(authorization)
    if not token:
        raise NotAuthorizedError(
            "a token is needed", field="Authorization", hint="send the header `Authorization: Bearer <token>`"
        )
    return token


def token_matches(token: str, stored_sha256: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(token_sha256(token), stored_sha256)
