"""Peers' keys for tests, made once."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from cotrain.peer_key import PeerSigner, load_or_create_peer_key


@cache
def signer(number: int) -> PeerSigner:
    """The key of the peer of this number; the same in all tests of a run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peer.key"
        load_or_create_peer_key(path)
        return PeerSigner(path)
