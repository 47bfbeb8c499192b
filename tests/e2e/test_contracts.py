"""`make contracts-check`: the compiled contract that is used is what its source compiles to."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cotrain.process import child_environment
from tests.integration.coordinator_fixtures import REPOSITORY

LIMIT_S = 120.0
ARTIFACT = Path("cotrain/chain/CotrainRegistry.json")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        any(shutil.which(name) is None for name in ("make", "node", "npm")),
        reason="needs make, node 18 or newer and npm: apt-get install make nodejs npm",
    ),
]


def run(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=child_environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def test_the_compiled_contract_is_its_source_and_a_change_is_noticed(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    installed_by_hand = shutil.ignore_patterns("node_modules")
    shutil.copytree(REPOSITORY / "contracts", tmp_path / "contracts", ignore=installed_by_hand)
    (tmp_path / ARTIFACT).parent.mkdir(parents=True)
    shutil.copy(REPOSITORY / ARTIFACT, tmp_path / ARTIFACT)
    as_it_is = run("make", "contracts-check", folder=tmp_path)
    assert as_it_is.returncode == 0, as_it_is.stderr

    source = tmp_path / "contracts" / "CotrainRegistry.sol"
    source.write_text(source.read_text().replace("if (record.closedAt == 0) return false;", ""))
    changed = run("node", "build.mjs", "--check", folder=source.parent)
    assert changed.returncode == 1
    assert "is not what contracts/CotrainRegistry.sol compiles to" in changed.stderr
