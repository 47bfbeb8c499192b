"""Network namespaces for tests: hosts on a switch, each with a cable of its own that may be slow, and that can be cut.

Nothing has a leg in the machine's own network: the switch, too, lives in a namespace. It takes root, `ip` and, for slow
cables, `tc`.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

_PREFIX = "cotrain-test-"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()

MAIN, APART = "main", "apart"
"""The bridges of a switch: who is on the one does not reach the other."""


def why_unavailable() -> str | None:
    """Why this process cannot make network namespaces; None if it can."""
    if missing := [tool for tool in ("ip", "tc") if shutil.which(tool) is None]:
        return f"there is no {' and no '.join(missing)} (Debian: iproute2)"
    name = _unique_name("try")
    try:
        _ip("netns", "add", name)
    except RuntimeError as error:
        return f"network namespaces are not allowed here: {error}"
    _ip("netns", "del", name)
    return None


@dataclass(frozen=True)
class Traffic:
    """What an interface has sent since it was made."""

    bytes: int
    packets: int

    def since(self, earlier: Traffic) -> Traffic:
        return Traffic(self.bytes - earlier.bytes, self.packets - earlier.packets)


@dataclass(frozen=True)
class Host:
    """A namespace with a loopback and, on the cable to the switch, `eth0`."""

    namespace: str
    address: str
    port: str
    """The switch's end of the cable."""

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread, and whatever it forks meanwhile, is on this host."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY)
        try:
            _enter(there)
            yield
        finally:
            _enter(home)
            os.close(there)
            os.close(home)

    def sent(self, interface: str = "eth0") -> Traffic:
        """What this host has sent; on `lo` every message counts once."""
        (link,) = json.loads(_ip("-n", self.namespace, "-s", "-j", "link", "show", interface))
        sent: dict[str, Any] = link["stats64"]["tx"]
        return Traffic(sent["bytes"], sent["packets"])


@dataclass(frozen=True)
class Network:
    """A switch and its hosts, which reach each other and nothing else."""

    switch: str
    hosts: Sequence[Host]

    def split_off(self, hosts: Sequence[Host]) -> None:
        """These hosts reach each other, and the rest no more: no connection is closed, packets get lost."""
        for host in hosts:
            _ip("-n", self.switch, "link", "set", host.port, "master", APART)

    def heal(self) -> None:
        """Everybody reaches everybody."""
        for host in self.hosts:
            _ip("-n", self.switch, "link", "set", host.port, "master", MAIN)


@contextlib.contextmanager
def network(hosts: int, *, mbit_per_s: int | None = None) -> Iterator[Network]:
    """A network of up to 250 hosts; `mbit_per_s` limits what each can send, and what each can receive."""
    made: list[str] = []
    _remove_abandoned()
    try:
        switch = _make_namespace("switch", made)
        for bridge in (MAIN, APART):
            _ip("-n", switch, "link", "add", bridge, "type", "bridge")
            _ip("-n", switch, "link", "set", bridge, "up")
        yield Network(switch, [_make_host(switch, number, mbit_per_s, made) for number in range(hosts)])
    finally:
        for name in made:
            _ip("netns", "del", name)  # with both ends of its cables


def _make_host(switch: str, number: int, mbit_per_s: int | None, made: list[str]) -> Host:
    name = _make_namespace(f"host{number}", made)
    host = Host(name, f"10.9.0.{number + 1}", f"port{number}")
    _ip("-n", switch, "link", "add", host.port, "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("-n", switch, "link", "set", host.port, "master", MAIN, "up")
    _ip("-n", name, "addr", "add", f"{host.address}/24", "dev", "eth0")
    _ip("-n", name, "link", "set", "eth0", "up")
    if mbit_per_s is not None:
        for namespace, interface in ((switch, host.port), (name, "eth0")):
            limit = ["tbf", "rate", f"{mbit_per_s}mbit", "burst", "64kb", "latency", "100ms"]
            _run("tc", "-n", namespace, "qdisc", "add", "dev", interface, "root", *limit)
    return host


def _make_namespace(role: str, made: list[str]) -> str:
    name = _unique_name(role)
    _ip("netns", "add", name)
    made.append(name)
    _ip("-n", name, "link", "set", "lo", "up")
    return name


def _unique_name(role: str) -> str:
    return f"{_PREFIX}{os.getpid()}-{next(_numbers)}-{role}"


def _remove_abandoned() -> None:
    """Remove what a process that was killed could not."""
    for entry in json.loads(_ip("-j", "netns", "list") or "[]"):
        owner = entry["name"].removeprefix(_PREFIX).partition("-")[0]
        if entry["name"].startswith(_PREFIX) and not psutil.pid_exists(int(owner)):
            _ip("netns", "del", entry["name"])


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout
