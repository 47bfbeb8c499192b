"""Dialling back: an address that answers is told from one that does not, and a machine finds out which it has."""

from __future__ import annotations

from pathlib import Path

import pytest
from hivemind.p2p import P2P

from cotrain.errors import SwarmError
from cotrain.membership.document import HeldMembership
from cotrain.peer_key import load_or_create_peer_key
from cotrain.reachability import Attachment, without_peer
from cotrain.swarm import dial_back
from cotrain.swarm.dial_back import DialBack, ask_dial_back
from cotrain.swarm.probe import Prober
from tests.integration.p2p_pair import SESSION, observer_and_peer
from tests.membership_fixtures import membership_of


async def test_an_open_port_is_told_from_a_closed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with observer_and_peer(tmp_path, DialBack) as (peer, observer):
        (address,) = [str(maddr) for maddr in await peer.get_visible_maddrs()]
        answer = await ask_dial_back(peer, observer, SESSION, [address])
        assert answer.seen_from == ["127.0.0.1"]
        assert answer.reachable == answer.tried == [without_peer(address)]
        with pytest.raises(SwarmError, match="did not dial back"):  # so soon again
            await ask_dial_back(peer, observer, SESSION, [address])
        monkeypatch.setattr(dial_back, "AGAIN_AFTER_S", 0.0)
        answer = await ask_dial_back(peer, observer, SESSION, ["/ip4/127.0.0.1/tcp/1"])
        assert (answer.tried, answer.reachable) == (["/ip4/127.0.0.1/tcp/1"], [])


async def test_a_stranger_is_not_dialled(tmp_path: Path) -> None:
    async with observer_and_peer(tmp_path, DialBack, certified=False) as (peer, observer):
        with pytest.raises(SwarmError, match="did not dial back"):
            await ask_dial_back(peer, observer, SESSION, ["/ip4/127.0.0.1/tcp/1"])


def prober(folder: Path, initial_peers: list[str]) -> Prober:
    """One for a machine that listens on loopback, at any free port."""
    document = membership_of(folder / "keys", SESSION, load_or_create_peer_key(folder / "new.key"))
    return Prober(
        session=SESSION, host="127.0.0.1", port=0, initial_peers=initial_peers, identity_path=folder / "new.key",
        membership=HeldMembership(document),
    )  # fmt: skip


async def test_a_machine_with_an_open_port_is_reached_directly_at_it(tmp_path: Path) -> None:
    async with observer_and_peer(tmp_path, DialBack) as (peer, observer):
        addresses = [f"{address}/p2p/{observer}" for address in await addresses_of(peer, observer)]
        found = await prober(tmp_path, addresses).find_out()
        assert found == Attachment(connection="direct", port=found.port)
        assert found.port > 0


async def addresses_of(p2p: P2P, other: str) -> list[str]:
    """Where this p2p is connected to the other one."""
    return [str(a) for info in await p2p.list_peers() if str(info.peer_id) == other for a in info.addrs]


async def test_without_a_way_to_the_checkpointer_there_is_a_reason(tmp_path: Path) -> None:
    nobody = load_or_create_peer_key(tmp_path / "nobody.key")
    with pytest.raises(SwarmError, match="the peer-to-peer network could not be joined") as caught:
        await prober(tmp_path, [f"/ip4/127.0.0.1/tcp/1/p2p/{nobody}"]).find_out()
    assert "/ip4/127.0.0.1/tcp/1" in caught.value.hint
