"""Peers whose processors work with other instruction sets hold the same bits after each round."""

from __future__ import annotations

import multiprocessing as mp
import os
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

import pytest
import torch

from cotrain.config import RunConfig
from cotrain.process import bind_to_parent, child_environment
from tests.integration import swarm_fixtures
from tests.integration.swarm_fixtures import ChildHandle, PeerChild, running_swarm, swarm_config

pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="this processor has only one instruction set"
)

INSTRUCTION_SETS = ["default", "avx2"]
ROUNDS = 3
STARTED_WITHIN_S = 180.0
"""A fresh interpreter imports torch and hivemind."""
_spawn = mp.get_context("spawn")


class CapablePeer(PeerChild):
    def instruction_set(self) -> str:
        """What torch uses in this process."""
        return torch.backends.cpu.get_cpu_capability()


def _serve(config: RunConfig, folder: Path, addresses: list[str], number: int, pipe: Connection) -> None:
    bind_to_parent()
    mp.set_start_method("fork", force=True)  # whoever is spawned would spawn in turn; hivemind forks
    swarm_fixtures._serve(lambda: CapablePeer(config, folder, addresses, number), pipe)


class FreshHandle(ChildHandle):
    """A process that has imported nothing yet: torch chooses its instructions anew."""

    def __init__(self, instructions: str, config: RunConfig, folder: Path, addresses: list[str], number: int):
        self.pipe, theirs = _spawn.Pipe()
        self.process = _spawn.Process(target=_serve, args=(config, folder, addresses, number, theirs))
        with mock.patch.dict(os.environ, child_environment(ATEN_CPU_CAPABILITY=instructions)):
            self.process.start()
        theirs.close()


@pytest.mark.timeout(280)
def test_peers_with_other_instruction_sets_hold_the_same_bits(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(3)) as swarm:
        fresh: list[ChildHandle] = [
            FreshHandle(instructions, swarm.config, tmp_path, swarm.addresses, number)
            for number, instructions in enumerate(INSTRUCTION_SETS)
        ]
        swarm.peers += fresh
        for peer in fresh:
            peer.result(STARTED_WITHIN_S)
        assert swarm.all(fresh, "instruction_set") == ["DEFAULT", "AVX2"]
        swarm.all(fresh, "join")
        peers = [*fresh, *swarm.add_peers(1)]  # a third, with whatever this processor has: now contributions are judged
        swarm.meet(peers)
        for round_ in range(ROUNDS):
            outcomes = swarm.all(peers, "average", round_)
            assert [outcome.get("reason") for outcome in outcomes] == [None] * len(peers)
            assert {len(outcome["members"]) for outcome in outcomes} == {len(peers)}
            assert len({outcome["digest"] for outcome in outcomes}) == 1
            assert [outcome["suspects"] for outcome in outcomes] == [[]] * len(peers)
        assert swarm.observer.call("follow", ROUNDS) == (ROUNDS, outcomes[0]["digest"])
