"""The whole system for tests: coordinator and nodes as people start them, through the command line and REST only."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil

from cotrain.process import child_environment, remove_shared_memory
from cotrain.status import Status, read_status
from tests.waiting import wait_until

T = TypeVar("T")
COTRAIN = ("-m", "cotrain.cli")


def tiny_request(nodes: int = 2, *, max_steps: int = 60, inner_steps: int = 5) -> dict[str, Any]:
    """A session that two cores finish in seconds."""
    return {
        "name": "Test session",
        "training": {
            "batchSize": 4, "gradientAccumulationSteps": 1, "learningRate": 0.003, "maxSteps": max_steps,
            "warmupSteps": 5, "validationSplit": 0.1, "saveCheckpointEvery": 10, "enableEarlyStopping": False,
        },
        "distributed": {"nodes": nodes},
        "diloco": {"innerSteps": inner_steps},
        "data": {"seqLength": 64},
        "monitoring": {"evaluationRounds": 4, "evaluationBatches": 4},
    }  # fmt: skip


@dataclass
class Process:
    """A started process and all it has started in turn."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    home: Path
    shared: Path

    def tree(self) -> list[psutil.Process]:
        """The process and its descendants, as they are now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.popen.pid)
            return [process, *process.children(recursive=True)]
        return []

    def kill(self) -> list[psutil.Process]:
        """kill -9 of this one process; returns the tree it had."""
        tree = self.tree()
        self.popen.kill()
        self.popen.wait(10)
        return tree

    def end(self) -> None:
        """SIGTERM, then SIGKILL, to everything that is left."""
        tree = self.tree()
        if self.popen.poll() is None:
            self.popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(20)
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.popen.wait(10)
        remove_shared_memory([self.popen.pid, *(process.pid for process in tree)])

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def status(self) -> Status | None:
        """The newest snapshot of a node's training process."""
        for path in self.shared.glob("logs/training/*/12D3*/status.json"):
            with contextlib.suppress(OSError, ValueError):
                return read_status(path)
        return None


@dataclass
class System:
    """Starts processes, each with a data folder of its own, and ends them."""

    folder: Path
    processes: list[Process] = field(default_factory=list)
    url: str = ""
    token: str = ""
    """Of the account that owns the test's sessions."""
    seen: list[psutil.Process] = field(default_factory=list)

    def start_coordinator(self, port: int = 0, options: Sequence[str] = ()) -> Process:
        """Start `cotrain coordinator serve` and wait until it is ready."""
        arguments = ["coordinator", "serve", "--port", str(port), "--json", *options]
        process = self.start("coordinator", arguments)
        ready = wait_until(lambda: _ready_line(process), limit_s=60, what=f"coordinator ready: {process.log}")
        self.url = ready["url"]
        self.token = self._sign_in()
        return process

    def start_node(self, name: str, session_url: str, *options: str, program: Sequence[str] = COTRAIN) -> Process:
        """`program`: what stands in the place of `cotrain`, as arguments of Python."""
        arguments = ["node", "join", session_url, "--json", "--threads", "1", "--name", name, *options]
        return self.start(name, arguments, program)

    def start(
        self, name: str, arguments: list[str], program: Sequence[str] = COTRAIN, *, shared: Path | None = None
    ) -> Process:  # fmt: skip
        """A command of cotrain; `shared`: the data folder, one of its own if there is none."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        log = home / f"output-{len(self.processes)}.log"
        environment = child_environment(
            COTRAIN_SHARED=str(shared or home / "shared"), COTRAIN_HOME=str(home / "home"), OMP_NUM_THREADS="1"
        )
        environment.pop("COTRAIN_DATABASE_URL", None)
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [sys.executable, *program, *arguments], stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, env=environment, start_new_session=True,
            )  # fmt: skip
        process = Process(name, popen, log, home / "home", shared or home / "shared")
        self.processes.append(process)
        return process

    def _sign_in(self) -> str:
        """By the command line, with a wallet that outlives restarts of the coordinator."""
        environment = child_environment(COTRAIN_HOME=str(self.folder / "owner"))
        command = [sys.executable, "-m", "cotrain.cli", "node", "wallet", "token", self.url]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    # ------------------------------------------------------------------------------------------ REST
    def get(self, path: str) -> Any:
        return self._call("GET", path)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._call("POST", path, body)

    def delete(self, path: str) -> None:
        self._call("DELETE", path)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, data=data, timeout=20) as response:
            return json.loads(response.read() or b"null")

    def open_session(self, request: dict[str, Any]) -> dict[str, Any]:
        """Create and start a session; returns it once nodes can join."""
        session = self.post("/api/v1/sessions", request)
        self.post(f"/api/v1/sessions/{session['id']}/start")
        path = f"/api/v1/sessions/{session['id']}"
        wait_until(lambda: self.get(path)["status"] == "waiting", limit_s=90, what="the session is open")
        return dict(session)

    def logs(self, session: str) -> list[dict[str, Any]]:
        """The whole training log, oldest first."""
        items: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self.get(f"/api/v1/sessions/{session}/logs?limit=200{cursor}")
            items += page["items"]
            if page["nextCursor"] is None:
                return items[::-1]
            cursor = f"&cursor={page['nextCursor']}"

    def end(self) -> None:
        for process in reversed(self.processes):
            process.end()


def _ready_line(process: Process) -> dict[str, Any] | None:
    assert process.popen.poll() is None, f"the coordinator ended: {process.output()}"
    for line in process.output().splitlines():
        if line.startswith("{"):
            return dict(json.loads(line))
    return None


@contextlib.contextmanager
def running_system(folder: Path) -> Iterator[System]:
    """A system whose processes are all ended, and checked to be, when the test is over."""
    system = System(folder)
    try:
        yield system
    finally:
        system.end()


def own_children() -> set[psutil.Process]:
    """What this process has started, as it is now; tests before this one may have left helpers of torch's there."""
    return set(psutil.Process().children())


def descendants_of(pid: int) -> list[psutil.Process]:
    """All that a process has started, as they are now."""
    return psutil.Process(pid).children(recursive=True)


def daemons_among(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The peer-to-peer daemons; what has just ended is none."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if "p2pd" in process.name():
                found.append(process)
    return found


def assert_gone(processes: list[psutil.Process], *, limit_s: float = 10.0) -> None:
    """None of these processes runs any more (psutil knows a pid that was given to another)."""

    def left() -> list[psutil.Process]:
        return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def none_left() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return not left()
        return False

    wait_until(none_left, limit_s=limit_s, what=f"processes ended: {processes}")


def interrupt(process: Process) -> None:
    """Ctrl-C, as a terminal sends it: to the one process."""
    os.kill(process.popen.pid, signal.SIGINT)
