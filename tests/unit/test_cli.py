"""The `cotrain` command: errors, help, and what it does not load."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cotrain.cli import LAZY_COMMANDS, error_lines, execute, explain
from cotrain.config import RunConfig
from cotrain.errors import ConfigError, CotrainError


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ["config", *LAZY_COMMANDS])


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from cotrain.cli import execute\n"
        "code = execute(['--help'])\n"
        "heavy = {'torch', 'hivemind', 'aiohttp', 'node', 'coordinator', 'cotrain.config', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stderr == "[]\n"


def test_node_commands_load_neither_torch_nor_hivemind() -> None:
    script = "import sys, node.join, node.cli, cotrain.watch\nprint(sorted({'torch', 'hivemind'} & set(sys.modules)))\n"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nonsense"], 2),
        (["--nonsense"], 2),
        (["node"], 2),
        (["node", "join"], 2),
        (["node", "join", "ftp://host/s/x"], 2),
        (["node", "join", "http://host/s/x", "--threads", "many"], 2),
        (["config", "check", "/does/not/exist.toml"], 2),
        (["node", "status"], 66),
    ],
)
def test_errors_are_clear_lines_and_json_when_asked(
    arguments: list[str],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COTRAIN_HOME", str(tmp_path))
    assert execute(arguments) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert len(shown.err.splitlines()) <= 2
    if arguments[0] != "--nonsense":
        assert execute([*arguments, "--json"]) == code
        error = json.loads(capsys.readouterr().err)["error"]
        assert error["exitCode"] == code
        assert error["message"]


def test_trace_only_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["config", "check", "/absent"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert execute(["config", "check", "/absent", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_config_check_and_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text("schema_version = 1\n")
    bad.write_text("schema_version = 1\n[train]\nbatch_sise = 3\n")
    assert execute(["config", "check", str(good)]) == 0
    assert "fine" in capsys.readouterr().out
    assert execute(["config", "check", str(good), "--json"]) == 0
    assert RunConfig.model_validate(json.loads(capsys.readouterr().out)) == RunConfig()
    assert execute(["config", "check", str(bad)]) == 2
    assert "did you mean 'batch_size'?" in capsys.readouterr().err
    assert execute(["config", "schema"]) == 0
    assert "train" in json.loads(capsys.readouterr().out)["properties"]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["--version"]) == 0
    assert capsys.readouterr().out.startswith("cotrain ")


def test_any_exception_is_explained() -> None:
    full = explain(OSError(errno.ENOSPC, "No space left on device", "/data"))
    assert (full.exit_code, full.field) == (74, "/data")
    assert full.hint.startswith("free some space")
    assert explain(OSError(errno.EROFS, "Read-only file system", "/data")).hint.startswith("allow writing")
    assert explain(OSError(errno.EIO, "Input/output error")).hint == ""
    assert explain(ZeroDivisionError("x")).exit_code == 70
    error = ConfigError("is wrong", field="here", hint="mend it")
    assert explain(error) is error
    assert error_lines(error) == ["error: here: is wrong", "hint: mend it"]
    assert error_lines(CotrainError("broke")) == ["error: broke"]


def test_interrupt_exits_with_130() -> None:
    script = (
        "import os, signal, sys, time\n"
        # a shell that starts the tests in the background has SIGINT ignored, and children inherit that
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import cotrain.config\n"
        "def wait(path):\n"
        "    print('waiting', flush=True)\n"
        "    time.sleep(30)\n"
        "cotrain.config.load_config = wait\n"
        "from cotrain.cli import execute\n"
        "sys.exit(execute(['config', 'check', 'x']))\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130
