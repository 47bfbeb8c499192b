"""join.sh, run by real shells; the programs that it finds on PATH are small ones that write down their arguments."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from coordinator.join_script import join_script

URL = "https://coordinator.example/s/our-first-model"
SHELLS = [name for name in ("sh", "dash", "bash") if shutil.which(name)]
HOSTILE = [
    'it\'s "quoted"',
    "$(touch MARK) `touch MARK` ${HOME}",
    "'; touch MARK; '",
    "'$(touch MARK)'\"",
    "\\'; touch MARK #",
    "a\n touch MARK\n",
    "\x1b]0;title\x07",
    "-n %s \\n",
    "شعر فارسی",
    "",
]
TOOLS = ("sed", "touch", "mkdir", "cp", "chmod", "cat")
CPU_INDEX = "cpu"  # the last part of its address: no more is written down
RECORD = '#!/bin/sh\nfor word in "$0" "$@"; do printf "%s\\0" "${word##*/}" >>"$CALLS"; done; printf "\\n" >>"$CALLS"\n'
COTRAIN = '#!/bin/sh\nfor word in "$@"; do printf "%s\\0" "$word"; done >"$JOINED"\ncat >"$JOINED.stdin"\n'
# makes environments whose python records what pip is asked for, and says no to the versions that the test wants old
PYTHON = (
    RECORD
    + """
cat >>"$CALLS.stdin"
case "$1 $2" in
"-c import"*) exit ${TOO_OLD:-0} ;;
"-m venv")
    [ -z "${NO_VENV:-}" ] || exit 1
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$COTRAIN_FAKE" "$3/bin/cotrain" ;;
"-m pip")
    case "$*" in *"${PIP_FAILS_ON:-nothing}"*) exit 1 ;; esac ;;
esac
"""
)


class Machine:
    """A volunteer's machine: a home, and a PATH with nothing but what the test puts there."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.home = folder / "a home"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.home.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None
            (self.bin / tool).symlink_to(found)
        self.program("python3", PYTHON)
        self.program("cotrain-fake", COTRAIN)
        self.platform("Linux", "x86_64")
        self.environment = {
            "PATH": str(self.bin), "HOME": str(self.home), "CALLS": str(folder / "calls"),
            "JOINED": str(folder / "joined"), "COTRAIN_FAKE": str(self.bin / "cotrain-fake"),
        }  # fmt: skip

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def platform(self, system: str, machine: str) -> None:
        self.program("uname", f'#!/bin/sh\ncase "$1" in -s) echo {system} ;; -m) echo {machine} ;; esac\n')

    def driver(self, cuda: str) -> None:
        self.program("nvidia-smi", f'#!/bin/sh\necho "| NVIDIA-SMI 1  Driver Version: 1.2  CUDA Version: {cuda}  |"\n')

    def run(
        self, script: str, *arguments: str, shell: str = SHELLS[0], **variables: str
    ) -> subprocess.CompletedProcess[bytes]:
        """What `curl … | sh -s -- ARGUMENTS` does."""
        program = shutil.which(shell)
        assert program is not None
        return subprocess.run(
            [program, "-s", "--", *arguments], input=script.encode(), env={**self.environment, **variables},
            cwd=self.folder, capture_output=True, timeout=30,
        )  # fmt: skip

    @property
    def pip(self) -> list[str]:
        """What pip was asked to install, in order."""
        lines = (self.folder / "calls").read_text().splitlines()
        words = [line.removesuffix("\0").split("\0") for line in lines]
        return [" ".join(call[call.index("install") :]) for call in words if "install" in call]

    @property
    def joined(self) -> list[str]:
        """The arguments that cotrain was started with."""
        return (self.folder / "joined").read_text().removesuffix("\0").split("\0")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def script_for(name: str = "Our first model", package: str = "cotrain") -> str:
    return join_script(url=URL, name=name, package=package)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_whatever_a_session_is_called_it_is_joined_and_nothing_else_happens(
    machine: Machine, shell: str, hostile: str
) -> None:
    done = machine.run(
        script_for(hostile, package=f"./{hostile.replace(chr(10), ' ')}"), "--name", hostile, shell=shell
    )
    assert done.returncode == 0, done.stderr
    assert machine.joined == ["node", "join", URL, "--name", hostile]
    assert not list(machine.folder.rglob("MARK"))
    assert b"\x1b" not in done.stderr
    told = done.stderr.decode()
    if hostile.isprintable():
        assert f"joining {hostile}\n" in told
    assert machine.pip[-1].startswith("install --upgrade ")


@pytest.mark.parametrize("shell", SHELLS)
def test_torch_comes_first_in_the_build_for_the_machine(machine: Machine, shell: str) -> None:
    assert machine.run(script_for(), shell=shell).returncode == 0
    assert machine.pip == [
        f"install --index-url {CPU_INDEX} torch",
        "install --upgrade cotrain",
    ]
    assert (machine.home / ".cotrain" / "venv" / "bin" / "python").exists()


@pytest.mark.parametrize(
    ("system", "hardware", "cuda", "asked"),
    [
        ("Linux", "aarch64", "", f"install --index-url {CPU_INDEX} torch"),
        ("Linux", "x86_64", "13.0", "install torch"),
        ("Linux", "x86_64", "12.8", "install --index-url cu126 torch"),
        ("Linux", "x86_64", "12.2", f"install --index-url {CPU_INDEX} torch"),
        ("Linux", "x86_64", "N/A", f"install --index-url {CPU_INDEX} torch"),
        ("Darwin", "arm64", "", "install torch"),
    ],
)
def test_the_build_of_torch_follows_the_hardware(
    machine: Machine, system: str, hardware: str, cuda: str, asked: str
) -> None:
    machine.platform(system, hardware)
    if cuda:
        machine.driver(cuda)
    done = machine.run(script_for())
    assert done.returncode == 0, done.stderr
    assert machine.pip[0] == asked
    assert (b"too old" in done.stderr) == (cuda == "12.2")


@pytest.mark.parametrize(("system", "hardware"), [("Linux", "armv7l"), ("Darwin", "x86_64"), ("FreeBSD", "amd64")])
def test_other_platforms_are_told_in_one_line_what_is_supported(machine: Machine, system: str, hardware: str) -> None:
    machine.platform(system, hardware)
    done = machine.run(script_for())
    assert done.returncode == 69
    (line,) = done.stderr.decode().splitlines()
    assert f"not on {system} {hardware}" in line
    assert not (machine.folder / "calls").exists()


@pytest.mark.parametrize(("system", "way"), [("Linux x86_64", "apt-get install python3"), ("Darwin arm64", "brew")])
def test_without_a_new_enough_python_it_says_how_to_get_one(machine: Machine, system: str, way: str) -> None:
    machine.platform(*system.split())
    done = machine.run(script_for(), TOO_OLD="1")
    assert done.returncode == 69
    assert "Python 3.11 or newer" in done.stderr.decode()
    assert way in done.stderr.decode()


def test_a_second_call_uses_the_environment_that_is_there(machine: Machine) -> None:
    place = str(machine.folder / "else where")
    for _ in range(2):
        done = machine.run(script_for(), COTRAIN_HOME=place)
        assert done.returncode == 0, done.stderr
    assert (machine.folder / "calls").read_text().count("-m\0venv\0") == 1
    assert (machine.folder / "else where" / "venv").is_dir()
    assert not (machine.home / ".cotrain").exists()


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("NO_VENV", "1", "python3-venv"),
        ("PIP_FAILS_ON", "whl/cpu", "torch could not be installed"),
        ("PIP_FAILS_ON", "--upgrade", "cotrain could not be installed"),
    ],
)
def test_what_fails_is_said_and_nothing_is_joined(machine: Machine, variable: str, value: str, told: str) -> None:
    done = machine.run(script_for(), **{variable: value})
    assert done.returncode == 69
    assert told in done.stderr.decode()
    assert not (machine.folder / "joined").exists()


def test_a_script_that_arrives_in_part_does_nothing(machine: Machine) -> None:
    script = script_for()
    for cut in (len(script) // 2, script.rindex("main ")):
        machine.run(script[:cut])
        assert not (machine.folder / "calls").exists()


def test_nothing_of_the_script_is_read_by_what_it_starts(machine: Machine) -> None:
    done = machine.run(script_for() + "echo the end\n")
    assert done.returncode == 0
    assert machine.joined == ["node", "join", URL]
    assert (machine.folder / "calls.stdin").read_bytes() == b""
    # cotrain takes the place of the shell: what follows is not run
    assert b"the end" not in done.stdout


@pytest.mark.parametrize("name", ["Our first model", *HOSTILE])
def test_shellcheck_finds_nothing(tmp_path: Path, name: str) -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: apt-get install shellcheck")
    path = tmp_path / "join.sh"
    path.write_text(script_for(name, package="git+https://host.example/cotrain?x=$(y)"))
    done = subprocess.run(
        [shellcheck, "--shell=sh", "--severity=style", str(path)], capture_output=True, text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
