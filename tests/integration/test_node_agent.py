"""The agent from end to end: a real coordinator's protocol, real processes, real signals."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import psutil
import pytest

from cotrain.membership.document import certificate_of, read_membership
from cotrain.protocol import Goodbye, StatusMessage
from tests.integration.agent_process import AgentProcess
from tests.integration.node_fixtures import SESSION, SmallCoordinator, running_coordinator, until
from tests.system import assert_gone


async def cotrain(agent: AgentProcess, *arguments: str) -> tuple[int, str]:
    """Run the `cotrain` command with the agent's folders."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cotrain.cli", *arguments, env=agent.environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode is not None
    return process.returncode, output.decode()


def assert_stored_in_order(coordinator: SmallCoordinator) -> None:
    runs: dict[str, list[int]] = {}
    for message in coordinator.stored:
        runs.setdefault(message.run, []).append(message.seq)
    assert runs
    for numbers in runs.values():
        assert numbers == sorted(set(numbers))


async def test_completed_run_delivers_every_record_and_ends_with_0(tmp_path: Path) -> None:
    async with (
        running_coordinator() as coordinator,
        AgentProcess(tmp_path, coordinator.session_url, "complete") as agent,
    ):
        assert await agent.wait() == 0
        assert coordinator.record_numbers() == set(range(1, 42))
        assert coordinator.final_states() == ["completed"]
        assert isinstance(coordinator.stored[-1], Goodbye)
        assert_stored_in_order(coordinator)
        assert b"completed after" in agent.output
        assert not (agent.home / "agent.json").exists()


async def test_coordinator_away_for_a_while_loses_nothing(tmp_path: Path) -> None:
    async with (
        running_coordinator() as coordinator,
        AgentProcess(tmp_path, coordinator.session_url, "complete") as agent,
    ):
        await until(lambda: len(coordinator.stored) >= 3, what="three events")
        await coordinator.stop()
        pid = agent.worker_pid()
        assert pid is not None
        await until(lambda: not psutil.pid_exists(pid), what="the run to complete without its coordinator")
        await coordinator.start()
        assert await agent.wait() == 0
        assert coordinator.record_numbers() == set(range(1, 42))
        assert_stored_in_order(coordinator)
        assert coordinator.final_states() == ["completed"]


async def test_first_interrupt_leaves_politely(tmp_path: Path) -> None:
    async with (
        running_coordinator() as coordinator,
        AgentProcess(tmp_path, coordinator.session_url, "endless") as agent,
    ):
        await until(lambda: coordinator.stored, what="an event")
        agent.send(signal.SIGINT)
        assert await agent.wait() == 130
        assert coordinator.final_states() == ["stopped"]
        assert isinstance(coordinator.stored[-1], Goodbye)
        assert coordinator.left == ["p1"]


async def test_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    async with (
        running_coordinator() as coordinator,
        AgentProcess(tmp_path, coordinator.session_url, "stubborn") as agent,
    ):
        await until(lambda: coordinator.stored, what="an event")
        pid = agent.worker_pid()
        assert pid is not None
        agent.send(signal.SIGINT)
        agent.send(signal.SIGTERM)
        assert await agent.wait(limit_s=10) in (0, 130)  # the kernel may deliver the two in either order
        assert not psutil.pid_exists(pid)
        assert coordinator.final_states() == ["training"]


async def test_terminate_leaves_politely_with_0(tmp_path: Path) -> None:
    async with (
        running_coordinator() as coordinator,
        AgentProcess(tmp_path, coordinator.session_url, "endless") as agent,
    ):
        await until(lambda: coordinator.stored, what="an event")
        agent.send(signal.SIGTERM)
        assert await agent.wait() == 0
        assert coordinator.final_states() == ["stopped"]


async def test_wish_of_the_coordinator_stops_the_run(tmp_path: Path) -> None:
    async with (
        running_coordinator() as coordinator,
        AgentProcess(tmp_path, coordinator.session_url, "endless") as agent,
    ):
        await until(lambda: coordinator.stored, what="an event")
        await coordinator.send_wish("stop")
        assert await agent.wait() == 0
        assert coordinator.final_states() == ["stopped"]
        assert coordinator.left == []


async def test_killed_agent_takes_its_worker_along_and_can_come_back(tmp_path: Path) -> None:
    async with running_coordinator() as coordinator:
        async with AgentProcess(tmp_path, coordinator.session_url, "endless") as agent:
            await until(lambda: coordinator.stored, what="an event")
            pid = agent.worker_pid()
            assert pid is not None
            agent.send(signal.SIGKILL)
            await until(lambda: not is_running(pid), what="the worker's end")
            await agent.wait()
        first_run = coordinator.stored[0].run
        async with AgentProcess(tmp_path, coordinator.session_url, "complete") as again:
            assert await again.wait() == 0
        assert coordinator.stored[-1].run != first_run
        assert coordinator.final_states() == ["completed"]
        assert_stored_in_order(coordinator)


def is_running(pid: int) -> bool:
    """A killed orphan may stay a zombie where no init collects it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_second_agent_of_one_identity_is_refused(tmp_path: Path) -> None:
    async with (
        running_coordinator() as coordinator,
        AgentProcess(tmp_path, coordinator.session_url, "endless") as agent,
    ):
        await until(lambda: coordinator.stored, what="an event")
        assert agent.process is not None
        async with AgentProcess(tmp_path, coordinator.session_url, "endless") as second:
            assert await second.wait() == 75
            assert f"process {agent.process.pid} already takes part".encode() in second.output


async def test_commands_steer_the_running_agent(tmp_path: Path) -> None:
    async with (
        running_coordinator() as coordinator,
        AgentProcess(tmp_path, coordinator.session_url, "endless") as agent,
    ):
        await until(lambda: coordinator.stored, what="an event")
        assert (await cotrain(agent, "node", "pause"))[0] == 0
        await until(lambda: coordinator.final_states() == ["paused"], what="the pause")
        code, output = await cotrain(agent, "node", "status", "--json")
        assert code == 0
        assert json.loads(output)["status"] == "paused"
        await coordinator.send_wish("run")
        assert (await cotrain(agent, "node", "resume"))[0] == 0
        await until(lambda: coordinator.final_states() == ["training"], what="the training after the pause")
        assert (await cotrain(agent, "node", "leave"))[0] == 0
        assert await agent.wait() == 130
        code, output = await cotrain(agent, "node", "status")
        assert code == 66
        assert "no agent is running" in output


async def test_final_failure_is_told_to_everybody(tmp_path: Path) -> None:
    async with (
        running_coordinator() as coordinator,
        AgentProcess(tmp_path, coordinator.session_url, "bad-config") as agent,
    ):
        assert await agent.wait() == 2
        assert b"batch_size does not fit into memory" in agent.output
        goodbye = coordinator.stored[-1]
        assert isinstance(goodbye, Goodbye)
        assert goodbye.reason == "batch_size does not fit into memory"
        assert [m.status.status for m in coordinator.stored if isinstance(m, StatusMessage)] == ["failed"]


async def test_preparing_session_is_waited_for_with_a_visible_line(tmp_path: Path) -> None:
    async with running_coordinator() as coordinator:
        coordinator.preparing = 2
        async with AgentProcess(tmp_path, coordinator.session_url, "complete") as agent:
            assert await agent.wait() == 0
            assert agent.output.count(b"waiting for the session's data") == 2
            assert coordinator.requests.count("register") == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
async def test_an_agent_that_ends_while_it_waits_takes_the_process_along_that_it_has_prepared(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    async with running_coordinator() as coordinator:
        coordinator.preparing = 10**6
        async with AgentProcess(tmp_path, coordinator.session_url, "complete") as agent:
            assert agent.process is not None
            me = psutil.Process(agent.process.pid)
            await until(lambda: coordinator.requests and me.children(), what="the prepared process")
            (prepared,) = me.children()
            agent.send(number)
            assert await agent.wait() == code
            assert_gone([prepared])


async def test_wrong_session_is_a_clear_error(tmp_path: Path) -> None:
    async with (
        running_coordinator() as coordinator,
        AgentProcess(tmp_path, coordinator.url + "/s/other", "complete") as agent,
    ):
        assert SESSION != "other"
        assert await agent.wait() == 66
        assert b"error: no such session" in agent.output
        assert b"Traceback" not in agent.output


async def test_the_agent_signs_in_binds_its_peer_to_its_wallet_and_leaves_no_sign_in_behind(tmp_path: Path) -> None:
    async with (
        running_coordinator() as coordinator,
        AgentProcess(tmp_path, coordinator.session_url, "complete") as agent,
    ):
        assert await agent.wait() == 0
        assert coordinator.signed_in == {}
        (run_dir,) = agent.run_dirs
        certificate = certificate_of(read_membership(run_dir / "membership.json"))
        assert certificate.peer_id == run_dir.name
        for name in ("wallet.json", "wallet.password", "peer.key"):
            assert (agent.home / name).stat().st_mode & 0o077 == 0
        address = json.loads((agent.home / "wallet.json").read_text())["address"]
        assert address.removeprefix("0x").lower() in agent.output.decode().lower()


async def test_a_removed_agent_ends_with_the_reason(tmp_path: Path) -> None:
    async with (
        running_coordinator() as coordinator,
        AgentProcess(tmp_path, coordinator.session_url, "run") as agent,
    ):
        await until(lambda: coordinator.is_connected and agent.worker_pid() is not None, what="training")
        coordinator.removed = True
        coordinator.tokens.append("another")  # the agent's own is known no more
        for socket in list(coordinator._sockets):
            await socket.close()
        assert await agent.wait() == 77
        assert b"the session's owner has removed this account" in agent.output
        assert agent.worker_pid() is None


async def test_a_coordinator_that_wants_another_sites_text_signed_gets_nothing(tmp_path: Path) -> None:
    async with running_coordinator() as coordinator:
        url = coordinator.session_url.replace("127.0.0.1", "localhost")  # the challenge is for 127.0.0.1
        async with AgentProcess(tmp_path, url, "complete") as agent:
            assert await agent.wait() == 77
            assert b"nothing else is signed for you" in agent.output
            assert coordinator.signed_in == {}
