"""A run that begins with short rounds, over libp2p: peers and observer agree on when the warm-up is over."""

from __future__ import annotations

from pathlib import Path

from cotrain.swarm.dht import SwarmView
from cotrain.train.synchronizer import LocalWork
from tests.integration.swarm_fixtures import WANTED, ChildHandle, PeerChild, running_swarm, swarm_config

WARMUP_SHARE = 20 / WANTED
"""Two peers commit 16 samples in a round: two rounds are the warm-up's."""


class ClosingChild(PeerChild):
    """A peer that says after how many inner steps it would close its round."""

    def closes_after(self) -> int:
        """Once its view is newer than its state, and the other has said that it is as far."""
        peer = self.peer

        def is_current(view: SwarmView) -> bool:
            rounds = [record.round for record in view.trainers().values()]
            return view.seen_at >= peer._state_noted_at and rounds == [self.state.round]

        assert peer._directory.wait_for(is_current, 20)
        return next(steps for steps in range(1, 100) if peer.should_close(LocalWork(steps, 2 * steps)))


def test_peers_and_observer_end_the_warm_up_with_the_same_round(tmp_path: Path) -> None:
    config = swarm_config(2, warmup_share=WARMUP_SHARE, warmup_inner_steps=3)
    with running_swarm(tmp_path, config) as swarm:
        peers = [
            ChildHandle(lambda n=number: ClosingChild(config, tmp_path, swarm.addresses, n)).ready()
            for number in range(2)
        ]
        swarm.peers += peers
        swarm.all(peers, "join")
        swarm.meet(peers)
        lengths = []
        for round_ in range(3):
            lengths.append(peers[0].call("closes_after"))
            outcomes = swarm.all(peers, "average", round_)
            assert [outcome.get("reason") for outcome in outcomes] == [None, None]
            assert outcomes[0]["digest"] == outcomes[1]["digest"]
            assert swarm.observer.call("follow", round_ + 1) == (round_ + 1, outcomes[0]["digest"])
        # the other has done nothing, so a peer closes when it has done four times the round's inner steps
        assert lengths == [4 * 3, 4 * 3, 4 * 4]
