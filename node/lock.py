"""The agent's pid file: one agent for each identity, and where the commands find the running one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from pydantic import ValidationError

from cotrain.errors import ConflictError, NotFoundError
from cotrain.request import CamelModel
from cotrain.status import read_json_object, replace_file

AGENT_FILE = "agent.json"
_START_TIME_TOLERANCE_S = 1.0  # psutil derives the start from the boot time, which clock changes move


class AgentRecord(CamelModel):
    """The agent that uses this home folder: process id and start, since ids are used again."""

    pid: int
    start_time: float
    session: str
    run_dir: Path
    """Where its training process keeps `status.json`."""
    asks_browser: bool = False
    """Whether it takes part by a wallet in a browser elsewhere."""

    def is_alive(self) -> bool:
        """Whether that very process still runs."""
        try:
            process = psutil.Process(self.pid)
            started, status = process.create_time(), process.status()
        except psutil.NoSuchProcess:
            return False
        same: bool = abs(started - self.start_time) <= _START_TIME_TOLERANCE_S
        return same and status != psutil.STATUS_ZOMBIE


def read_agent(home: Path) -> AgentRecord | None:
    """The agent that runs with this home folder, if any; the file of a dead one does not count."""
    record = last_agent(home)
    return record if record is not None and record.is_alive() else None


def last_agent(home: Path) -> AgentRecord | None:
    """The agent that the pid file names, alive or not; None once it has ended in order."""
    try:
        return AgentRecord.model_validate(read_json_object(home / AGENT_FILE))
    except (OSError, ValueError, ValidationError):
        return None


def running_agent(home: Path) -> AgentRecord:
    """The running agent. Raises NotFoundError with the command that starts one."""
    record = read_agent(home)
    if record is None:
        raise NotFoundError("no agent is running", field=str(home), hint="start one with: cotrain node join URL")
    return record


@contextmanager
def agent_lock(home: Path, *, session: str, run_dir: Path, asks_browser: bool = False) -> Iterator[None]:
    """Be this home folder's agent, in place of a dead one. Raises ConflictError that names the pid."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = home / AGENT_FILE
    mine = AgentRecord(
        pid=os.getpid(), start_time=psutil.Process().create_time(), session=session, run_dir=run_dir,
        asks_browser=asks_browser,
    )  # fmt: skip
    with (home / ".agent.lock").open("ab") as file:
        # Held only while the file is read and written, so that of two agents started at once one is refused.
        fcntl.flock(file, fcntl.LOCK_EX)
        other = read_agent(home)
        if other is not None:
            raise ConflictError(
                f"process {other.pid} already takes part in session {other.session!r} with this identity",
                field=str(home), details={"pid": other.pid, "session": other.session},
                hint="end it with: cotrain node leave; or give this one another COTRAIN_HOME",
            )  # fmt: skip
        replace_file(path, mine.model_dump_json(by_alias=True).encode())
    try:
        yield
    finally:
        if read_agent(home) == mine:
            path.unlink(missing_ok=True)
