"""Verifying Ed25519 (RFC 8032), keys included that nobody should be taken at their word for."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_FIELD_PRIME = 2**255 - 19
_ORDER_8_Y = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER_Y = frozenset({0, 1, _FIELD_PRIME - 1, _ORDER_8_Y, _FIELD_PRIME - _ORDER_8_Y})


def ed25519_verifies(public_key: bytes, signature: bytes, content: bytes) -> bool:
    """Whether the holder of this key (32 bytes) has signed `content`; never for a key that anybody can sign for."""
    if is_weak_ed25519(public_key):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, content)
    except InvalidSignature:
        return False
    return True


def is_weak_ed25519(public_key: bytes) -> bool:
    """Whether it is a point of small order: under such a key one signature holds for many texts."""
    y = int.from_bytes(public_key, "little") & (2**255 - 1)
    return y % _FIELD_PRIME in _SMALL_ORDER_Y
