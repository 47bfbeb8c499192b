"""A DHT that does not start in time is an error, and nothing of it is left."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from cotrain.errors import SwarmError
from cotrain.peer_key import load_or_create_peer_key
from cotrain.swarm import daemon
from cotrain.swarm.daemon import start_dht
from tests.integration.swarm_fixtures import ChildHandle, _Child
from tests.system import assert_gone


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
