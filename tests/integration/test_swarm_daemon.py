"""A DHT that does not start in time is an error, and nothing of it is left; the end of one is known at once."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from cotrain.errors import SwarmError
from cotrain.peer_key import load_or_create_peer_key
from cotrain.swarm import daemon
from cotrain.swarm.daemon import addresses_of, start_dht
from cotrain.swarm.silence import require_running
from tests.integration.swarm_fixtures import ChildHandle, _Child
from tests.system import assert_gone, daemons_among
from tests.waiting import wait_for, wait_until

LOST_WITHIN_S = 6.0
"""So that a node is back in its swarm in half a minute."""
STOPPED_S = 2.0


class Hasty(_Child):
    """Waits for its DHT no longer than it must."""

    def __init__(self, folder: Path):
        self.folder = folder
        load_or_create_peer_key(folder / "peer.key")

    def start(self, wait_s: float) -> str:
        daemon.START_TIMEOUT_S = wait_s
        try:
            start_dht(host="127.0.0.1", port=0, initial_peers=[], identity_path=self.folder / "peer.key")
        except SwarmError as error:
            return str(error)
        return "started"

    def quit(self) -> None:
        return


@pytest.mark.parametrize(("wait_s", "expected"), [(0.0, "has said nothing for 0 s"), (60.0, "started")])
def test_the_start_of_a_dht_is_bounded(tmp_path: Path, wait_s: float, expected: str) -> None:
    child = ChildHandle(lambda: Hasty(tmp_path)).ready()
    started: list[psutil.Process] = []
    try:
        assert expected in child.call("start", wait_s)
        started = child.descendants()
        if wait_s == 0.0:  # torch's helper goes with the process that it serves
            assert_gone([process for process in started if process.name() != "torch_shm_manager"])
    finally:
        child.end()
    assert_gone(started)


class Watched(_Child):
    """Has a DHT, and looks after it as a training process does."""

    def __init__(self, folder: Path):
        load_or_create_peer_key(folder / "peer.key")
        self.dht = start_dht(host="127.0.0.1", port=0, initial_peers=[], identity_path=folder / "peer.key")

    def trouble(self, limit_s: float) -> str:
        """What is found wrong within so many seconds; empty for nothing."""
        return wait_for(self._trouble, limit_s=limit_s) or ""

    def _trouble(self) -> str:
        try:
            require_running(self.dht)
        except SwarmError as error:
            return str(error)
        return ""

    def addresses(self) -> list[str]:
        return addresses_of(self.dht)

    def end_code(self) -> int | None:
        """Exit code of the DHT's process after a polite end."""
        self.dht.shutdown()
        self.dht.join(LOST_WITHIN_S)
        return self.dht.exitcode

    def quit(self) -> None:
        self.dht.shutdown()


def daemon_of(child: ChildHandle) -> psutil.Process:
    (found,) = daemons_among(child.descendants())
    return found


@pytest.mark.parametrize("victim", ["daemon", "dht"])
def test_a_daemon_or_dht_that_is_killed_is_known_to_be_at_once(tmp_path: Path, victim: str) -> None:
    child = ChildHandle(lambda: Watched(tmp_path)).ready()
    try:
        p2pd = daemon_of(child)
        dht = p2pd.parent()
        assert dht is not None
        assert child.call("addresses")
        assert child.call("trouble", 0.0) == ""
        (p2pd if victim == "daemon" else dht).kill()
        assert "the peer-to-peer daemon of this machine has ended" in child.call("trouble", LOST_WITHIN_S)
        assert_gone([p2pd, dht])
        with pytest.raises(RuntimeError, match="SwarmError: a process of the peer-to-peer network has ended"):
            child.call("addresses")
    finally:
        child.end()


def test_a_daemon_that_is_stopped_for_a_while_is_not_lost(tmp_path: Path) -> None:
    child = ChildHandle(lambda: Watched(tmp_path)).ready()
    try:
        p2pd = daemon_of(child)
        p2pd.suspend()
        try:
            wait_until(lambda: p2pd.status() == psutil.STATUS_STOPPED, what="it has stopped")
            assert child.call("trouble", STOPPED_S) == ""
        finally:
            p2pd.resume()
        assert child.call("addresses")
        assert child.call("end_code") == 0
    finally:
        child.end()
