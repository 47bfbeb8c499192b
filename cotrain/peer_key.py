"""A peer's libp2p identity: an Ed25519 key in libp2p's own file form, made and read without loading hivemind.

The file is libp2p's protobuf `PrivateKey {Type: Ed25519 = 1, Data: seed || public key}`; the peer id is the identity
multihash of the protobuf `PublicKey` (https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import base58
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from cotrain.errors import ConfigError

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
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the peer key cannot be read: {error.strerror}", field=str(path)) from error
    if len(content) != len(_PRIVATE_HEADER) + 64 or not content.startswith(_PRIVATE_HEADER):
        raise ConfigError(
            "is not a peer key of cotrain", field=str(path),
            hint="restore it from a backup, or move it away and a new identity is made",
        )  # fmt: skip
    return peer_id_of(content[-32:])


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
