"""A node as its volunteer starts it: the command in a process that a test sends signals to and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.integration.node_fixtures import SESSION

AGENT = Path(__file__).with_name("node_small_agent.py")


class AgentProcess:
    """An agent in a process of its own, with the small worker; ended by pid."""

    def __init__(self, folder: Path, url: str, mode: str, *, home: str = "home", within: Sequence[str] = ()):
        """`within`: the beginning of a command line that runs another one."""
        self._within = within
        self.home = folder / home
        self.shared = folder / "shared"
        self._url = url
        self._mode = mode
        self.process: asyncio.subprocess.Process | None = None
        self.output = b""

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "COTRAIN_HOME": str(self.home), "COTRAIN_SHARED": str(self.shared)}

    async def __aenter__(self) -> AgentProcess:
        self.process = await asyncio.create_subprocess_exec(
            *self._within, sys.executable, str(AGENT), self._url, self._mode, env=self.environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        return self

    async def __aexit__(self, *details: object) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    @property
    def run_dirs(self) -> list[Path]:
        return list((self.shared / "logs" / "training" / SESSION).glob("*"))

    def worker_pid(self) -> int | None:
        """The worker that has written a snapshot and still lives."""
        for path in (self.shared / "logs" / "training" / SESSION).glob("*/worker.pid"):
            pid = int(path.read_text() or 0)
            if pid and psutil.pid_exists(pid):
                return pid
        return None

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def wait(self, *, limit_s: float = 30.0) -> int:
        """The exit code; what it printed is in `output`."""
        assert self.process is not None
        self.output, _ = await asyncio.wait_for(self.process.communicate(), limit_s)
        assert self.process.returncode is not None
        return self.process.returncode
