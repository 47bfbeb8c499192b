"""What a volunteer decides about a node that runs: when it trains, how much it uses, what it has printed."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path

import psutil

from node.options import NODE_FILE
from tests.integration.agent_process import AgentProcess
from tests.integration.node_fixtures import running_coordinator, until
from tests.integration.test_node_agent import cotrain


def window_far_from_now() -> str:
    """An hour of the day that begins eleven hours from now."""
    begin = datetime.now() + timedelta(hours=11)
    return f"{begin:%H:%M}-{begin + timedelta(hours=1):%H:%M}"


def write_options(agent: AgentProcess, text: str) -> None:
    agent.home.mkdir(parents=True, exist_ok=True)
    (agent.home / NODE_FILE).write_text(f"[node]\n{text}")


async def test_outside_of_its_schedule_a_node_rests_whoever_else_wants_it_to_train(tmp_path: Path) -> None:
    window = window_far_from_now()
    async with running_coordinator() as coordinator:
        agent = AgentProcess(tmp_path, coordinator.session_url, "endless")
        write_options(agent, f'schedule = ["{window}"]\n')
        async with agent:
            await until(lambda: coordinator.final_states() == ["paused"], what="the pause")
            assert (await cotrain(agent, "node", "pause"))[0] == 0
            code, output = await cotrain(agent, "node", "status")
            assert code == 0
            assert "wanted: pause by the volunteer (the volunteer paused this node)" in output
            assert f"wanted: pause by the schedule (outside of {window}, until " in output
            await coordinator.send_wish("run")
            assert (await cotrain(agent, "node", "resume"))[0] == 0
            code, output = await cotrain(agent, "node", "status", "--json")
            facts = json.loads(output)
            assert facts["status"] == "paused"
            assert [wish["source"] for wish in facts["wishes"]] == ["schedule"]
            assert (await cotrain(agent, "node", "leave"))[0] == 0
            assert await agent.wait() == 130
            assert f"wish: pause: outside of {window}".encode() in agent.output
        assert coordinator.final_states() == ["stopped"]


async def test_the_training_process_keeps_to_its_limits_and_its_log_is_shown(tmp_path: Path) -> None:
    wanted_nice = max(12, os.nice(0))
    async with running_coordinator() as coordinator:
        agent = AgentProcess(tmp_path, coordinator.session_url, "endless")
        write_options(agent, f"nice = {wanted_nice}\nmax_cpu = 1\n")
        async with agent:
            await until(agent.worker_pid, what="the training process")
            worker = psutil.Process(agent.worker_pid())
            await until(lambda: worker.nice() == wanted_nice, what="its niceness")
            assert worker.cpu_affinity() == [max(os.sched_getaffinity(0))]
            (run_dir,) = agent.run_dirs
            (run_dir / "worker.log").write_text("said by the training process\n")
            assert await cotrain(agent, "node", "logs") == (0, "said by the training process\n")
            assert (await cotrain(agent, "node", "leave"))[0] == 0
            assert await agent.wait() == 130
            assert b"--max-cpu 1: trains on 1 of " in agent.output
        assert await cotrain(agent, "node", "logs") == (0, "said by the training process\n")
