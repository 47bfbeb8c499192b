"""Nothing that fails inside one peer may make the others wait for a time-out: a round closes at once or says why."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cotrain.swarm.averager import renew_thread_pool
from cotrain.train.codec import make_codec
from cotrain.train.synchronizer import LocalWork
from tests.integration.swarm_fixtures import ChildHandle, PeerChild, running_swarm, swarm_config

FORKS = 20
THREADS = 6
VALUES = 2**17
"""So many that torch divides the work among threads: the threads then meet where it asks for its pool."""
PROMPT_S = 5.0
"""Far more than a round needs, far less than a member's time-out for another (10 s)."""


class PoisonedPeer(PeerChild):
    """Its pseudo-gradient cannot be encoded."""

    def average_poisoned(self) -> dict[str, Any]:
        local = self.state.parameters.clone()
        local[::100] = float("nan")
        self.peer.begin_round(self.state, local, LocalWork(steps=4, samples=8, ranks=2))
        closed = self.peer.poll_round(60.0)
        assert closed is not None
        newer = self.optimizer.step(self.state, self.peer.average(), closed.totals, out=self.peer.next_buffers())
        self.state, _ = self.peer.publish(newer)
        return {"digest": self.state.digest(), "finite": bool(torch.isfinite(newer.parameters).all())}


def test_the_first_round_of_four_fresh_peers_closes_at_once_and_suspects_nobody(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(4)) as swarm:
        peers = swarm.add_peers(4)
        swarm.meet(peers)
        outcomes = swarm.all(peers, "average", 0)
        assert [outcome.get("reason") for outcome in outcomes] == [None] * 4
        assert len({outcome["digest"] for outcome in outcomes}) == 1
        assert [outcome["suspects"] for outcome in outcomes] == [[]] * 4
        assert max(outcome["reducingSeconds"] for outcome in outcomes) < PROMPT_S


def test_a_contribution_that_cannot_be_encoded_delays_nobody_and_spoils_nothing(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(3)) as swarm:
        honest = swarm.add_peers(2)
        poisoned = ChildHandle(lambda: PoisonedPeer(swarm.config, tmp_path, swarm.addresses, 2)).ready()
        swarm.peers.append(poisoned)
        poisoned.call("join")
        swarm.meet(swarm.peers)

        for peer in honest:
            peer.send("average", 0)
        started = time.monotonic()
        poisoned.send("average_poisoned")
        outcomes = [peer.result() for peer in honest]
        theirs = poisoned.result()

        assert time.monotonic() - started < swarm.config.swarm.matchmaking_s + PROMPT_S
        assert max(outcome["reducingSeconds"] for outcome in outcomes) < PROMPT_S
        assert {outcome["digest"] for outcome in outcomes} == {theirs["digest"]}
        assert theirs["finite"]
        assert [outcome["zeroedParts"] for outcome in outcomes] == [0, 0]
        identity = poisoned.call("identity")
        assert [outcome["suspects"] for outcome in outcomes] == [[identity]] * 2


def test_new_threads_of_a_forked_process_encode_at_the_same_time() -> None:
    """Without `renew_thread_pool` some of these processes fail with torch's "Invalid thread pool!"."""
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)  # what makes torch ask for its pool in each new thread
    try:
        codec, values = make_codec("int8"), torch.randn(VALUES)
        codec.encode(values)  # the pool is in use before the fork, as in a training process
        statuses = [
            _status_of_fork(lambda: _failures_of_new_threads(lambda: codec.encode(values))) for _ in range(FORKS)
        ]
    finally:
        torch.set_num_threads(threads_before)
    assert statuses == [0] * FORKS


def _status_of_fork(work: Callable[[], int]) -> int:
    """Exit status of a forked process that does `work`."""
    pid = os.fork()
    if pid == 0:
        os._exit(work())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _failures_of_new_threads(work: Callable[[], object]) -> int:
    """How many of several threads, started as the averager starts its own, fail in `work`."""
    failures: list[Exception] = []
    together = threading.Barrier(THREADS)

    def work_together() -> None:
        together.wait()
        try:
            work()
        except RuntimeError as error:
            failures.append(error)

    def start_all() -> None:
        renew_thread_pool()
        threads = [threading.Thread(target=work_together) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    first = threading.Thread(target=start_all)
    first.start()
    first.join()
    return len(failures)
