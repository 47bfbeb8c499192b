"""The training process's log as `cotrain node logs` shows it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.errors import NotFoundError
from cotrain.paths import SharedPaths
from cotrain.peer_key import load_or_create_peer_key
from node.admission import PEER_KEY
from node.lock import agent_lock
from node.log_tail import LogReader, find_log, follow_log
from node.supervisor import LOG_NAME


def begin(log: Path, content: str = "") -> None:
    """A new file at the log's place; the old one is moved away, as the supervisor does."""
    if log.exists():
        os.replace(log, log.with_suffix(".log.1"))
    log.write_text(content)


@given(st.text("aé\n", max_size=20), st.integers(0, 10))
def test_the_last_lines_are_read(tmp_path_factory: pytest.TempPathFactory, content: str, lines: int) -> None:
    log = tmp_path_factory.mktemp("log") / LOG_NAME
    log.write_bytes(content.encode())
    reader = LogReader(log, lines=lines)
    shown = reader.read()
    reader.close()
    assert shown == "".join(content.splitlines(keepends=True)[-lines:] if lines else [])


def test_what_is_written_later_is_read_also_after_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / LOG_NAME
    log.write_bytes(b"one\ntwo\nth")
    reader = LogReader(log, lines=2)
    assert reader.read() == "two\nth"
    with log.open("ab") as file:
        file.write("ree é".encode()[:-1])
    assert reader.read() == "ree "
    with log.open("ab") as file:
        file.write("é\n".encode()[1:] + b"last\n")
    begin(log, "new\n")
    assert reader.read() == "é\nlast\nnew\n"
    os.replace(log, tmp_path / "away")
    assert reader.read() == ""
    begin(log, "newer\n")
    assert reader.read() == "newer\n"
    reader.close()


def test_following_goes_on_without_end_and_reading_does_not(tmp_path: Path) -> None:
    log = tmp_path / LOG_NAME
    begin(log, "first\n")
    assert list(follow_log(log, lines=5, forever=False)) == ["first\n"]
    following = follow_log(log, lines=5, forever=True)
    assert next(following) == "first\n"

    def write() -> None:
        with log.open("a") as file:
            file.write("second\n")

    writer = threading.Timer(0.1, write)
    writer.start()
    assert next(following) == "second\n"
    writer.join()
    assert isinstance(following, Iterator)
    begin(log, "third\n")
    assert next(following) == "third\n"


def test_the_running_agents_log_is_shown_else_the_newest_of_this_node(tmp_path: Path) -> None:
    home, shared = tmp_path / "home", SharedPaths(tmp_path / "data")
    with pytest.raises(NotFoundError, match="no log yet"):
        find_log(home, shared)
    peer = load_or_create_peer_key(home / PEER_KEY)
    logs = [shared.run_dir(session, peer) / LOG_NAME for session in ("older", "newer")]
    others = shared.run_dir("newer", "another") / LOG_NAME
    for number, log in enumerate([*logs, others]):
        log.parent.mkdir(parents=True)
        log.write_text("x")
        os.utime(log, (1000 + number, 1000 + number))
    assert find_log(home, shared) == logs[1]
    with agent_lock(home, session="older", run_dir=logs[0].parent):
        assert find_log(home, shared) == logs[0]


def test_ctrl_c_ends_following(tmp_path: Path) -> None:
    home, shared = tmp_path / "home", SharedPaths(tmp_path / "data")
    log = shared.run_dir("s", load_or_create_peer_key(home / PEER_KEY)) / LOG_NAME
    log.parent.mkdir(parents=True)
    log.write_text("hello\n")
    script = "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script += "from cotrain.cli import execute\nsys.exit(execute(['node', 'logs', '-f']))\n"
    environment = {**os.environ, "COTRAIN_HOME": str(home), "COTRAIN_SHARED": str(shared.root), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"hello\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
