"""`cotrain demo`: its summary, its end, its interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cotrain.process import child_environment
from cotrain.status import read_status
from tests.system import assert_gone, daemons_among, descendants_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def _demo(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cotrain.cli", "demo", "--preset", "tiny-test", "--folder", str(folder), *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=child_environment(), start_new_session=True,
    )  # fmt: skip


def test_the_demo_sums_up_what_happened_and_leaves_nothing_running(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    process = _demo(tmp_path / "demo", "--report", str(report))
    children = wait_until(
        lambda: daemons_among(descendants_of(process.pid)) and descendants_of(process.pid),
        limit_s=60, what="the demo runs",
    )  # fmt: skip
    output, _ = process.communicate(timeout=150)
    assert process.returncode == 0, output
    assert_gone(children)
    summary = json.loads(report.read_text())
    assert summary["finalValLoss"] < summary["initialValLoss"]
    assert summary["digestsEqual"] is True
    assert summary["peers"] == 2
    assert summary["rounds"] >= summary["roundsTogether"] >= 4
    assert 0.4 < summary["bytesPerParamPerRound"] < 0.8
    assert 0.0 < summary["computeFraction"] <= 1.0
    assert summary["tokensPerSecond"] > 0
    assert (Path(summary["modelPath"]) / "model.safetensors").is_file()
    assert f"{summary['finalValLoss']:.3f}" in output
    assert f"{summary['bigramLoss']:.3f}" in output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_ends_everything_it_started(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process = _demo(tmp_path / "demo")
    wait_until(
        lambda: len(daemons_among(descendants_of(process.pid))) >= 2,
        limit_s=60,
        what="a node has started",
    )
    children = descendants_of(process.pid)
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert_gone(children)


def test_killing_the_demo_ends_everything_it_started(tmp_path: Path) -> None:
    process = _demo(tmp_path / "demo")
    wait_until(lambda: len(daemons_among(descendants_of(process.pid))) >= 2, limit_s=60, what="a node has started")
    children = descendants_of(process.pid)
    process.kill()
    process.wait(10)
    process.stdout.close()  # type: ignore[union-attr]
    assert_gone(children)


def _rounds(folder: Path) -> list[int]:
    """The round of each node that trains."""
    return [read_status(path).round for path in folder.glob("*/node-*/shared/logs/training/*/12D3*/status.json")]


@pytest.mark.parametrize("victim", ["coordinator serve", "node join"])
def test_the_nodes_of_a_demo_train_on_when_another_process_of_it_is_killed(tmp_path: Path, victim: str) -> None:
    folder = tmp_path / "demo"
    process = _demo(folder, "--preset", "nano")
    try:
        wait_until(lambda: _rounds(folder) and max(_rounds(folder)) >= 1, limit_s=60, what="a round of the demo")
        children = descendants_of(process.pid)
        killed = next(c for c in children if victim in " ".join(c.cmdline()))
        gone = [killed, *killed.children(recursive=True)]
        killed.kill()
        assert_gone(gone)
        reached = max(_rounds(folder))
        wait_until(lambda: max(_rounds(folder)) >= reached + 2, limit_s=60, what="two more rounds")
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert_gone(children)
