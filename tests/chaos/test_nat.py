"""Volunteers behind home routers, in network namespaces: they train with public peers, through the relay or pulling."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cotrain.config import RunConfig
from cotrain.errors import SwarmError
from cotrain.membership.document import HeldMembership
from cotrain.membership.issuer import Issuer
from cotrain.peer_key import load_or_create_peer_key
from cotrain.reachability import Connection, is_circuit
from cotrain.swarm import relay_watch
from cotrain.swarm.probe import Prober
from cotrain.train.synchronizer import LocalWork
from tests import natnet
from tests.chaos.test_faults import close_one_round
from tests.integration import swarm_fixtures
from tests.integration.swarm_fixtures import ChildHandle, ObserverChild, PeerChild, TestSwarm, _Child, swarm_config
from tests.membership_fixtures import membership_of
from tests.netns import Host
from tests.waiting import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(200)]

if (reason := natnet.why_unavailable()) is not None:
    pytest.skip(reason, allow_module_level=True)

NUMEL = 2_000_003
"""Of int4, a megabyte: more than what a relay with libp2p's own limits lets pass."""
LIBP2P_RELAY_BYTES = 128 * 1024
ROUNDS = 4
PORT, OBSERVER_PORT = 31337, 31330
OBSERVERS = 5
"""Public peers that tell a home how its router shows it; libp2p believes four."""
FOUND_AGAIN_S = 90.0


class ScatteredPeer(PeerChild):
    """Says by which ways it is connected."""

    def routes(self) -> dict[str, list[str]]:
        """The far ends of its connections, by peer."""

        async def ask() -> dict[str, list[str]]:
            p2p = await self.peer._dht.replicate_p2p()
            return {str(info.peer_id): [str(address) for address in info.addrs] for info in await p2p.list_peers()}

        return self.peer._loop.run(ask(), 20.0)

    def catch_up_and_average(self, seed: int) -> dict[str, Any]:
        """As the training loop does: whoever has missed rounds downloads the state first."""
        if any(round_ > self.state.round for _, round_, _ in self.peer._directory.view.donors()):
            self.resync()
        return self.average(seed)

    def loses_its_place(self, within_s: float) -> bool:
        """Whether the peer ends its run in this time, because the relay does not know it any more."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            try:
                self.peer.should_close(LocalWork(steps=0, samples=0, ranks=2), 0.5)
            except SwarmError as error:
                return "the relay has lost this node" in str(error)
        return False


STARTS = 3
UNREACHED = "failed to connect to bootstrap peers"
"""What p2pd says where the first peer is slow to answer; a node's supervisor then starts the process again."""


class Contributor(ScatteredPeer):
    role = "contribute"


class ProbeChild(_Child):
    """A machine that finds out how others can connect to it."""

    def __init__(self, folder: Path, session: str, initial_peers: list[str], name: str, host: str):
        identity = folder / f"{name}.key"
        document = membership_of(folder / "keys", session, load_or_create_peer_key(identity))
        self.prober = Prober(
            session=session, host=host, port=PORT, initial_peers=initial_peers, identity_path=identity,
            membership=HeldMembership(document),
        )  # fmt: skip

    def find_out(self) -> tuple[str, str]:
        found = asyncio.run(self.prober.find_out())
        return found.connection, found.notice

    def quit(self) -> None:
        return


class ScatteredSwarm(TestSwarm):
    """An observer on a public host, and peers wherever they are put."""

    def __init__(self, folder: Path, config: RunConfig, host: Host):
        self.folder, self.config = folder, config
        Issuer(folder / "keys", now=time.time())
        self.observer = self.start_observer(host)
        self.addresses = self.observer.call("addresses")
        self.peers = []

    def start_observer(self, host: Host) -> ChildHandle:
        """The checkpointer's peer, always with the same key and at the same port."""
        config, folder = self.config, self.folder
        return on_host(host, lambda: ObserverChild(config, folder), is_relay=True, port=OBSERVER_PORT).ready()

    def add(self, host: Host, connection: Connection, kind: type[PeerChild] = ScatteredPeer) -> ChildHandle:
        """A peer on this host that joins."""
        self.peers.append(self.start(len(self.peers), host, connection, kind))
        return self.peers[-1]

    def start(self, number: int, host: Host, connection: Connection, kind: type[PeerChild]) -> ChildHandle:
        """The peer of this number, which stands for its identity."""
        for tries_left in reversed(range(STARTS)):
            peer = on_host(
                host, lambda: kind(self.config, self.folder, self.addresses, number), port=PORT, connection=connection
            )
            try:
                peer.ready().call("join")
            except RuntimeError as error:
                peer.end()
                if UNREACHED not in str(error) or not tries_left:
                    raise
            else:
                return peer
        raise AssertionError("it has returned or raised by now")

    def probe(self, name: str, host: Host) -> tuple[str, str]:
        """What a machine on this host finds out: connection, and the notice to the volunteer."""
        with host.inside():
            child = ChildHandle(
                lambda: ProbeChild(self.folder, self.config.session.id, self.addresses, name, host.address)
            )
        try:
            connection, notice = child.ready().call("find_out")
            return connection, notice
        finally:
            child.end()


def on_host(host: Host, build: Callable[[], Any], **settings: Any) -> ChildHandle:
    """A child that runs on this host, listens at its address and has its daemon set up so."""
    settings["host"] = host.address

    def with_settings(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **named: call(*arguments, **{**named, **settings})

    def build_there() -> Any:
        for name in ("SwarmPeer", "start_dht"):  # in the forked process alone
            setattr(swarm_fixtures, name, with_settings(getattr(swarm_fixtures, name)))
        return build()

    with host.inside():
        return ChildHandle(build_there)


def everywhere(host: Host) -> Host:
    """The same host, for a peer that listens at every address, as volunteers' do."""
    return replace(host, address="0.0.0.0")


@pytest.fixture(autouse=True)
def large_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm_fixtures, "NUMEL", NUMEL)


@pytest.fixture
def net() -> Iterator[natnet.Internet]:
    with natnet.internet(hosts=2, homes=2) as made:
        yield made


@pytest.fixture
def swarm(tmp_path: Path, net: natnet.Internet) -> Iterator[ScatteredSwarm]:
    made = ScatteredSwarm(tmp_path, swarm_config(3), net.hosts[0])
    try:
        yield made
    finally:
        made.end()


def close_rounds(swarm: ScatteredSwarm, relay: Host) -> int:
    """Several rounds of everybody, the same digest after each; what the relay has sent meanwhile, in bytes."""
    before = relay.sent()
    for seed in range(ROUNDS):
        outcomes = close_one_round(swarm, swarm.peers, seed)
        assert {len(outcome["members"]) for outcome in outcomes} == {len(swarm.peers)}
        assert {(outcome["zeroedParts"], tuple(outcome["suspects"])) for outcome in outcomes} == {(0, ())}
    assert swarm.observer.call("follow", ROUNDS) == (outcomes[0]["round"], outcomes[0]["digest"])
    return relay.sent().since(before).bytes


def close_round_again(swarm: ScatteredSwarm) -> list[dict[str, Any]] | None:
    """One attempt at a round of everybody, after something has happened to the network."""
    outcomes = swarm.all(swarm.peers, "catch_up_and_average", time.monotonic_ns() % 1_000_000)
    complete = all(outcome["closed"] and len(outcome["members"]) == len(swarm.peers) for outcome in outcomes)
    return outcomes if complete else None


def test_two_homes_and_a_public_peer_train_together(swarm: ScatteredSwarm, net: natnet.Internet) -> None:
    swarm.add(net.hosts[1], "direct")
    one, other = [swarm.add(home.machine, "relayed") for home in net.homes]
    relayed = close_rounds(swarm, net.hosts[0])
    print(f"the checkpointer has sent {relayed} bytes in {ROUNDS} rounds")
    # each home sends a third of its contribution to the other, and as much of the averages back
    assert relayed > ROUNDS * LIBP2P_RELAY_BYTES
    # two public peers are not enough to punch a hole between two homes
    assert all(map(is_circuit, one.call("routes")[other.call("identity")]))


def test_a_contributor_behind_a_router_gets_the_same_bits(swarm: ScatteredSwarm, net: natnet.Internet) -> None:
    swarm.add(net.hosts[1], "direct")
    swarm.add(net.homes[0].machine, "relayed")
    swarm.add(net.homes[1].machine, "outgoing", Contributor)
    close_rounds(swarm, net.hosts[0])
    averages = [averaged for _, averaged in swarm.all(swarm.peers, "brought_and_averaged")]
    assert averages[0] == averages[1] == averages[2]


def test_each_machine_finds_out_how_it_is_reached(swarm: ScatteredSwarm, net: natnet.Internet) -> None:
    assert swarm.probe("public", net.hosts[1]) == ("direct", "")
    connection, notice = swarm.probe("home", net.homes[0].machine)
    assert connection == "relayed"
    assert f"port {PORT}" in notice
    assert net.homes[0].router.address in notice
    net.homes[0].forward(PORT)  # as the notice has it
    assert swarm.probe("mended", net.homes[0].machine) == ("direct", "")
    net.homes[1].close(OBSERVER_PORT)
    with pytest.raises(RuntimeError, match="the peer-to-peer network could not be joined"):
        swarm.probe("shut in", net.homes[1].machine)


@pytest.mark.long
def test_on_a_private_network_nothing_is_relayed_and_a_hidden_machine_only_contributes(tmp_path: Path) -> None:
    with natnet.internet(hosts=1, homes=1, prefix=natnet.PRIVATE) as net:
        swarm = ScatteredSwarm(tmp_path, swarm_config(2), net.hosts[0])
        try:
            connection, notice = swarm.probe("home", net.homes[0].machine)
        finally:
            swarm.end()
    assert connection == "outgoing"
    assert "only contributes" in notice


@pytest.mark.long
@pytest.mark.parametrize("moved", ["public", "home"])
def test_a_peer_whose_address_changes_is_found_again(swarm: ScatteredSwarm, net: natnet.Internet, moved: str) -> None:
    swarm.add(everywhere(net.hosts[1]), "direct")
    for home in net.homes:
        swarm.add(everywhere(home.machine), "relayed")
    close_rounds(swarm, net.hosts[0])
    if moved == "public":
        natnet.move(net.hosts[1], f"{natnet.PUBLIC}.77")
    else:
        natnet.move(net.homes[0].machine, "192.168.50.77", router=natnet.ROUTER_ADDRESS)
    since = time.monotonic()
    outcomes = wait_until(lambda: close_round_again(swarm), limit_s=FOUND_AGAIN_S, what="a round of everybody")
    print(f"the {moved} peer took part again {time.monotonic() - since:.0f} s after its address had changed")
    assert len({outcome["digest"] for outcome in outcomes}) == 1


@pytest.mark.long
def test_after_the_relay_has_restarted_its_peers_start_again(
    swarm: ScatteredSwarm, net: natnet.Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_watch, "LOOK_EVERY_S", 1.0)
    monkeypatch.setattr(relay_watch, "LOST_AFTER_S", 10.0)
    swarm.add(net.hosts[1], "direct")
    for home in net.homes:
        swarm.add(home.machine, "relayed")
    close_rounds(swarm, net.hosts[0])
    swarm.observer.kill()
    swarm.observer = swarm.start_observer(net.hosts[0])
    homes = swarm.peers[1:]
    assert swarm.all(homes, "loses_its_place", 60.0) == [True, True]
    for peer, home in zip(homes, net.homes, strict=True):
        peer.end()
        number = swarm.peers.index(peer)
        swarm.peers[number] = swarm.start(number, home.machine, "relayed", ScatteredPeer)
    assert wait_until(lambda: close_round_again(swarm), limit_s=FOUND_AGAIN_S, what="a round of everybody")


@pytest.mark.long
def test_a_hole_is_punched_where_enough_public_peers_are(tmp_path: Path) -> None:
    with natnet.internet(hosts=1 + OBSERVERS, homes=2) as net:
        swarm = ScatteredSwarm(tmp_path, swarm_config(OBSERVERS + 2), net.hosts[0])
        try:
            for host in net.hosts[1:]:
                swarm.add(host, "direct")
            one, other = [swarm.add(home.machine, "relayed") for home in net.homes]
            far = other.call("identity")

            def punched() -> bool:
                close_round_again(swarm)
                return not all(map(is_circuit, one.call("routes").get(far, ["/p2p-circuit"])))

            wait_until(punched, limit_s=90.0, what="a direct connection between the homes")
            before = net.hosts[0].sent()
            assert close_round_again(swarm)
            print(f"the checkpointer has sent {net.hosts[0].sent().since(before).bytes} bytes in a round")
        finally:
            swarm.end()
