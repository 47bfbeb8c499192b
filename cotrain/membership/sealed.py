"""Small documents that a coordinator signs with Ed25519 and that anybody with its public key can check offline.

The text form is `PAYLOAD.KEY.SIGNATURE`: the payload and the signature in base64url without padding, KEY the id of the
key that signed. The signature covers the kind of document as well, so that none can be taken for one of another kind.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cotrain.errors import CotrainError
from cotrain.identity.ed25519 import ed25519_verifies

Kind = Literal["certificate", "revocations", "endorsement"]
MAX_SEALED_CHARACTERS = 8192

_KEY_BYTES = 32
_ID_DIGITS = 16


class MembershipError(CotrainError):
    """What a peer shows does not make it a member."""

    code = "not-a-member"
    http_status = 403
    exit_code = 77


@dataclass(frozen=True)
class IssuerKey:
    """A signing key of a coordinator. It never appears in a text form of itself."""

    private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> IssuerKey:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> IssuerKey:
        """The key of a seed of 32 bytes."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def public(self) -> str:
        """The public key: 64 hexadecimal digits."""
        return self.private.public_key().public_bytes_raw().hex()

    def seal(self, kind: Kind, payload: bytes) -> str:
        """A signed document in its text form."""
        signature = self.private.sign(_signed_bytes(kind, payload))
        return f"{_encode(payload)}.{key_id(self.public)}.{_encode(signature)}"


def key_id(public: str) -> str:
    """Which key signed: 16 hexadecimal digits."""
    return hashlib.sha256(bytes.fromhex(public)).hexdigest()[:_ID_DIGITS]


def keys_by_id(public_keys: Iterable[str]) -> dict[str, str]:
    """Public keys under their ids. Raises MembershipError for what is no Ed25519 key."""
    keys = {}
    for public in public_keys:
        try:
            if len(bytes.fromhex(public)) != _KEY_BYTES:
                raise ValueError
        except ValueError:
            raise MembershipError("a coordinator's key must be 64 hexadecimal digits", field="issuers") from None
        keys[key_id(public)] = public
    return keys


def open_sealed(kind: Kind, text: str, keys: Mapping[str, str]) -> bytes:
    """The payload of a document that one of `keys` (id -> public key) signed. Raises MembershipError."""
    parts = text.split(".")
    if len(text) > MAX_SEALED_CHARACTERS or len(parts) != 3:
        raise MembershipError(f"is not a signed {kind}")
    payload, signature = _decode(parts[0], kind), _decode(parts[2], kind)
    public = keys.get(parts[1])
    if public is None:
        raise MembershipError(f"the {kind} is signed by a key that is not the coordinator's")
    if not ed25519_verifies(bytes.fromhex(public), signature, _signed_bytes(kind, payload)):
        raise MembershipError(f"the signature of the {kind} is wrong")
    return payload


def _signed_bytes(kind: Kind, payload: bytes) -> bytes:
    return f"cotrain {kind} 1".encode() + b"\x00" + payload


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decode(text: str, kind: Kind) -> bytes:
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise MembershipError(f"is not a signed {kind}") from None
    if _encode(content) != text:  # one document has one text
        raise MembershipError(f"is not a signed {kind}")
    return content
