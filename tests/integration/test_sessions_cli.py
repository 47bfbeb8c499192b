"""`cotrain sessions` through the command line, against a real coordinator in a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest

from cotrain.cli import execute
from cotrain.identity.wallet import EthereumWallet
from node.sessions.sign_ins import SIGN_INS_FILE, read_sign_ins
from tests.integration.coordinator_fixtures import LIMIT_S, REPOSITORY
from tests.integration.test_coordinator_restart import serving

COMMAND = [sys.executable, "-m", "cotrain.cli"]
COMMAND_LIMIT_S = 60.0
SMALL = ("--size", "nano", "--steps", "8", "--nodes", "1", "--set", "diloco.innerSteps=4")


class Ended(NamedTuple):
    """What a command ended with."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed, which is one line."""
        assert self.code == 0, self.err
        return json.loads(self.out)

    def lines(self) -> list[Any]:
        assert self.code == 0, self.err
        return [json.loads(line) for line in self.out.splitlines()]


class Shell:
    """Somebody's shell: a COTRAIN_HOME of its own, and no terminal."""

    def __init__(self, home: Path, url: str):
        self.home = home
        self.url = url
        known = {name: value for name, value in os.environ.items() if not name.startswith("COTRAIN_")}
        self.environment = {**known, "COTRAIN_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}

    def run(self, *arguments: str) -> Ended:
        """What the command line does with them, in this process."""
        return self.execute("sessions", *arguments)

    def execute(self, *arguments: str, **variables: str) -> Ended:
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, {**self.environment, **variables}, clear=True),
            contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
        ):  # fmt: skip
            try:
                code = execute(arguments)
            except SystemExit as ended:  # how a completion ends
                code = int(ended.code or 0)
        return Ended(code, out.getvalue(), err.getvalue())

    def completed(self, *words: str) -> list[str]:
        """What a shell is offered for the last of the words."""
        asked = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
        ended = self.execute(_COTRAIN_COMPLETE="complete_bash", **asked)
        assert (ended.code, ended.err) == (0, "")
        return ended.out.split()

    def started(self, *arguments: str) -> Background:
        return Background([*COMMAND, "sessions", *arguments], self.environment)

    def create(self, name: str, *arguments: str) -> str:
        return str(self.run("create", "--name", name, *SMALL, *arguments, "--json").lines()[0]["id"])


class Background:
    """A command that goes on; its lines as they come."""

    def __init__(self, command: list[str], environment: dict[str, str]):
        self.lines: list[str] = []
        self._came = threading.Event()
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)

    def until(self, condition: Callable[[list[str]], bool]) -> None:
        give_up = time.monotonic() + COMMAND_LIMIT_S
        while True:
            alive = self._reader.is_alive()  # asked first: nothing can come after the check of a dead one's lines
            if condition(self.lines):
                return
            assert alive, f"ended without it: {self.lines}"
            assert time.monotonic() < give_up, f"did not come: {self.lines}"
            self._came.wait(0.2)
            self._came.clear()

    def ended(self) -> tuple[int, str]:
        code = self.process.wait(COMMAND_LIMIT_S)
        self._reader.join(LIMIT_S)
        assert self.process.stderr is not None
        return code, self.process.stderr.read()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            self._came.set()


def types_of(lines: list[str]) -> list[str]:
    return [json.loads(line)["type"] for line in lines]


def states_of(lines: list[str]) -> list[str]:
    events = [json.loads(line) for line in lines]
    return [event["data"]["status"] for event in events if event["type"] == "session.state"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def url(root: Path) -> Iterator[str]:
    with serving(root) as (_, url):
        yield url


@pytest.fixture(scope="module")
def shell(url: str, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """The shell of somebody who has signed in."""
    shell = Shell(tmp_path_factory.mktemp("owner"), url)
    ended = shell.run("login", url)
    assert ended.code == 0, ended.err
    return shell


@pytest.fixture
def stranger(url: str, tmp_path: Path) -> Shell:
    """The shell of somebody who has not."""
    shell = Shell(tmp_path / "stranger", url)
    shell.environment["COTRAIN_COORDINATOR"] = url
    return shell


def test_a_sign_in_is_kept_and_never_printed(url: str, tmp_path: Path) -> None:
    shell = Shell(tmp_path / "home", url)
    ended = shell.run("login", f"{url}/")
    assert (ended.code, ended.err) == (0, "")
    path = shell.home / SIGN_INS_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = read_sign_ins(shell.home).tokens[url]
    assert len(token) > 20
    assert token not in ended.out
    session = shell.create("Mine")
    assert shell.run("show", session, "--json").json()["owner"] in ended.out
    assert shell.run("logout").code == 0
    assert read_sign_ins(shell.home).tokens == {}
    path.write_text(json.dumps({"latest": url, "tokens": {url: token}}))
    refused = shell.run("start", session)
    assert (refused.code, refused.out) == (77, "")
    assert f"hint: sign in with: cotrain sessions login {url}" in refused.err
    assert token not in refused.err


def test_a_session_is_opened_seen_steered_and_removed(shell: Shell) -> None:
    opened = shell.run("create", "--name", "A Poem", *SMALL)
    assert opened.code == 0, opened.err
    session = opened.out.split()[1]
    assert "node needs " in opened.out
    assert f"cotrain node join {shell.url}/s/{session}" in opened.out
    assert shell.run("list", "--json").lines()[0]["id"] == session
    assert session in shell.run("list").out
    assert shell.run("show", f"{shell.url}/s/{session}").out.startswith(f"session       {session}\n")
    assert shell.run("show", session, "--json").json()["record"]["status"] == "off"

    assert shell.run("start", session).out.startswith(f"session {session}: ")
    with shell.started("watch", session, "--json") as watching:
        watching.until(lambda lines: "waiting" in states_of(lines) or '"status": "waiting"' in "".join(lines))
        offers = shell.run("open", "--json").lines()
        assert session in [offer["id"] for offer in offers]
        assert shell.run("pause", session).out == f"session {session}: paused\n"
        assert shell.run("resume", session, "--json").json()["status"] == "waiting"
        conflict = shell.run("resume", session)
        assert conflict.code == 75
        assert "hint: possible now: " in conflict.err
        refused = shell.run("stop", session)
        assert refused.code == 2
        assert "--yes" in refused.err
        assert shell.run("stop", session, "--yes").code == 0
        assert watching.ended()[0] == 0
    assert types_of(watching.lines)[0] == "snapshot"
    assert states_of(watching.lines)[-3:] == ["waiting", "stopping", "stopped"]
    assert shell.run("participants", session, "--json").lines() == []
    assert shell.run("participants", session).out.startswith("PARTICIPANT")
    assert shell.run("models").out.startswith("MODEL")

    assert shell.run("delete", session, "--training", "--yes").code == 0
    assert shell.run("delete", session, "--yes").out == f"removed session {session}\n"
    gone = shell.run("show", session, "--json")
    assert gone.code == 66
    error = json.loads(gone.err)["error"]
    assert (error["code"], error["exitCode"]) == ("not-found", 66)


def test_a_watch_is_resumed_after_the_last_number(shell: Shell) -> None:
    session = shell.create("Resumed", "--start")
    with shell.started("watch", session, "--json") as watching:
        watching.until(lambda lines: '"status": "waiting"' in "".join(lines))
    shell.run("pause", session)
    shell.run("cancel", session, "--yes")
    ended = shell.run("watch", session, "--after", "0", "--json")
    numbers = [event["seq"] for event in ended.lines()[1:]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert states_of(ended.out.splitlines())[-2:] == ["paused", "cancelled"]
    again = shell.run("watch", session, "--after", str(numbers[-2]), "--json").lines()
    assert again[1]["seq"] == numbers[-1]
    plain = shell.run("watch", session)
    assert plain.code == 0
    assert plain.out.startswith("cancelled  round 0")


def test_a_failed_session_fails_its_watch(shell: Shell) -> None:
    session = shell.create("It is broken", "--start")  # the checkpointer's stand-in fails on such a name
    ended = shell.run("watch", session)
    assert ended.code == 70
    assert ended.err.startswith(f"error: {session}: ")
    assert f"hint: see: cotrain sessions logs {session}" in ended.err


def test_a_watch_outlives_the_coordinator(tmp_path: Path) -> None:
    with serving(tmp_path, "--port", "0") as (process, url):
        shell = Shell(tmp_path / "home", url)
        assert shell.run("login", url).code == 0
        session = shell.create("Long", "--start")
        with shell.started("watch", session, "--json") as watching:
            watching.until(lambda lines: '"status": "waiting"' in "".join(lines))
            process.send_signal(signal.SIGKILL)
            process.wait(LIMIT_S)
            with serving(tmp_path, "--port", url.rpartition(":")[2]):
                watching.until(lambda lines: types_of(lines).count("snapshot") == 2)
                assert shell.run("cancel", session, "--yes").code == 0
                code, said = watching.ended()
    assert code == 0
    assert "resuming" in said
    assert states_of(watching.lines)[-1] == "cancelled"


def test_a_preview_is_a_config_and_opens_nothing(shell: Shell, stranger: Shell, tmp_path: Path) -> None:
    before = len(shell.run("list", "--json").lines())
    request = tmp_path / "request.toml"
    request.write_text('name = "From a file"\n[training]\nmaxSteps = 7\n')
    shown = stranger.run("create", str(request), "--nodes", "3", "--preview")
    config = tomllib.loads(shown.out)
    assert config["train"]["max_steps"] == 7
    assert config["distributed"]["nodes"] == 3
    assert "\n# node needs " in shown.out
    written = tmp_path / "preview.toml"
    written.write_text(shown.out)
    assert tomllib.loads(stranger.run("create", str(written), "--preview").out) == config
    assert stranger.run("create", "--name", "x", "--preview", "--json").json()["estimate"]["parameters"] > 0
    wrong = stranger.run("create", "--name", "x", "--set", "training.maxStep=7", "--preview")
    assert wrong.code == 2
    assert wrong.err == "error: training.maxStep: unknown key 'maxStep'\nhint: did you mean 'maxSteps'?\n"
    assert len(shell.run("list", "--json").lines()) == before


def test_a_private_session_is_there_for_who_is_invited(shell: Shell, stranger: Shell) -> None:
    session = shell.create("Secret", "--private")
    assert stranger.run("show", session).code == 66
    invitation = shell.run("invite", session, "--uses", "2", "--days", "1", "--json").json()
    assert (invitation["uses"], invitation["used"]) == (2, 0)
    shown = stranger.run("show", session, "--invitation", invitation["token"], "--json").json()
    assert shown["visibility"] == "private"
    address = shlex.split(invitation["joinCommand"])[-1]
    assert "#invitation=" in address
    assert stranger.run("logs", address).code == 0
    account = str(EthereumWallet.create().account)
    assert "joinCommand" in shell.run("invite", session, "--wallet", account, "--json").json()
    assert shell.run("invite", session, "--uses", "0").code == 2
    assert stranger.run("invite", session).code in (66, 77)


def test_the_log_is_shown_and_followed(shell: Shell, root: Path) -> None:
    from cotrain.status import Record, now
    from tests.integration.coordinator_fixtures import write_checkpointer_status

    session = shell.create("Logged", "--start")
    with shell.started("watch", session, "--json") as watching:
        watching.until(lambda lines: '"status": "waiting"' in "".join(lines))

    def say(count: int) -> None:
        records = [Record(number=n, time=now(), kind="log", message=f"word {n}") for n in range(1, count + 1)]
        write_checkpointer_status(root, session, records=records, status="waiting", sequence=count)

    say(2)
    with shell.started("logs", session, "-f") as following:
        following.until(lambda lines: any("word 2" in line for line in lines))
        say(4)
        following.until(lambda lines: any("word 4" in line for line in lines))
        assert shell.run("cancel", session, "--yes").code == 0
        assert following.ended()[0] == 0
    words = [line.split()[-1] for line in following.lines if "word" in line]
    assert words == ["1", "2", "3", "4"]
    assert [record["message"] for record in shell.run("logs", session, "-n", "2", "--json").lines()][-1] == "word 4"


def test_a_save_is_a_job(shell: Shell) -> None:
    session = shell.create("Saved", "--start")
    with shell.started("watch", session, "--json") as watching:
        watching.until(lambda lines: '"status": "waiting"' in "".join(lines))
    job = shell.run("save", session, "--json").json()
    assert (job["kind"], job["sessionId"]) == ("save", session)
    assert shell.run("save", session).out.startswith("job ")
    shell.run("cancel", session, "--yes")


def test_a_coordinator_that_is_away_is_named_after_some_tries(unused_tcp_port: int, tmp_path: Path) -> None:
    shell = Shell(tmp_path, f"http://127.0.0.1:{unused_tcp_port}")
    ended = shell.run("list", "--coordinator", shell.url)
    assert ended.code == 69
    assert "does not answer" in ended.err
    assert ended.err.splitlines()[-1].startswith("hint: ")


def test_a_shell_completes_commands_options_and_ids(shell: Shell) -> None:
    session = shell.create("Completed")
    assert shell.completed("cotrain", "ses") == ["sessions"]
    assert shell.completed("cotrain", "node", "wal") == ["wallet"]
    assert shell.completed("cotrain", "sessions", "watch", "--coo") == ["--coordinator"]
    give_up = time.monotonic() + LIMIT_S
    while shell.completed("cotrain", "sessions", "watch", session[:-3]) != [session]:
        assert time.monotonic() < give_up  # on a busy machine the coordinator may miss the second that it has
    nowhere = ("--coordinator", "http://127.0.0.1:9")
    assert shell.completed("cotrain", "sessions", "watch", *nowhere, session[:-3]) == []
