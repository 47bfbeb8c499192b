"""Peers whose volunteers limit what they send: rounds close with the same bits, and the limit holds."""

from __future__ import annotations

import time
from pathlib import Path

from tests.integration.swarm_fixtures import ChildHandle, PeerChild, running_swarm, swarm_config

RATE = 40_000


class LimitedPeer(PeerChild):
    most_bytes_per_s = RATE


def test_a_round_of_limited_peers_closes_no_faster_than_they_may_send(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(2, codec="fp32")) as swarm:
        peers = [
            ChildHandle(lambda n=number: LimitedPeer(swarm.config, swarm.folder, swarm.addresses, n))
            for number in range(2)
        ]
        swarm.peers += peers
        for handle in peers:
            handle.ready()
        swarm.all(peers, "join")
        swarm.meet(peers)
        started = time.monotonic()
        outcomes = swarm.all(peers, "average", 0)
        took_s = time.monotonic() - started
        assert [outcome.get("reason") for outcome in outcomes] == [None, None]
        assert outcomes[0]["digest"] == outcomes[1]["digest"]
        # each sends a contribution and an average, of about the same size; one of them goes out at once
        assert all(outcome["sent"] > 2 * RATE for outcome in outcomes)
        assert took_s >= max(outcome["sent"] for outcome in outcomes) / RATE / 2 * 0.9
