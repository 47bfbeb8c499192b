"""kill -9 of a peer at each named point of a round: the survivors close that round, identical, and nothing is left."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from cotrain.process import remove_shared_memory
from tests.chaos import faults
from tests.chaos.faults import add_faulty_peers
from tests.integration import swarm_fixtures
from tests.integration.swarm_fixtures import ChildHandle, TestSwarm, running_swarm, swarm_config
from tests.system import daemons_among
from tests.waiting import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

NUMEL = 5_000_011
"""Two parts for each of three reducers, so that there is a middle."""
SURVIVAL_S = 15.0
"""A member may wait for another up to 10 s."""
KILLED = -signal.SIGKILL

POINTS = [
    faults.before_send,
    faults.mid_send,
    faults.mid_reduce,
    faults.before_commit,
    faults.while_leading_the_commit,
]


@pytest.fixture(autouse=True)
def vectors_of_several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm_fixtures, "NUMEL", NUMEL)


def close_one_round(swarm: TestSwarm, peers: Sequence[ChildHandle], seed: int) -> list[dict[str, Any]]:
    """All of them together; they must agree."""
    swarm.meet(peers)
    outcomes = swarm.all(list(peers), "average", seed)
    assert [outcome.get("reason") for outcome in outcomes] == [None] * len(peers)
    assert len({(outcome["round"], outcome["digest"]) for outcome in outcomes}) == 1
    return outcomes


def pick_victim(swarm: TestSwarm, peers: Sequence[ChildHandle], *, leader: bool) -> ChildHandle:
    """The leader of the first ballot is the member with the smallest id."""
    identities = swarm.all(list(peers), "identity")
    chosen = min(identities) if leader else max(identities)
    return peers[identities.index(chosen)]


def assert_killed(victim: ChildHandle, descendants: list[psutil.Process]) -> None:
    victim.process.join(10.0)
    assert victim.process.exitcode == KILLED, "the fault did not strike"
    _, alive = psutil.wait_procs(descendants, timeout=5.0)
    assert alive == []
    pids = [victim.process.pid or 0, *(process.pid for process in descendants)]
    if shares_memory():
        remove_shared_memory(pids)  # the victim's is looked after by the tests' own manager, which lives
        return
    wait_until(lambda: not shared_memory_of(pids), limit_s=10, what=f"shared memory freed: {shared_memory_of(pids)}")


def shares_memory() -> bool:
    """Whether an earlier test has shared memory in this process, so that children inherit torch's manager of it."""
    return any(process.name().startswith("torch_shm") for process in psutil.Process().children())


def shared_memory_of(pids: Iterable[int | None]) -> list[str]:
    """Files that torch has made for memory shared by these processes."""
    return [file.name for pid in pids for file in Path("/dev/shm").glob(f"torch_{pid}_*")]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.__name__)
def test_the_survivors_of_a_kill_close_the_round_identically(point: Any, tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(3)) as swarm:
        peers = add_faulty_peers(swarm, 3, point)
        close_one_round(swarm, peers, seed=0)
        victim = pick_victim(swarm, peers, leader=point is faults.while_leading_the_commit)
        survivors = [peer for peer in peers if peer is not victim]
        descendants = victim.descendants()
        assert daemons_among(descendants)
        victim.call("arm")

        started = time.monotonic()
        for peer in peers:
            peer.send("average", 1)
        outcomes = [peer.result() for peer in survivors]

        assert_killed(victim, descendants)
        assert time.monotonic() - started < SURVIVAL_S
        assert [outcome.get("reason") for outcome in outcomes] == [None, None]
        assert {outcome["round"] for outcome in outcomes} == {2}
        assert len({outcome["digest"] for outcome in outcomes}) == 1
        assert {len(outcome["members"]) for outcome in outcomes} == {3}, "the group formed before the kill"
        close_after_the_loss(swarm, survivors)


def test_a_peer_killed_while_its_processes_speak_holds_up_nobody(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(3)) as swarm:
        victim, *survivors = swarm.add_peers(3)
        swarm.meet([victim, *survivors])
        victim.call("hold_futures")
        victim.kill()
        assert swarm.all(survivors, "seen_at_most", 2) == [2, 2]
        assert {len(outcome["members"]) for outcome in close_one_round(swarm, survivors, seed=0)} == {2}


def close_after_the_loss(swarm: TestSwarm, survivors: Sequence[ChildHandle]) -> None:
    """The next round is the survivors' own, once the record of the dead has gone."""
    assert swarm.all(list(survivors), "seen_at_most", len(survivors)) == [len(survivors)] * len(survivors)
    outcomes = close_one_round(swarm, survivors, seed=2)
    assert {outcome["round"] for outcome in outcomes} == {3}


def test_a_joiner_whose_donor_is_killed_goes_on_with_another(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(3)) as swarm:
        peers = add_faulty_peers(swarm, 2, faults.while_serving_state)
        agreed = close_one_round(swarm, peers, seed=0)[0]
        victim, donor = peers
        descendants = victim.descendants()
        (joiner,) = swarm.add_peers(1)
        donors = [(peer.call("identity"), agreed["round"], agreed["digest"]) for peer in peers]
        victim.call("arm")

        assert joiner.call("download", donors, 30.0) == agreed["digest"]

        assert_killed(victim, descendants)
        assert joiner.call("resync") == (agreed["round"], agreed["digest"])
        assert swarm.all([donor, joiner], "seen_at_most", 2) == [2, 2]
        close_one_round(swarm, [donor, joiner], seed=1)
