"""`cotrain demo --chaos`: nodes are killed and stopped while it trains, and it ends as ever."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain import demo_chaos
from cotrain.demo_chaos import PEACE_S, STOPPED_S, Chaos, plan_disturbances
from cotrain.process import child_environment
from tests.system import assert_gone, daemons_among, descendants_of
from tests.waiting import wait_until

pytestmark = pytest.mark.chaos

NODES = 4
DEMO_LIMIT_S = 900
"""Some minutes on two quiet cores."""


@given(seed=st.integers(0, 2**32), nodes=st.integers(2, 16))
def test_the_plan_is_the_seeds_own_and_strikes_everybody_in_both_ways(seed: int, nodes: int) -> None:
    plan = list(itertools.islice(plan_disturbances(seed, nodes), 200))
    assert plan == list(itertools.islice(plan_disturbances(seed, nodes), 200))
    assert {disturbance.node for disturbance in plan} == set(range(nodes))
    for first, second in itertools.pairwise(plan):
        assert first.node != second.node
    for pair in zip(plan[::2], plan[1::2], strict=True):
        assert {disturbance.kind for disturbance in pair} == {"kill", "stop"}
    assert all(PEACE_S[0] <= disturbance.after_s <= PEACE_S[1] for disturbance in plan)


async def _sleeper() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec("sleep", "60")


async def test_processes_are_killed_started_again_stopped_and_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PEACE_S", "DEAD_S", "STOPPED_S"):
        monkeypatch.setattr(demo_chaos, name, (0.05, 0.1))
    processes = [await _sleeper() for _ in range(3)]
    said: list[str] = []
    enough = asyncio.Event()
    started: list[asyncio.subprocess.Process] = []

    async def restart(index: int) -> asyncio.subprocess.Process:
        started.append(await _sleeper())
        return started[-1]

    def say(line: str) -> None:
        said.append(line)
        if sum("continued" in line for line in said) >= 2 <= len(started):
            enough.set()

    chaos = Chaos(0, processes, restart, say)
    try:
        chaos.note_progress(0, 0.0)
        assert said == [], "it waits for the first round"
        chaos.note_progress(1, 10.0)
        await asyncio.wait_for(enough.wait(), 20.0)
        await chaos.finish()
        dead = [process for process in processes if process.returncode == -9]
        assert len(dead) >= 1
        assert re.fullmatch(r"\d+ times a node was killed, \d+ times one was stopped", chaos.told())
        alive = [process for process in [*processes, *started] if process.returncode is None]
        assert len(alive) == 3
        assert psutil.STATUS_STOPPED not in {psutil.Process(process.pid).status() for process in alive}
    finally:
        await chaos.close()
        for process in [*processes, *started]:
            if process.returncode is None:
                process.kill()
                await process.wait()


def test_one_node_alone_cannot_be_disturbed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cotrain.cli", "demo", "--chaos", "--peers", "1", "--folder", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "--peers" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.timeout(DEMO_LIMIT_S + 60)
def test_the_demo_ends_as_ever_under_chaos(tmp_path: Path) -> None:
    assert STOPPED_S[0] > 15.0, "longer than a record lives"
    report = tmp_path / "report.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "cotrain.cli", "demo", "--chaos", "--folder", str(tmp_path / "demo"),
         "--report", str(report)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=child_environment(), start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(
            lambda: len(daemons_among(descendants_of(process.pid))) > NODES,
            limit_s=180, what="all nodes have started",
        )  # fmt: skip
        children = descendants_of(process.pid)
        output, _ = process.communicate(timeout=DEMO_LIMIT_S - 180)
    finally:
        process.kill()  # what it has started dies with it
        process.wait(10)
    assert process.returncode == 0, output
    assert_gone(children)
    assert "was killed (kill -9)" in output
    assert "was started again" in output
    assert "was stopped for" in output
    assert "was continued" in output
    summary = json.loads(report.read_text())
    assert summary["digestsEqual"] is True
    assert summary["peers"] == NODES
    assert summary["finalValLoss"] < summary["bigramLoss"] < summary["initialValLoss"]
