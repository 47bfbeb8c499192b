"""The address that a node gives to others is the one that leads to the coordinator."""

from __future__ import annotations

import socket

import psutil
import pytest

from cotrain.errors import InvalidRequestError, UnreachableError
from node.addresses import ANY_ADDRESS, address_towards, listen_host


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost:8000", "https://127.0.0.5/prefix"])
def test_a_coordinator_on_this_machine_is_reached_over_loopback(url: str) -> None:
    assert address_towards(url).startswith("127.")


def test_over_ipv6_too() -> None:
    has_ipv6 = any(a.address == "::1" for addresses in psutil.net_if_addrs().values() for a in addresses)
    if not has_ipv6:
        pytest.skip("this machine has no IPv6 loopback")
    assert address_towards("http://[::1]:8000") == "::1"


def test_a_coordinator_at_an_address_of_this_machine_is_reached_from_that_address() -> None:
    own = {
        address.address for addresses in psutil.net_if_addrs().values() for address in addresses
        if address.family == socket.AF_INET
    }  # fmt: skip
    for address in own:
        assert address_towards(f"http://{address}:8000") in own


def test_a_name_that_nobody_knows_is_said() -> None:
    with pytest.raises(UnreachableError, match="is not known") as caught:
        address_towards("http://no-such-host.invalid:8000")
    assert caught.value.field == "no-such-host.invalid"


def test_a_peer_listens_on_loopback_alone_only_if_the_coordinator_is_here() -> None:
    assert listen_host(None, "http://127.0.0.1:8000").startswith("127.")
    own = [
        address.address for addresses in psutil.net_if_addrs().values() for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]  # fmt: skip
    for address in own:
        assert listen_host(None, f"http://{address}:8000") == ANY_ADDRESS
    assert listen_host("10.0.0.7", "http://127.0.0.1:8000") == "10.0.0.7"


def test_a_name_is_no_address_to_listen_at() -> None:
    with pytest.raises(InvalidRequestError, match="is no IP address") as caught:
        listen_host("my-machine", "http://127.0.0.1:8000")
    assert caught.value.field == "--host"
