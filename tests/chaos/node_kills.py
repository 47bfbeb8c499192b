"""kill -9 of one process of a node in a known phase, and what must hold of the node afterwards."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cotrain.status import Status
from node.lock import AGENT_FILE
from tests.chaos.held_node import ARMED, POINTS, REACHED
from tests.system import Process, System, assert_gone, running_system, tiny_request
from tests.waiting import wait_until

HELD_NODE = Path(__file__).with_name("held_node.py")
BACK_WITHIN_S = 30.0
AWAITED_S = 120.0
PHASES = tuple(POINTS)
VICTIMS = ("agent", "training", "dht", "p2pd")
WHILE_STARTING = ("joining", "downloading")
"""Phases that come once; the others come again in each round."""


@dataclass(frozen=True)
class Stage:
    """A session that one node trains in for as long as others are killed."""

    system: System
    session: str
    url: str
    steady: Process
    joined_s: float
    """How long the steady node took from its start to its first round: what this machine takes to start one now."""

    @property
    def limit_s(self) -> float:
        """Within which a node must be back; on a machine that is too busy for it, twice what joining takes there."""
        return max(BACK_WITHIN_S, 2.0 * self.joined_s)


@contextmanager
def running_stage(folder: Path) -> Iterator[Stage]:
    """A coordinator and the steady node, in round 1 at least."""
    with running_system(folder) as system:
        system.start_coordinator()
        # rounds of half a second and more: with shorter ones a newcomer is not in step at once
        session = system.open_session(tiny_request(1, max_steps=1_000_000, inner_steps=30))
        since = time.monotonic()
        steady = system.start_node("steady", session["url"])
        wait_until(lambda: has_closed_rounds(steady.status()), limit_s=120, what=f"training: {steady.log}")
        yield Stage(system, session["id"], session["url"], steady, time.monotonic() - since)


def has_closed_rounds(status: Status | None, members: int = 1) -> bool:
    """Whether this run has closed a round with so many members or more."""
    records = [] if status is None or status.phase == "done" else status.records
    rounds = [record.data.get("members") for record in records if record.kind == "round"]
    return any(isinstance(names, list) and len(names) >= members for names in rounds)


class Victim:
    """A node of its own identity, data folder and port, that is held in a phase."""

    def __init__(self, stage: Stage, name: str, phase: str):
        self._stage, self.name, self._phase = stage, name, phase
        self._folder = stage.system.folder / f"{name}-hold"
        self._folder.mkdir()
        self.port = free_port()
        if phase in WHILE_STARTING:
            self._arm()
        self.process = self.start()

    def start(self) -> Process:
        """`cotrain node join`, as a person types it; again after a kill."""
        program = [str(HELD_NODE), self._phase, str(self._folder)]
        self.process = self._stage.system.start_node(
            self.name, self._stage.url, "--port", str(self.port), program=program
        )
        return self.process

    def _arm(self) -> None:
        (self._folder / ARMED).touch()

    def hold(self) -> Status:
        """Wait until it stands still in its phase; how it is then."""
        if self._phase not in WHILE_STARTING:
            wait_until(lambda: has_closed_rounds(self.process.status(), 2), limit_s=90, what=self.story("a round"))
            self._arm()
        wait_until((self._folder / REACHED).exists, limit_s=90, what=self.story(self._phase))
        status = self.process.status()
        assert status is not None
        return status

    def release(self) -> None:
        (self._folder / REACHED).unlink()

    def part(self, victim: str) -> psutil.Process:
        """One of its processes, found from the agent's."""
        agent = psutil.Process(self.process.popen.pid)
        (training,) = [child for child in agent.children() if "--job" in child.cmdline()]
        (p2pd,) = [child for child in training.children(recursive=True) if "p2pd" in child.name()]
        dht = p2pd.parent()
        assert dht is not None
        return {"agent": agent, "training": training, "dht": dht, "p2pd": p2pd}[victim]

    def is_back(self, run: str) -> bool:
        """Whether another run than this one has closed a round together with another node."""
        status = self.process.status()
        return status is not None and status.run != run and has_closed_rounds(status, 2)

    def story(self, wanted: str) -> str:
        """For the message of a wait that failed."""
        logs = sorted(self.process.shared.glob("logs/training/*/12D3*/worker.log"))
        return f"{wanted}: {self.process.log}, {logs}"


def kill_and_await_return(stage: Stage, victim: str, phase: str) -> float:
    """Kill a process of a new node in this phase; seconds until the node is back, with all checks. The node leaves.

    It waits longer than `stage.limit_s`, so that who looks at that learns how late a node was.
    """
    node = Victim(stage, f"{victim}-{phase}", phase)
    before = node.hold()
    tree, struck = node.process.tree(), node.part(victim)
    killed_at = time.monotonic()
    struck.kill()
    if victim == "agent":
        assert_gone(tree)
        node.process.popen.wait(10)
    else:
        assert_gone([struck])
    left = node.process.status()
    assert left is not None
    assert left.run == before.run
    if victim == "agent":
        node.start()
    else:
        node.release()
    wait_until(lambda: node.is_back(before.run), limit_s=AWAITED_S, what=node.story("back in its swarm"))
    back_s = time.monotonic() - killed_at

    agent, *_ = tree
    assert_gone(tree if victim == "agent" else [process for process in tree if process != agent])
    assert listens(node.process.tree(), node.port), "another port than it had"
    # without its daemon the training process lives a moment longer, and records why it ends
    killed = {before.run: number_of_records(left)} if victim in ("agent", "training") else {}
    check_end(stage, node, killed)
    assert stage.steady.popen.poll() is None
    return back_s


def check_end(stage: Stage, node: Victim, killed: dict[str, int]) -> None:
    """Let the node leave: nothing of it runs, its port is free, and the session's log has all that it has recorded.

    `killed`: how many records a run that was killed had made.
    """
    tree = node.process.tree()
    node.process.popen.terminate()
    assert node.process.popen.wait(40) == 0, node.process.output()
    assert_gone(tree)
    assert is_free(node.port)
    assert not (node.process.home / AGENT_FILE).exists()
    end = node.process.status()
    assert end is not None
    made = killed | {end.run: number_of_records(end)}
    log = log_of(stage, node.name)
    assert {run for run, count in made.items() if count} <= log.keys()
    for run, records in log.items():
        numbers = [record["number"] for record in records]
        assert numbers == list(range(1, made.get(run, len(numbers)) + 1)), f"run {run}"
        assert run in killed or records[-1]["data"].get("phase") == "done", f"run {run}"


def log_of(stage: Stage, name: str) -> dict[str, list[dict[str, Any]]]:
    """The records of a node in the session's log, by run."""
    participants = stage.system.get(f"/api/v1/sessions/{stage.session}/participants")["items"]
    (source,) = [one["id"] for one in participants if one["name"] == name]
    runs: dict[str, list[dict[str, Any]]] = {}
    for log in stage.system.logs(stage.session):
        if log["source"] == source:
            runs.setdefault(log["run"], []).append(log)
    return runs


def number_of_records(status: Status) -> int:
    return status.records[-1].number if status.records else 0


def listens(processes: list[psutil.Process], port: int) -> bool:
    """Whether one of them listens at this port."""
    found = [connection for process in processes for connection in process.net_connections("inet")]
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in found)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False
