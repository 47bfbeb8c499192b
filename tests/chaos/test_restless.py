"""Peers are killed and others join at random moments, round after round: nobody ever holds other bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.restless import RestlessSwarm
from tests.integration.swarm_fixtures import running_swarm, swarm_config

pytestmark = pytest.mark.chaos

FULL_LIMIT_S = 1500


def assert_one_digest_each(folder: Path, *, peers: int, rounds: int, seed: int, limit_s: float) -> None:
    with running_swarm(folder, swarm_config(peers)) as swarm:
        report = RestlessSwarm(swarm, peers=peers, rounds=rounds, seed=seed).run(limit_s)
    assert report.killed
    assert report.joined
    assert sorted(report.digests) == list(range(1, rounds + 1))
    assert {round_: held for round_, held in report.digests.items() if len(held) > 1} == {}


@pytest.mark.timeout(150)
def test_every_round_of_a_small_restless_swarm_has_one_digest(tmp_path: Path) -> None:
    assert_one_digest_each(tmp_path, peers=4, rounds=10, seed=3, limit_s=120)


@pytest.mark.long
@pytest.mark.timeout(FULL_LIMIT_S + 60)
def test_fifty_rounds_of_eight_restless_peers_have_one_digest_each(tmp_path: Path) -> None:
    assert_one_digest_each(tmp_path, peers=8, rounds=50, seed=0, limit_s=FULL_LIMIT_S)
