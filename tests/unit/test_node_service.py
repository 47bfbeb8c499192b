"""A node as a service: the text of its unit as systemd reads it, and the command that writes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.cli import execute
from cotrain.errors import InvalidRequestError
from node.service import UNIT, command_line, unit_text

URL = "https://host.example/s/abc"
words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], include_characters=" "), max_size=30)


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands write units, and homes of their own."""
    for name, folder in {"XDG_CONFIG_HOME": "config", "COTRAIN_HOME": "home", "COTRAIN_SHARED": "data"}.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    return tmp_path / "config" / "systemd" / "user"


def unquoted(text: str) -> str:
    """A word of a command line as systemd.service(5) says that it is read."""
    assert text.startswith('"')
    assert text.endswith('"')
    read, rest = "", text[1:-1]
    while rest:
        pair = rest[:2]
        step = 2 if pair in ("\\\\", '\\"', "%%", "$$") else 1
        assert step == 2 or rest[0] not in '\\"%$'
        read, rest = read + pair[-1] if step == 2 else read + rest[0], rest[step:]
    return read


@given(words)
def test_a_quoted_word_is_read_as_it_was(word: str) -> None:
    assert unquoted(command_line(["/bin/true", word]).removeprefix('"/bin/true" ')) == word


@pytest.mark.parametrize("word", ["a\nExecStart=/bin/false", "\t", "\x00", "\x1b[1m"])
def test_nothing_breaks_out_of_its_line(word: str) -> None:
    with pytest.raises(InvalidRequestError, match="cannot stand"):
        unit_text(["/bin/true", word], {}, Path("/"))
    with pytest.raises(InvalidRequestError, match="cannot stand"):
        unit_text(["/bin/true"], {"COTRAIN_HOME": word}, Path("/"))
    with pytest.raises(InvalidRequestError, match="cannot stand"):
        unit_text(["/bin/true"], {}, Path("/" + word))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    folder = tmp_path / "a $b 100% \\ \"c\" 'd' é"
    folder.mkdir()
    program = tmp_path / "a $b 100% é"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)

    def complaints(text: str) -> str:
        (tmp_path / UNIT).write_text(text)
        ended = subprocess.run(
            ["systemd-analyze", "--user", "verify", str(tmp_path / UNIT)], capture_output=True, text=True, timeout=60,
            env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}, check=False,
        )  # fmt: skip
        return ended.stdout + ended.stderr

    good = unit_text([str(program), "--schedule", "Mon-Fri 18:00-08:00", "$HOME %h"], {"A": str(folder)}, folder)
    assert complaints(good) == ""
    assert "RestartSex" in complaints(good.replace("RestartSec", "RestartSex"))
    assert "not executable" in complaints(good.replace('100%% é" "--', 'absent" "--'))
    with pytest.raises(InvalidRequestError, match="no program of this name"):
        unit_text([str(folder / "program")], {}, folder)


def test_the_unit_runs_join_with_the_present_options(units: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given_options = ["--schedule", "Mon-Fri 18:00-08:00", "--nice", "19", "--name", "50% $x"]
    assert execute(["node", "install-service", URL, *given_options, "--print"]) == 0
    shown = capsys.readouterr().out
    assert not units.exists()
    assert execute(["node", "install-service", URL, *given_options]) == 0
    assert (units / UNIT).read_text() == shown
    (line,) = (line for line in shown.splitlines() if line.startswith("ExecStart="))
    assert line == (
        f'ExecStart="{sys.executable}" "-m" "cotrain.cli" "node" "join" "{URL}" '
        '"--schedule" "Mon-Fri 18:00-08:00" "--nice" "19" "--name" "50%% $$x"'
    )
    assert f'"COTRAIN_HOME={os.environ["COTRAIN_HOME"]}" "COTRAIN_SHARED={os.environ["COTRAIN_SHARED"]}"' in shown
    told = capsys.readouterr().out
    assert f"systemctl --user enable --now {UNIT}" in told
    assert "loginctl enable-linger" in told


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Missing argument"),
        (["http://host/s/"], "names no session"),
        ([URL, "--nonsense"], "--nonsense"),
        ([URL, "--nice", "20"], "--nice"),
        ([URL, "--schedule", "22-7"], "no time window"),
        ([URL, "--invitation", "secret-word"], "[node] in node.toml"),
        ([f"{URL}#invitation=secret-word"], "[node] in node.toml"),
        ([URL, "--private-key-env", "KEY"], "wallet import"),
    ],
)
def test_what_join_would_refuse_or_a_service_cannot_have_is_refused_before_anything_is_written(
    arguments: list[str], says: str, units: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["node", "install-service", *arguments]) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert "secret-word" not in shown.err + shown.out
    assert not units.exists()


@pytest.mark.parametrize(
    ("url", "restart"), [(URL, "on-failure"), ("https://host.example", "always")], ids=["session", "coordinator"]
)
def test_a_service_of_a_coordinator_takes_one_session_after_the_other_until_it_is_left(
    url: str, restart: str, units: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["node", "install-service", url, "--print"]) == 0
    lines = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines() if "=" in line)
    assert lines["Restart"] == restart
    left = "130"  # what join ends with after `cotrain node leave`
    assert lines["SuccessExitStatus"] == left
    assert left in lines["RestartPreventExitStatus"].split()
    assert not {"0", "69", "75"} & set(lines["RestartPreventExitStatus"].split())


def test_a_service_is_replaced_and_removed_but_never_somebody_elses(
    units: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["node", "uninstall-service"]) == 66
    assert execute(["node", "install-service", URL]) == 0
    assert execute(["node", "install-service", URL, "--nice", "5"]) == 0
    assert '"--nice" "5"' in (units / UNIT).read_text()
    (units / "default.target.wants").mkdir()
    (units / "default.target.wants" / UNIT).symlink_to(units / UNIT)  # as `systemctl enable` does
    assert execute(["node", "uninstall-service"]) == 0
    assert f"systemctl --user stop {UNIT}" in capsys.readouterr().out
    assert [path for path in units.rglob("*") if not path.is_dir()] == []
    (units / UNIT).write_text("[Service]\nExecStart=/bin/true\n")
    for command in (["install-service", URL], ["uninstall-service"]):
        assert execute(["node", *command]) == 75
        assert str(units / UNIT) in capsys.readouterr().err
    assert (units / UNIT).read_text() == "[Service]\nExecStart=/bin/true\n"
