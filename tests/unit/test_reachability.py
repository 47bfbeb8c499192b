"""How a peer is reached: what is decided, dialled and told; and the daemon's arguments that follow from it."""

from __future__ import annotations

import pytest

from cotrain.errors import SwarmError
from cotrain.reachability import (
    Connection,
    advice,
    candidates,
    connection_of,
    decide,
    is_circuit,
    is_loopback,
    parse_address,
    role_for,
)
from cotrain.swarm.daemon import daemon_arguments, listen_addresses, one_each

RELAY = "12D3KooWRelay"
CHECKPOINTER = [f"/ip4/85.0.0.1/tcp/31330/p2p/{RELAY}", f"/ip4/85.0.0.1/udp/31330/quic-v1/p2p/{RELAY}"]
CIRCUIT = f"{CHECKPOINTER[0]}/p2p-circuit/p2p/12D3KooWMe"


@pytest.mark.parametrize(
    ("reachable", "relayed", "connection", "role"),
    [
        (True, False, "direct", "reduce"),
        (True, True, "direct", "reduce"),
        (False, True, "relayed", "reduce"),
        (False, False, "outgoing", "contribute"),
        (None, False, "direct", "reduce"),
    ],
)
def test_the_first_way_that_works_is_taken(
    reachable: bool | None, relayed: bool, connection: Connection, role: str
) -> None:
    assert decide(reachable=reachable, relayed=relayed) == connection
    assert role_for(connection) == role


def test_how_a_peer_is_reached_is_seen_from_where() -> None:
    assert connection_of("reduce", ["/ip4/85.0.0.2/tcp/31330"]) == "direct"
    assert connection_of("reduce", ["/ip4/192.168.1.5/tcp/4001", CIRCUIT]) == "relayed"
    assert connection_of("contribute", ["/ip4/192.168.1.5/tcp/4001"]) == connection_of("contribute", []) == "outgoing"
    assert connection_of("reduce", []) is None


def test_only_where_the_caller_comes_from_is_dialled() -> None:
    wanted = ["/ip4/192.168.1.5/tcp/4001", "/ip4/85.1.2.3/tcp/4001", "/ip6/fe80::1/tcp/4001", "/ip4/9.9.9.9/tcp/53"]
    assert candidates(wanted, ["85.1.2.3"]) == ["/ip4/85.1.2.3/tcp/4001", "/ip4/85.1.2.3/tcp/53"]
    assert candidates(wanted, ["2001:db8::7"]) == ["/ip6/2001:db8::7/tcp/4001"]
    assert candidates(wanted, []) == []
    odd = ["", "/dns4/evil.example/tcp/1", "/ip4/1.2.3.4/udp/1", "/ip4/1.2.3.4/tcp/x", CIRCUIT]
    assert candidates([*odd, "/ip4/1.2.3.4/udp/5/quic-v1"], ["1.2.3.4", "85.0.0.1"]) == []


def test_addresses_are_read_with_and_without_the_peer() -> None:
    for text in ("/ip4/10.0.0.1/tcp/7", "/ip6/::1/tcp/7", "/ip4/10.0.0.1/udp/7/quic-v1"):
        assert str(parse_address(text)) == str(parse_address(f"{text}/p2p/12D3KooWMe")) == text
    with pytest.raises(ValueError, match="is not an address"):
        parse_address(CIRCUIT)
    assert is_circuit(CIRCUIT)
    assert not is_circuit(CHECKPOINTER[0])
    assert [is_loopback(text) for text in ("/ip4/127.0.0.5/tcp/1", "/ip6/::1/udp/1/quic-v1", CIRCUIT)] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("connection", ["relayed", "outgoing"])
def test_the_advice_names_what_it_costs_the_port_and_where_the_node_is_seen(connection: Connection) -> None:
    text = advice(connection, port=4001, seen_from=["85.1.2.3"])
    for part in ("port 4001", "85.1.2.3", "--port 4001", "router"):
        assert part in text
    assert ("relay" in text) == (connection == "outgoing")
    assert ("twice over that machine" in text) == (connection == "relayed")
    assert advice("direct", port=4001, seen_from=[]) == ""


def test_a_peer_listens_on_tcp_and_quic_and_on_loopback_on_tcp_alone() -> None:
    assert listen_addresses("127.0.0.1", 0) == ["/ip4/127.0.0.1/tcp/0"]
    assert listen_addresses("::1", 5) == ["/ip6/::1/tcp/5"]
    assert listen_addresses("85.0.0.2", 5) == ["/ip4/85.0.0.2/tcp/5", "/ip4/85.0.0.2/udp/5/quic-v1"]
    everywhere = ["/ip4/0.0.0.0/tcp/5", "/ip4/0.0.0.0/udp/5/quic-v1", "/ip6/::/tcp/5", "/ip6/::/udp/5/quic-v1"]
    assert listen_addresses("0.0.0.0", 5) == listen_addresses("::", 5) == everywhere
    with pytest.raises(SwarmError, match="is no IP address"):
        listen_addresses("coordinator.example", 5)


def arguments_of(host: str, connection: Connection, *, is_relay: bool = False) -> tuple[dict, dict]:
    return daemon_arguments(host=host, port=1, connection=connection, initial_peers=CHECKPOINTER, is_relay=is_relay)


def test_on_loopback_nothing_is_relayed() -> None:
    arguments, flags = arguments_of("127.0.0.1", "direct", is_relay=True)
    assert (arguments["use_relay"], arguments["auto_nat"], flags) == (False, False, {})


def test_only_the_checkpointer_is_a_relay_and_none_is_forced_to_be_public() -> None:
    for connection in ("direct", "relayed", "outgoing"):
        arguments, flags = arguments_of("85.0.0.2", connection)
        assert flags["relayService"] == 0
        assert arguments["use_relay"]
        assert arguments["auto_nat"]
        assert ("use_auto_relay" in arguments) == (connection == "relayed")
    arguments, flags = arguments_of("85.0.0.1", "direct", is_relay=True)
    assert flags["relayService"] == 1
    assert "force_reachability" not in arguments


def test_a_relayed_peer_asks_each_relay_once_and_looks_for_no_other() -> None:
    arguments, flags = arguments_of("192.168.1.5", "relayed")
    assert arguments["force_reachability"] == "private"
    assert arguments["trusted_relays"] == CHECKPOINTER[:1]
    assert flags["relayDiscovery"] == 0
    assert one_each([*CHECKPOINTER, "/ip4/85.0.0.9/tcp/1/p2p/other"]) == [
        CHECKPOINTER[0], "/ip4/85.0.0.9/tcp/1/p2p/other",
    ]  # fmt: skip
