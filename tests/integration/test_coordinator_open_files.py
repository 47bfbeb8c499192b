"""The limit of open files is raised at the start, and one that stays low is told."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.open_files import ENOUGH, too_few

RAISE = """
import resource
from coordinator.open_files import raise_open_files
print(raise_open_files(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({}, {}))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Goes on as another program; in a process of its own, since a hard limit cannot be raised again."""


def limited(soft: int, hard: int, *arguments: str, shared: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with these limits."""
    return subprocess.run(
        [sys.executable, "-c", LIMITED.format(soft, hard), *arguments], capture_output=True, text=True, timeout=60,
        env=os.environ | {"COTRAIN_SHARED": str(shared)}, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("soft", "hard"), [(256, 1024), (1024, 1024)])
def test_the_soft_limit_becomes_the_hard_one(soft: int, hard: int, tmp_path: Path) -> None:
    run = limited(soft, hard, "-c", RAISE, shared=tmp_path)
    assert run.stdout.split() == [str(hard)] * 3, run.stderr


@pytest.mark.parametrize(("hard", "warned"), [(ENOUGH - 1, 1), (ENOUGH, 0)])
def test_serve_tells_a_low_limit_in_one_line(hard: int, warned: int, tmp_path: Path) -> None:
    if hard > resource.getrlimit(resource.RLIMIT_NOFILE)[1]:
        pytest.skip("this machine allows fewer open files")
    # an address that no machine has: it ends before it would serve
    serve = ("-m", "cotrain.cli", "coordinator", "serve", "--host", "192.0.2.1", "--port", "0")
    run = limited(256, hard, *serve, shared=tmp_path)
    assert run.returncode == 69, run.stderr
    assert sum("LimitNOFILE=4096" in line for line in run.stderr.splitlines()) == warned


def test_the_warning_names_the_limit() -> None:
    told = too_few(ENOUGH - 1)
    assert told is not None
    assert "no more than 4095 files" in told
    assert too_few(ENOUGH) is None
