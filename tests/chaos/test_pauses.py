"""A peer that is stopped (SIGSTOP) for longer than every time-out: the others go on, and it catches up."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.chaos import faults
from tests.chaos.faults import STOPPED_AT_MOST_S, add_faulty_peers, add_patient_peers
from tests.chaos.test_faults import close_one_round
from tests.integration import swarm_fixtures
from tests.integration.swarm_fixtures import ChildHandle, TestSwarm, running_swarm, swarm_config

pytestmark = [pytest.mark.chaos, pytest.mark.long, pytest.mark.timeout(280)]

STOPPED_S = 25.0
"""Longer than a member waits for a reducer (20 s), and than a record lives (4 s)."""


@contextlib.contextmanager
def stopped(peer: ChildHandle) -> Iterator[None]:
    """The peer and all it has started stand still."""
    processes = [psutil.Process(peer.process.pid), *peer.descendants()]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def close_rounds_for(swarm: TestSwarm, peers: list[ChildHandle], seconds: float) -> dict[str, Any]:
    """Rounds one after the other; the last one's outcome, in which all agree."""
    until, seed, last = time.monotonic() + seconds, 100, {}
    while time.monotonic() < until:
        assert swarm.all(peers, "may_close") == [True] * len(peers)
        outcomes = swarm.all(peers, "average", seed)
        assert len({(outcome["round"], outcome["digest"]) for outcome in outcomes}) == 1, outcomes
        seed, last = seed + 1, outcomes[0]
    return last


def catch_up_and_go_on(swarm: TestSwarm, late: ChildHandle, others: list[ChildHandle], last: dict[str, Any]) -> None:
    assert late.call("sees_round", last["round"])
    assert late.call("resync") == (last["round"], last["digest"])
    outcomes = close_one_round(swarm, [*others, late], seed=1)
    assert {len(outcome["members"]) for outcome in outcomes} == {3}


def test_a_peer_stopped_between_rounds_catches_up(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(3)) as swarm:
        peers = add_patient_peers(swarm, 3)
        close_one_round(swarm, peers, seed=0)
        late, others = peers[2], peers[:2]
        with stopped(late):
            last = close_rounds_for(swarm, others, STOPPED_S)
            assert last["closed"]
            assert last["round"] >= 3
        catch_up_and_go_on(swarm, late, others, last)


def test_a_peer_stopped_in_the_middle_of_reducing_catches_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm_fixtures, "NUMEL", 5_000_011)
    with running_swarm(tmp_path, swarm_config(3)) as swarm:
        peers = add_faulty_peers(swarm, 3, faults.mid_reduce, signal.SIGSTOP)
        close_one_round(swarm, peers, seed=0)
        late, others = peers[2], peers[:2]
        processes = [psutil.Process(late.process.pid), *late.descendants()]
        late.call("arm")
        late.send("average", 1)
        try:
            outcomes = swarm.all(others, "average", 1)
            assert [outcome.get("reason") for outcome in outcomes] == [None, None]
            assert len({(outcome["round"], outcome["digest"]) for outcome in outcomes}) == 1
            last = close_rounds_for(swarm, others, STOPPED_S)
            assert psutil.STATUS_STOPPED in {process.status() for process in processes}, "the fault did not strike"
        finally:
            for process in processes:
                process.resume()
        own = late.result(STOPPED_AT_MOST_S)
        # what it missed the end of it may still learn; it never closes a round otherwise than the others
        assert not own["closed"] or own["digest"] == outcomes[0]["digest"]
        catch_up_and_go_on(swarm, late, others, last)
