"""A peer's identity: made once, readable by nobody else, never replaced; that p2pd agrees is tested over libp2p."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hivemind.p2p import PeerID
from hivemind.proto import crypto_pb2

from cotrain.errors import ConfigError
from cotrain.peer_key import PeerSigner, load_or_create_peer_key, peer_id_of, signed_by_peer


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "peer.key"
    peer_id = load_or_create_peer_key(path)
    content = path.read_bytes()
    assert load_or_create_peer_key(path) == peer_id
    assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["peer.key"]
    assert load_or_create_peer_key(tmp_path / "other.key") != peer_id


def test_the_file_is_libp2ps_private_key_and_the_id_is_libp2ps(tmp_path: Path) -> None:
    path = tmp_path / "peer.key"
    peer_id = load_or_create_peer_key(path)
    key = crypto_pb2.PrivateKey.FromString(path.read_bytes())
    assert key.key_type == 1  # Ed25519
    assert len(key.data) == 64
    assert PeerID.from_base58(peer_id).to_base58() == peer_id == peer_id_of(key.data[32:])
    assert peer_id.startswith("12D3KooW")


@pytest.mark.parametrize(
    "content", [b"", b"x", b"-----BEGIN PRIVATE KEY-----", b"\x08\x00\x12\x40" + bytes(64), bytes(69)]
)
def test_a_file_that_is_no_key_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "peer.key"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is not a peer key") as caught:
        load_or_create_peer_key(path)
    assert caught.value.field == str(path)
    assert path.read_bytes() == content


def test_a_key_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_or_create_peer_key(tmp_path)


def test_processes_that_make_it_at_once_get_the_same(tmp_path: Path) -> None:
    script = "import sys, pathlib, cotrain.peer_key as k; print(k.load_or_create_peer_key(pathlib.Path(sys.argv[1])))"
    command = [sys.executable, "-c", script, str(tmp_path / "peer.key")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    ids = {process.communicate(timeout=60)[0] for process in started}
    assert ids == {load_or_create_peer_key(tmp_path / "peer.key") + "\n"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["peer.key"]


def test_a_peer_signs_for_one_purpose_and_only_its_own_id_verifies_it(tmp_path: Path) -> None:
    names = ("mine", "theirs")
    mine, theirs = (load_or_create_peer_key(tmp_path / name) for name in names)
    signer = PeerSigner(tmp_path / "mine")
    assert signer.peer_id == mine
    signature = signer.sign("bond", b"content")
    assert signed_by_peer(mine, "bond", b"content", signature)
    for peer, purpose, content in (
        (theirs, "bond", b"content"),
        (mine, "record", b"content"),
        (mine, "bond", b"other"),
    ):
        assert not signed_by_peer(peer, purpose, content, signature)
    assert not signed_by_peer(mine, "bond", b"content", signature[:-1])


@pytest.mark.parametrize("peer_id", ["", "nobody", "0OIl", peer_id_of(bytes(32)), peer_id_of(b"\x01" + bytes(31))])
def test_an_id_without_a_key_that_binds_has_signed_nothing(peer_id: str) -> None:
    """A key of small order has signatures that nobody made: of zeros, for any content."""
    forged = b"\x01" + bytes(63)
    assert not signed_by_peer(peer_id, "bond", b"content", forged)
