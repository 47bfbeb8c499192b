"""Dialling back: an address that answers is told from one that does not, and nobody has a third party dialled."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from cotrain.errors import SwarmError
from cotrain.swarm import peer as peer_module
from cotrain.swarm import reachability
from cotrain.swarm.reachability import DialBack, DialBackAnswer, advice, ask_dial_back, candidates
from tests.integration.p2p_pair import SESSION, observer_and_peer
from tests.integration.swarm_fixtures import ChildHandle, PeerChild, running_swarm, swarm_config


async def test_an_open_port_is_told_from_a_closed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with observer_and_peer(tmp_path, DialBack) as (peer, observer):
        (address,) = [str(maddr) for maddr in await peer.get_visible_maddrs()]
        answer = await ask_dial_back(peer, observer, SESSION, [address])
        assert answer.seen_from == ["127.0.0.1"]
        assert answer.reachable == answer.tried == [reachability.without_peer(address)]
        assert advice(answer, [address]) == ""
        with pytest.raises(SwarmError, match="did not dial back"):  # so soon again
            await ask_dial_back(peer, observer, SESSION, [address])
        monkeypatch.setattr(reachability, "AGAIN_AFTER_S", 0.0)
        answer = await ask_dial_back(peer, observer, SESSION, ["/ip4/127.0.0.1/tcp/1"])
        assert (answer.tried, answer.reachable) == (["/ip4/127.0.0.1/tcp/1"], [])


async def test_a_stranger_is_not_dialled(tmp_path: Path) -> None:
    async with observer_and_peer(tmp_path, DialBack, certified=False) as (peer, observer):
        with pytest.raises(SwarmError, match="did not dial back"):
            await ask_dial_back(peer, observer, SESSION, ["/ip4/127.0.0.1/tcp/1"])


def test_only_where_the_caller_comes_from_is_dialled() -> None:
    wanted = ["/ip4/192.168.1.5/tcp/4001", "/ip4/85.1.2.3/tcp/4001", "/ip6/fe80::1/tcp/4001", "/ip4/9.9.9.9/tcp/53"]
    assert candidates(wanted, ["85.1.2.3"]) == ["/ip4/85.1.2.3/tcp/4001", "/ip4/85.1.2.3/tcp/53"]
    assert candidates(wanted, ["2001:db8::7"]) == ["/ip6/2001:db8::7/tcp/4001"]
    assert candidates(wanted, []) == []
    assert candidates(["", "/dns4/evil.example/tcp/1", "/ip4/1.2.3.4/udp/1", "/ip4/1.2.3.4/tcp/x"], ["1.2.3.4"]) == []


def test_the_advice_names_the_port_and_where_the_coordinator_sees_the_node() -> None:
    text = advice(
        DialBackAnswer(seen_from=["85.1.2.3"], reachable=[], tried=[]), ["/ip4/192.168.1.5/tcp/4001/p2p/12D3"]
    )
    assert "port 4001" in text
    assert "85.1.2.3" in text
    assert "--port" in text


class HiddenPeer(PeerChild):
    """A peer that believes to be reached at a port where nobody listens, as one behind a router does."""

    def __init__(self, *arguments: Any):
        # in this process of the test's own only
        peer_module.is_loopback = lambda address: False
        peer_module.SwarmPeer.addresses = property(lambda self: ["/ip4/127.0.0.1/tcp/1"])  # type: ignore[assignment]
        super().__init__(*arguments)

    def told(self) -> list[str]:
        deadline = time.monotonic() + 20
        while not self.notices and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.notices


def test_a_volunteer_whose_port_is_closed_is_told(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(2)) as swarm:
        hidden = ChildHandle(lambda: HiddenPeer(swarm.config, tmp_path, swarm.addresses, 0)).ready()
        swarm.peers.append(hidden)
        hidden.call("join")
        (notice,) = hidden.call("told")
        assert "other peers cannot open a connection to this node: it listens at port 1" in notice
