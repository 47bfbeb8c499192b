"""A peer's libp2p identity: an Ed25519 key in libp2p's own file form, made and read without loading hivemind.

The file is libp2p's protobuf `PrivateKey {Type: Ed25519 = 1, Data: seed || public key}`; the peer id is the identity
multihash of the protobuf `PublicKey` (https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated

import base58
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import Field

from cotrain.errors import ConfigError
from cotrain.identity.ed25519 import ed25519_verifies

PeerIdText = Annotated[str, Field(min_length=10, max_length=128, pattern=r"^[1-9A-HJ-NP-Za-km-z]+$")]
"""A libp2p peer id in base58."""

_PRIVATE_HEADER = bytes([0x08, 0x01, 0x12, 64])  # field 1 (type) = Ed25519, field 2 (data) of 64 bytes
_PUBLIC_HEADER = bytes([0x08, 0x01, 0x12, 32])
_IDENTITY_MULTIHASH = bytes([0x00, 36])  # "the digest is the value itself", 36 bytes


def load_or_create_peer_key(path: Path) -> str:
    """The peer id of the key at `path`; a new key (mode 0600) is made if there is none.

    Raises ConfigError if the file is there but is not such a key: an identity is never replaced silently.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_new(path)
    return peer_id_of(_read(path)[-32:])


class PeerSigner:
    """Signs with a peer's own key. What for is signed along, so that no signature can serve another purpose."""

    def __init__(self, path: Path):
        """Raises ConfigError if the file at `path` is not a peer key."""
        content = _read(path)
        self._key = Ed25519PrivateKey.from_private_bytes(content[-64:-32])
        self.peer_id = peer_id_of(content[-32:])

    def sign(self, purpose: str, content: bytes) -> bytes:
        """64 bytes of Ed25519."""
        return self._key.sign(_signed_bytes(purpose, content))


def signed_by_peer(peer_id: str, purpose: str, content: bytes, signature: bytes) -> bool:
    """Whether the peer of this id has signed `content` for `purpose`. An id that holds no Ed25519 key has not."""
    try:
        decoded = base58.b58decode(peer_id)
    except ValueError:
        return False
    prefix = _IDENTITY_MULTIHASH + _PUBLIC_HEADER
    if len(decoded) != len(prefix) + 32 or not decoded.startswith(prefix):
        return False
    return ed25519_verifies(decoded[-32:], signature, _signed_bytes(purpose, content))


def _signed_bytes(purpose: str, content: bytes) -> bytes:
    return f"cotrain peer {purpose}".encode() + b"\x00" + content


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the peer key cannot be read: {error.strerror}", field=str(path)) from error
    if len(content) != len(_PRIVATE_HEADER) + 64 or not content.startswith(_PRIVATE_HEADER):
        raise ConfigError(
            "is not a peer key of cotrain", field=str(path),
            hint="restore it from a backup, or move it away and a new identity is made",
        )  # fmt: skip
    return content


def peer_id_of(public_key: bytes) -> str:
    """libp2p's peer id, base58, of a raw Ed25519 public key (32 bytes)."""
    return str(base58.b58encode(_IDENTITY_MULTIHASH + _PUBLIC_HEADER + public_key), "ascii")


def _write_new(path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    seed = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_PRIVATE_HEADER + seed + public)
    with contextlib.suppress(FileExistsError):  # another process was first: its key is the one
        os.link(temporary, path)
    temporary.unlink()
