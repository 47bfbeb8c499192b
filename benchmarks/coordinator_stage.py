"""A coordinator with registered participants, and a bare aiohttp server, each a process on one core."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from coordinator.auth.tokens import token_sha256
from coordinator.models import ParticipantRow, SessionRow
from coordinator.settings import database_url_from_env
from coordinator.store import Store
from cotrain.config import dump_config
from cotrain.paths import SharedPaths
from cotrain.protocol import Hardware
from cotrain.request import SessionRequest
from cotrain.status import now
from tests.integration.test_coordinator_restart import serving

OPEN_FILES = 8192
"""Sockets that either side may have open, and room for more."""


@dataclass(frozen=True)
class Seat:
    """A registered participant, and what its uplink needs."""

    session: str
    participant: str
    peer: str
    token: str


@dataclass(frozen=True)
class Served:
    """A server that is up."""

    url: str
    process: psutil.Process
    start_s: float
    """From its start as a process to the line that says it is ready."""

    def cpu_s(self) -> float:
        """Seconds that its threads have computed so far, the kernel's work for them included."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def peak_bytes(self) -> int:
        """The most memory that it has had."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


@dataclass(frozen=True)
class Cores:
    """Where who runs: this process on one core, what it starts as a server on another."""

    server: int
    load: int

    @classmethod
    def of_this_machine(cls) -> Cores:
        """Raises SystemExit where there is only one."""
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) < 2:
            raise SystemExit("two cores are needed: one for the coordinator, one for the load")
        return cls(usable[0], usable[1])

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """This process keeps off the server's core; both sides may open enough sockets."""
        before = os.sched_getaffinity(0)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(OPEN_FILES, hard)), hard))
        os.sched_setaffinity(0, {self.load})
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Processes that are started inside run on the server's core, with all the threads that they make."""
        os.sched_setaffinity(0, {self.server})
        try:
            yield
        finally:
            os.sched_setaffinity(0, {self.load})


async def seat(root: Path, *, sessions: int, participants: int) -> list[list[Seat]]:
    """Store sessions that wait for their participants, and the participants; returns those by session."""
    shared = SharedPaths(root)
    shared.create()
    store = Store(database_url_from_env(shared), lambda _session, _events: None)
    await store.migrate()
    ids = [f"bench-{number:06d}" for number in range(sessions)]
    seats = [
        [Seat(session, f"p-{at}-{number}", f"peer-{at}-{number}", f"token-{at}-{number}")
         for number in range(participants // sessions)]
        for at, session in enumerate(ids)
    ]  # fmt: skip
    async with store.write() as transaction:
        transaction.rows.add_all([_session_row(session) for session in ids])
        await transaction.rows.flush()
        transaction.rows.add_all([_participant_row(one) for listed in seats for one in listed])
    await store.close()
    return seats


def _session_row(session: str) -> SessionRow:
    request = SessionRequest(name=session)
    return SessionRow(
        id=session, name=session, description="", state="waiting", config=dump_config(request.to_config(session)),
        error_msg="", model_path="", asset_folder="", assets=[], owner="", created_at=now(), updated_at=now(),
    )  # fmt: skip


def _participant_row(one: Seat) -> ParticipantRow:
    return ParticipantRow(
        id=one.participant, session_id=one.session, peer_id=one.peer, name=one.participant, state="offline",
        hardware=Hardware().model_dump(by_alias=True), token_sha256=token_sha256(one.token), created_at=now(),
    )  # fmt: skip


@contextlib.contextmanager
def coordinator(root: Path, cores: Cores) -> Iterator[Served]:
    """The coordinator as the command line serves it, with a checkpointer that trains nothing."""
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        with cores.starting():
            process, url = stack.enter_context(serving(root))
        yield Served(url, psutil.Process(process.pid), time.monotonic() - started)


@contextlib.contextmanager
def bare_server(body: Path, cores: Cores) -> Iterator[Served]:
    """`benchmarks/coordinator_bare.py`, which answers with this file."""
    started = time.monotonic()
    with cores.starting():
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.coordinator_bare", str(body)], stdout=subprocess.PIPE, text=True
        )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, "the bare server did not start"
        yield Served(url, psutil.Process(process.pid), time.monotonic() - started)
    finally:
        process.kill()
        process.wait()
