"""docs/cli.md against the code: every command, option and exit code is there, and nothing else."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from cotrain.cli import EXIT_INTERRUPTED
from tests.unit.cli_reference import BEGIN, DOCUMENT, END, reference, replaced

ROOT = DOCUMENT.parents[1]
PACKAGES = ("cotrain", "node", "coordinator")
EXIT_CODE_ROW = re.compile(r"^\| (\d+) \| .+ \|$", re.MULTILINE)
EXIT_CODE = re.compile(r"^ +exit_code(?:: ClassVar\[int\])? = (\d+)$", re.MULTILINE)


def document() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def test_the_reference_is_what_the_code_has() -> None:
    """To write it anew: python -m tests.unit.cli_reference."""
    text = document()
    assert text.count(BEGIN) == text.count(END) == 1
    assert text.splitlines() == replaced(text).splitlines()


def test_every_command_and_option_says_what_it_means() -> None:
    lines = [line for line in reference().splitlines() if line.startswith("- ")]
    assert len(lines) > 100
    assert [line for line in lines if re.fullmatch(r"- (`[^`]+`(, )?)+: \S.*", line) is None] == []


def test_the_table_has_every_exit_code() -> None:
    listed = [int(code) for code in EXIT_CODE_ROW.findall(document())]
    code = "\n".join(
        Path(path).read_text(encoding="utf-8") for name in PACKAGES for path in (ROOT / name).rglob("*.py")
    )
    raised = {int(number) for number in EXIT_CODE.findall(code)}
    assert len(raised) > 10
    assert listed == sorted({*raised, 0, EXIT_INTERRUPTED, 128 + signal.SIGTERM})
