"""Databases for tests: an SQLite file, or a new database on a PostgreSQL server that the tests start.

The server is Debian's; it listens on a Unix socket in a temporary folder and nowhere else, keeps everything on disk as
it does in earnest, and runs as another user where the tests run as root, since PostgreSQL refuses to be root.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.waiting import wait_until

KINDS = ("sqlite", "postgresql")
BOTH = pytest.mark.parametrize("database_url", KINDS, indirect=True)
"""Marks tests that take `database_url`, by themselves or through another fixture, to be run on both."""
_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
_START_LIMIT_S = 60.0


class PostgresServer:
    """One server, its files, and its databases."""

    def __init__(self, programs: Path):
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="cotrain-test-pg-", dir="/tmp"))  # a socket's path must be short
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            self._identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-U", "cotrain", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        command = ["postgres", "-D", "data", "-k", str(self._folder), "-c", "listen_addresses="]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / command[0], *command[1:]], cwd=self._folder, stdout=log, stderr=log, **self._identity
            )
        wait_until(
            self._takes_connections, limit_s=_START_LIMIT_S, what=f"it takes connections; see {self._folder}/log"
        )

    def _takes_connections(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        return self._try("pg_isready", "-q", "-h", str(self._folder)) == 0

    def new_database(self) -> str:
        """URL of an empty database."""
        self._made += 1
        name = f"test{self._made}"
        self._run("createdb", "-h", str(self._folder), "-U", "cotrain", name)
        return f"postgresql://cotrain@/{name}?host={self._folder}"

    def configure(self, statement: str) -> None:
        """Run a statement as the server's administrator."""
        self._run("psql", "-q", "-h", str(self._folder), "-U", "cotrain", "-d", "postgres", "-c", statement)

    def crash(self) -> None:
        """End it as a power cut would, as far as a program can: every process at once, nothing flushed."""
        assert self._process is not None
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        for child in children:
            child.kill()
        self._process.wait()
        wait_until(
            lambda: not any(map(_lives, children)), limit_s=_START_LIMIT_S, what="all of its processes have ended"
        )

    def stop(self) -> None:
        """End it, and remove its files."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)  # at once, open connections or not; its files go anyway
            self._process.wait(_START_LIMIT_S)
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments], cwd=self._folder, capture_output=True, **self._identity
        )
        assert done.returncode == 0, done.stderr.decode()

    def _try(self, program: str, *arguments: str) -> int:
        return subprocess.run(
            [self._programs / program, *arguments], cwd=self._folder, capture_output=True, **self._identity
        ).returncode


def _lives(process: psutil.Process) -> bool:
    """Whether it still holds anything; a dead one that nobody has waited for does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server for all tests; skips where PostgreSQL is not installed."""
    pytest.importorskip("asyncpg", reason="asyncpg is not installed")
    if not _PROGRAMS:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    server = PostgresServer(_PROGRAMS[-1])
    yield server
    server.stop()


@pytest.fixture
def new_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Makes the URL of an empty database of a kind; what is not asked for is not started."""

    def make(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite+aiosqlite:///{tmp_path / 'cotrain.sqlite3'}"
        server: PostgresServer = request.getfixturevalue("postgres_server")
        return server.new_database()

    return make


@pytest.fixture
def database_url(request: pytest.FixtureRequest, new_database_url: Callable[[str], str]) -> str:
    """URL of an empty database: SQLite's, unless the test is marked with `BOTH`."""
    return new_database_url(getattr(request, "param", "sqlite"))
