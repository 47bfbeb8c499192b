"""Roles of a group's members: what each shows in its announcement counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cotrain.membership.certificate import Role
from cotrain.membership.document import HeldMembership
from cotrain.membership.sealed import MembershipError
from cotrain.peer_key import load_or_create_peer_key
from cotrain.swarm.gate import Gate
from cotrain.swarm.group import roles_of
from cotrain.swarm.rounds import Announcement
from tests.membership_fixtures import membership_of

SESSION = "test"


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    mine = load_or_create_peer_key(tmp_path / "mine.key")
    return Gate(SESSION, HeldMembership(membership_of(tmp_path / "keys", SESSION, mine)))


def shown(folder: Path, peer: str, role: Role) -> str:
    return membership_of(folder / "keys", SESSION, peer, role=role).credential.model_dump_json(by_alias=True)


def announcement(credential: str) -> Announcement:
    return Announcement(round=0, digest="0" * 64, committed=0, steps=1, samples=1, credential=credential)


def test_a_role_that_has_changed_counts_though_another_one_is_known(tmp_path: Path, gate: Gate) -> None:
    peer = load_or_create_peer_key(tmp_path / "other.key")
    gate.admit(peer, shown(tmp_path, peer, "reduce").encode())
    said = {"me": announcement(""), peer: announcement(shown(tmp_path, peer, "contribute"))}
    assert roles_of(said, gate, "me", "reduce") == {"me": "reduce", peer: "contribute"}
    certificate = gate.member(peer)
    assert certificate is not None
    assert certificate.role == "contribute"


def test_without_a_credential_what_is_known_counts(tmp_path: Path, gate: Gate) -> None:
    peer = load_or_create_peer_key(tmp_path / "other.key")
    with pytest.raises(MembershipError):
        gate.member(peer) or gate.admit(peer, b"")
    gate.admit(peer, shown(tmp_path, peer, "reduce").encode())
    assert roles_of({peer: announcement("")}, gate, "me", "reduce")[peer] == "reduce"
