"""Peers are killed and others join at random moments, round after round: nobody ever holds other bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.restless import RestlessSwarm
from tests.integration.swarm_fixtures import running_swarm, swarm_config

pytestmark = [pytest.mark.chaos, pytest.mark.long, pytest.mark.timeout(290)]


@pytest.mark.parametrize("seed", [0, 1])
def test_every_round_of_a_restless_swarm_has_one_digest(seed: int, tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(5)) as swarm:
        report = RestlessSwarm(swarm, peers=5, rounds=20, seed=seed).run(limit_s=240)
    assert report.killed
    assert report.joined
    assert sorted(report.digests) == list(range(1, 21))
    assert {round_: held for round_, held in report.digests.items() if len(held) > 1} == {}
