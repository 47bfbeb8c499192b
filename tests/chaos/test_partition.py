"""A network that falls into two parts and heals, in network namespaces."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cotrain.config import RunConfig
from cotrain.membership.issuer import Issuer
from tests import netns
from tests.chaos.test_faults import close_one_round
from tests.integration import swarm_fixtures
from tests.integration.swarm_fixtures import ChildHandle, ObserverChild, PeerChild, TestSwarm, swarm_config

pytestmark = [pytest.mark.chaos, pytest.mark.long, pytest.mark.timeout(280)]

if (reason := netns.why_unavailable()) is not None:
    pytest.skip(reason, allow_module_level=True)

PARTED_S = 20.0
"""Several times what a record lives (4 s)."""
MAJORITY, MINORITY = 3, 2


class DistantSwarm(TestSwarm):
    """An observer and peers, each on a host of its own."""

    def __init__(self, folder: Path, config: RunConfig, net: netns.Network):
        self.folder, self.config = folder, config
        Issuer(folder / "keys", now=time.time())
        self.observer = on_host(net.hosts[0], lambda: ObserverChild(config, folder)).ready()
        self.addresses = self.observer.call("addresses")
        self.peers = [
            on_host(host, lambda n=number: PeerChild(config, folder, self.addresses, n))
            for number, host in enumerate(net.hosts[1:])
        ]
        for peer in self.peers:
            peer.ready()
        self.all(self.peers, "join")


def on_host(host: netns.Host, build: Any) -> ChildHandle:
    """A child that runs on this host, and listens at its address."""

    def build_there() -> Any:
        for name in ("SwarmPeer", "start_dht"):  # in the forked process alone
            setattr(swarm_fixtures, name, with_host(getattr(swarm_fixtures, name), host.address))
        return build()

    with host.inside():
        return ChildHandle(build_there)


def with_host(call: Callable[..., Any], address: str) -> Callable[..., Any]:
    """The same call, but the peer listens at this address."""
    return lambda *arguments, **named: call(*arguments, **{**named, "host": address})


@contextlib.contextmanager
def distant_swarm(folder: Path, min_peers: int) -> Iterator[tuple[DistantSwarm, netns.Network]]:
    config = swarm_config(MAJORITY + MINORITY)
    config = config.model_copy(update={"swarm": config.swarm.model_copy(update={"min_peers": min_peers})})
    with netns.network(1 + MAJORITY + MINORITY) as net:
        swarm = DistantSwarm(folder, config, net)
        try:
            yield swarm, net
        finally:
            swarm.end()


def close_rounds_apart(swarm: DistantSwarm, seconds: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Each side on its own, round after round; what the majority's last round was, and all that the minority tried."""
    majority, minority = swarm.peers[:MAJORITY], swarm.peers[MAJORITY:]
    until, seed, tried, last = time.monotonic() + seconds, 10, [], []
    while time.monotonic() < until:
        outcomes = swarm.all(swarm.peers, "average", seed)
        tried += outcomes[MAJORITY:]
        if all(outcome["closed"] for outcome in outcomes[:MAJORITY]):
            last = outcomes[:MAJORITY]
            assert len({(outcome["round"], outcome["digest"]) for outcome in last}) == 1
        seed += 1
    assert len(majority) + len(minority) == len(swarm.peers)
    return last, tried


def test_the_majority_goes_on_the_minority_waits_and_all_are_one_again(tmp_path: Path) -> None:
    with distant_swarm(tmp_path, min_peers=MAJORITY) as (swarm, net):
        first = close_one_round(swarm, swarm.peers, seed=0)[0]
        net.split_off(net.hosts[1 + MAJORITY :])
        last, tried = close_rounds_apart(swarm, PARTED_S)

        assert last, "the majority closed no round"
        assert last[0]["round"] >= first["round"] + 2
        assert {(outcome["closed"], outcome["digest"]) for outcome in tried} == {(False, first["digest"])}

        net.heal()
        for peer in swarm.peers[MAJORITY:]:
            assert peer.call("sees_round", last[0]["round"])
            assert peer.call("resync") == (last[0]["round"], last[0]["digest"])
        outcomes = close_one_round(swarm, swarm.peers, seed=1)
        assert {len(outcome["members"]) for outcome in outcomes} == {MAJORITY + MINORITY}
