"""A crowd's records reach the training process, which hivemind's own pipe does not survive."""

from __future__ import annotations

from pathlib import Path

import pytest
from hivemind.utils import get_dht_time

from cotrain.peer_key import load_or_create_peer_key
from cotrain.swarm import mailbox
from cotrain.swarm.daemon import start_dht
from cotrain.swarm.mailbox import read_dictionary
from tests.integration.swarm_fixtures import ChildHandle, _Child

RECORDS = 200
RECORD = "r" * 1000


class CrowdChild(_Child):
    """A DHT of one node that holds what a crowd would say of itself."""

    def __init__(self, folder: Path):
        self.peer = load_or_create_peer_key(folder / "peer.key")
        self.dht = start_dht(host="127.0.0.1", port=0, initial_peers=[], identity_path=folder / "peer.key")

    def fill(self, records: int) -> int:
        for number in range(records):
            future = self.dht.store(
                "crowd", subkey=f"{self.peer}#{number}", value=RECORD, expiration_time=get_dht_time() + 300,
                return_future=True,
            )  # fmt: skip
            assert future.result(10.0)
        return records

    def read(self, key: str) -> tuple[int, bool]:
        found = read_dictionary(self.dht, key, 10.0)
        return len(found), all(entry.value == RECORD and entry.expiration_time > 0 for entry in found.values())

    def shrink(self) -> None:
        mailbox.MAILBOX_BYTES = 1000

    def quit(self) -> None:
        self.dht.shutdown()


def test_two_hundred_kilobytes_of_records_arrive_again_and_again(tmp_path: Path) -> None:
    crowd = ChildHandle(lambda: CrowdChild(tmp_path)).ready()
    try:
        assert crowd.call("read", "crowd") == (0, True)
        crowd.call("fill", RECORDS)
        for _ in range(20):
            assert crowd.call("read", "crowd") == (RECORDS, True)
        assert crowd.call("read", "nothing") == (0, True)
        crowd.call("shrink")
        with pytest.raises(RuntimeError, match="more than there is room for"):
            crowd.call("read", "crowd")
    finally:
        crowd.end()
