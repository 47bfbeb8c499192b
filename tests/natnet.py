"""Home networks behind routers, in network namespaces: a public segment, and homes whose router hides them (NAT).

Addresses of the public segment look public, because libp2p relays for no private ones. So it must stay closed: nothing
has a leg in the machine's own network or a route out of it. It takes root, `ip` and `iptables`.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests import netns
from tests.netns import MAIN, Host

PUBLIC, PRIVATE = "45.9.0", "10.8.0"
"""The first three numbers of the segment between the homes. On a private one libp2p relays nothing."""
HOME_ADDRESS, ROUTER_ADDRESS = "192.168.50.2", "192.168.50.1"
"""The same in each home, as in the world."""
_FIRST_ROUTER = 100


def why_unavailable() -> str | None:
    """Why this process cannot make such networks; None if it can."""
    if shutil.which("iptables") is None:
        return "there is no iptables (Debian: iptables)"
    return netns.why_unavailable()


@dataclass(frozen=True)
class Home:
    """A machine behind a router that lets out what begins inside, and lets in what answers it."""

    router: Host
    """Its address is the one that the world sees."""
    machine: Host

    def forward(self, port: int) -> None:
        """The router passes on TCP connections to this port, as somebody who followed the advice has set it up."""
        rule = ["-i", "eth0", "-p", "tcp", "--dport", str(port)]
        to = ["-j", "DNAT", "--to-destination", self.machine.address]
        _iptables(self.router.namespace, "-t", "nat", "-A", "PREROUTING", *rule, *to)
        _iptables(self.router.namespace, "-I", "FORWARD", *rule, "-j", "ACCEPT")

    def close(self, port: int) -> None:
        """The router lets nothing out to this port any more."""
        for protocol in ("tcp", "udp"):
            rule = ["-i", "lan", "-p", protocol, "--dport", str(port), "-j", "DROP"]
            _iptables(self.router.namespace, "-I", "FORWARD", *rule)


@dataclass(frozen=True)
class Internet:
    """Public hosts and homes."""

    hosts: Sequence[Host]
    homes: Sequence[Home]


def move(host: Host, address: str, *, router: str | None = None) -> Host:
    """Give the host another address of its network, in place of the one that it has; `router`: of a home's machine."""
    netns._ip("-n", host.namespace, "addr", "del", f"{host.address}/24", "dev", "eth0")
    netns._ip("-n", host.namespace, "addr", "add", f"{address}/24", "dev", "eth0")
    if router is not None:
        netns._ip("-n", host.namespace, "route", "replace", "default", "via", router)
    return replace(host, address=address)


@contextlib.contextmanager
def internet(*, hosts: int, homes: int, prefix: str = PUBLIC) -> Iterator[Internet]:
    """A segment with up to 98 hosts and as many homes."""
    made: list[str] = []
    netns._remove_abandoned()
    try:
        switch = netns._make_namespace("switch", made)
        netns._ip("-n", switch, "link", "add", MAIN, "type", "bridge")
        netns._ip("-n", switch, "link", "set", MAIN, "up")
        public = [_on_segment(switch, f"host{number}", f"{prefix}.{number + 1}", made) for number in range(hosts)]
        yield Internet(public, [_make_home(switch, number, prefix, made) for number in range(homes)])
    finally:
        for name in made:
            netns._ip("netns", "del", name)


def _on_segment(switch: str, role: str, address: str, made: list[str]) -> Host:
    name = netns._make_namespace(role, made)
    host = Host(name, address, f"port{address.rpartition('.')[2]}")
    netns._ip("-n", switch, "link", "add", host.port, "type", "veth", "peer", "name", "eth0", "netns", name)
    netns._ip("-n", switch, "link", "set", host.port, "master", MAIN, "up")
    _give_address(name, f"{host.address}/24")
    return host


def _make_home(switch: str, number: int, prefix: str, made: list[str]) -> Home:
    router = _on_segment(switch, f"router{number}", f"{prefix}.{_FIRST_ROUTER + number}", made)
    machine = Host(netns._make_namespace(f"home{number}", made), HOME_ADDRESS, "lan")
    inside = router.namespace
    netns._ip("-n", inside, "link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", machine.namespace)
    netns._ip("-n", inside, "addr", "add", f"{ROUTER_ADDRESS}/24", "dev", "lan")
    netns._ip("-n", inside, "link", "set", "lan", "up")
    _give_address(machine.namespace, f"{HOME_ADDRESS}/24")
    netns._ip("-n", machine.namespace, "route", "add", "default", "via", ROUTER_ADDRESS)
    with router.inside():
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    _iptables(inside, "-t", "nat", "-A", "POSTROUTING", "-o", "eth0", "-j", "MASQUERADE")
    _iptables(inside, "-P", "FORWARD", "DROP")
    _iptables(inside, "-A", "FORWARD", "-i", "lan", "-o", "eth0", "-j", "ACCEPT")
    answers = ["-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"]
    _iptables(inside, "-A", "FORWARD", "-i", "eth0", "-o", "lan", *answers)
    _iptables(inside, "-A", "INPUT", "-i", "eth0", "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP")
    return Home(router, machine)


def _give_address(namespace: str, address: str) -> None:
    netns._ip("-n", namespace, "addr", "add", address, "dev", "eth0")
    netns._ip("-n", namespace, "link", "set", "eth0", "up")


def _iptables(namespace: str, *arguments: str) -> None:
    netns._ip("netns", "exec", namespace, "iptables", "-w", *arguments)
