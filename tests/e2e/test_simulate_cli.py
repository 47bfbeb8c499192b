"""`cotrain simulate`: from a TOML to table, JSON and plot; the same twice; what is wrong is said at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cotrain.process import child_environment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

TOML = """
schema_version = 1
[session]
id = "simulated"
[train]
batch_size = 2
gradient_accumulation_steps = 1
max_steps = 4
learning_rate = 3e-3
[diloco]
inner_steps = 2
[data]
seq_length = 32
data_path = "text.txt"
[monitoring]
evaluation_batches = 1
"""
TEXT = Path(__file__).parents[2] / "LICENSE"


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(TOML)
    (tmp_path / "text.txt").write_bytes(TEXT.read_bytes())
    return path


def simulate(toml: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cotrain.cli", "simulate", str(toml), *arguments], capture_output=True, text=True,
        timeout=60, cwd=toml.parent, env=child_environment(COTRAIN_SHARED=str(toml.parent / "shared")), check=False,
    )  # fmt: skip


def test_a_table_a_report_and_a_plot_come_out(toml: Path) -> None:
    ended = simulate(toml, "--peers", "3", "--speeds", "1,1,2", "--byzantine", "1:zero", "--seed", "5")
    assert ended.returncode == 0, ended.stderr
    folder = toml.parent / "shared" / "logs" / "system" / "simulations" / "simulated"
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((folder / "simulation.json").read_text())
    assert (report["seed"], report["peers"], report["liars"], report["lie"]) == (5, 3, 1, "zero")
    assert f"{report['validationLoss']:.4f}" in ended.stdout
    assert f"{report['dataParallelValidationLoss']:.4f}" in ended.stdout
    assert "averages by weighted mean" in ended.stdout
    assert str(folder / "curves.png") in ended.stdout
    rows = [line.split() for line in ended.stdout.splitlines() if line.strip()[:1].isdigit()]
    assert [int(row[0]) for row in rows if len(row) == 8] == [row["round"] for row in report["rounds"]]


def test_two_processes_print_the_same_numbers_to_the_bit(toml: Path, tmp_path: Path) -> None:
    arguments = ("--peers", "4", "--drop", "0.2", "--byzantine", "1:noise", "--json", "--output")
    first, second = (simulate(toml, *arguments, str(tmp_path / name)) for name in ("first", "second"))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    report = json.loads(first.stdout)
    assert report["rounds"][-1]["samples"] >= report["samplesWanted"] == 4 * 2 * 4
    assert (tmp_path / "first" / "curves.png").is_file()
    assert json.loads((tmp_path / "first" / "simulation.json").read_text()) == report


@pytest.mark.parametrize(
    ("line", "arguments", "field"),
    [
        ("[diloco]\ninner_step = 2", (), "diloco.inner_step"),
        ("", ("--byzantine", "1:flattery"), "--byzantine"),
        ("", ("--drop", "2"), "--drop"),
    ],
)
def test_what_is_wrong_is_said_before_torch_is_loaded(
    toml: Path, line: str, arguments: tuple[str, ...], field: str
) -> None:
    toml.write_text("schema_version = 1\n" + line)
    script = (
        "import sys\n"
        "from cotrain.cli import execute\n"
        f"code = execute(['simulate', {str(toml)!r}, '--json', *{arguments!r}])\n"
        "print(sorted({'torch', 'hivemind', 'matplotlib'} & set(sys.modules)))\n"
        "sys.exit(code)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (2, "[]\n"), ended.stderr
    assert json.loads(ended.stderr)["error"]["field"].endswith(field)


def test_a_simulation_that_does_not_fit_into_memory_is_refused_with_the_estimate(toml: Path) -> None:
    toml.write_text(TOML + '[model]\nsize = "70B"\n')
    ended = simulate(toml, "--peers", "8")
    assert ended.returncode == 71, ended.stderr
    assert "GiB" in ended.stderr
    assert "Traceback" not in ended.stderr
