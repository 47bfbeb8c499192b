"""A swarm whose peers close round after round by themselves while some are killed and others join, as a seed says."""

from __future__ import annotations

import json
import os
import random
import time
from collections import defaultdict
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from cotrain.train.synchronizer import LocalWork, RoundNotClosed, StateOutdated
from tests.integration.swarm_fixtures import ChildHandle, PeerChild, TestSwarm

STEPS_PER_S = 10.0
"""Of every peer: a round has four inner steps."""
LOOK_S = 0.1


class RestlessPeer(PeerChild):
    """Closes rounds as the training loop does; in the place of inner steps it draws a random pseudo-gradient."""

    def close_rounds(self, until: int, records: str) -> int:
        """Until the state has had this many rounds; each is written to `records` as a line of JSON."""
        begun = time.monotonic()
        while self.state.round < until:
            steps = int((time.monotonic() - begun) * STEPS_PER_S)
            work = LocalWork(steps=steps, samples=2 * steps, ranks=2)
            self.peer.report(work, STEPS_PER_S)
            try:
                if self.peer.should_close(work, LOOK_S):
                    self._close_one(work)
                    self._record(records)
                    begun = time.monotonic()
            except StateOutdated:
                self.state = self.peer.resync(self.state)
                begun = time.monotonic()
            except RoundNotClosed:
                begun = time.monotonic()
        return self.state.round

    def _close_one(self, work: LocalWork) -> None:
        generator = torch.Generator().manual_seed(1000 * self.state.round + self.number)
        noise = torch.randn(len(self.state.parameters), generator=generator)
        self.peer.begin_round(self.state, self.state.parameters + 0.01 * noise, work)
        while (closed := self.peer.poll_round(1.0)) is None:
            pass
        newer = self.optimizer.step(self.state, self.peer.average(), closed.totals, out=self.peer.next_buffers())
        self.state, _ = self.peer.publish(newer)

    def _record(self, records: str) -> None:
        line = json.dumps({"peer": self.number, "round": self.state.round, "digest": self.state.digest()}) + "\n"
        descriptor = os.open(records, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode())  # one call: whole, or not there if the peer is killed before
        os.close(descriptor)


@dataclass
class Report:
    """What became of a restless swarm.

    Attributes:
        digests: of each round that anybody closed, the distinct digests of those who did.
        killed, joined: numbers of peers; a peer that is killed may join again, with its identity.
        wall_s: of all rounds.
    """

    digests: dict[int, set[str]]
    killed: list[int] = field(default_factory=list)
    joined: list[int] = field(default_factory=list)
    wall_s: float = 0.0

    @property
    def agreed(self) -> int:
        """Rounds after which all that closed them held the same state."""
        return sum(len(held) == 1 for held in self.digests.values())


def read_digests(records: Path) -> dict[int, set[str]]:
    """By round."""
    digests: dict[int, set[str]] = defaultdict(set)
    for line in records.read_text().splitlines():
        record: dict[str, Any] = json.loads(line)
        digests[record["round"]].add(record["digest"])
    return dict(digests)


class RestlessSwarm:
    """Kills and starts peers of a TestSwarm until those that live have had the rounds wanted."""

    def __init__(self, swarm: TestSwarm, *, peers: int, rounds: int, seed: int):
        self._swarm, self._rounds, self._peers = swarm, rounds, peers
        self._random = random.Random(seed)
        self._records = swarm.folder / "records.jsonl"
        self._records.touch()
        self._live: dict[int, ChildHandle] = {}
        self._next = 0
        self.report = Report({})

    def run(self, limit_s: float) -> Report:
        """Raises TimeoutError when it takes longer."""
        for _ in range(self._peers):
            self._start(self._take_number())
        started = time.monotonic()
        self._swarm.meet(list(self._live.values()))
        for handle in self._live.values():
            self._let_go_on(handle)
        while not self._await_end(self._random.uniform(1.0, 4.0)):
            if time.monotonic() - started > limit_s:
                raise TimeoutError(f"after {limit_s:.0f} s: {read_digests(self._records).keys()}")
            self._disturb()
        for handle in self._live.values():
            handle.result()  # raises what went wrong in it
        self.report.wall_s = time.monotonic() - started
        self.report.digests = read_digests(self._records)
        return self.report

    def _take_number(self) -> int:
        self._next += 1
        return self._next - 1

    def _start(self, number: int) -> ChildHandle:
        swarm = self._swarm
        handle = ChildHandle(lambda: RestlessPeer(swarm.config, swarm.folder, swarm.addresses, number))
        swarm.peers.append(handle)
        handle.ready().call("join")
        self._live[number] = handle
        return handle

    def _let_go_on(self, handle: ChildHandle) -> None:
        handle.send("close_rounds", self._rounds, str(self._records))

    def _await_end(self, seconds: float) -> bool:
        """Whether all that live have had the rounds wanted, within this time."""
        deadline = time.monotonic() + seconds
        pending = {handle.pipe: handle for handle in self._live.values()}
        while pending and (left := deadline - time.monotonic()) > 0:
            for pipe in wait(list(pending), left):
                handle = pending[pipe]  # type: ignore[index]
                if handle.pipe.poll():
                    del pending[pipe]  # type: ignore[arg-type]
        return not pending

    def _disturb(self) -> None:
        """Kill one, if most of the swarm is there; else let one join: a newcomer, or one that was killed."""
        running = [number for number, handle in self._live.items() if not handle.pipe.poll()]
        if len(self._live) < self._peers:
            back = [number for number in self.report.killed if number not in self._live]
            number = self._random.choice([*back, self._take_number()])
            self._let_go_on(self._start(number))
            self.report.joined.append(number)
        elif running:
            number = self._random.choice(running)
            self._live.pop(number).kill()
            self.report.killed.append(number)
