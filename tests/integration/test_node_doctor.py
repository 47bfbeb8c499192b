"""`cotrain node doctor` and the preflight of a join: with a real coordinator, and with what is none."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web
from sqlalchemy import select

from coordinator.models import ParticipantRow
from cotrain.cli import execute
from cotrain.identity.challenge import Signer
from cotrain.identity.wallet import EthereumWallet
from cotrain.paths import SharedPaths
from cotrain.protocol import PROTOCOL_VERSION, Asset
from node import greeting
from node.checks import Check, exit_code
from node.doctor import ORDER, Doctor, DoctorOptions, examine
from node.lock import AGENT_FILE, AgentRecord
from node.preflight import look_at_clock
from tests.integration.agent_process import AgentProcess
from tests.integration.coordinator_fixtures import (
    Client,
    coordinator_for_nodes,
    create_session,
    free_port,
    services,
    waiting_session,
)
from tests.integration.node_fixtures import running_coordinator


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A coordinator whose public URL is the one that nodes use."""
    async with coordinator_for_nodes(tmp_path / "coordinator") as client:
        yield client


def base_of(client: Client) -> str:
    return f"http://127.0.0.1:{client.port}"


def no_wallet() -> Signer:
    raise AssertionError("nobody signs in here")


async def looked_at(tmp_path: Path, base_url: str, session: str | None, wallet: Any = no_wallet) -> dict[str, Check]:
    """What a doctor finds at the coordinator, by name; without the training benchmark, which takes seconds."""
    doctor = Doctor(DoctorOptions(), tmp_path / "home", SharedPaths(tmp_path / "shared"), lambda check: None)
    (tmp_path / "home").mkdir(exist_ok=True)
    await doctor.look_at_earlier_agents()
    await doctor.look_at_coordinator(base_url, session, wallet)
    assert len({check.name for check in doctor.found}) == len(doctor.found)
    return {check.name: check for check in doctor.found}


async def tokens(client: Client, session: str) -> list[str]:
    """The hash of each participant's token; empty for one that has left."""
    async with services(client).store.read() as rows:
        query = select(ParticipantRow.token_sha256).where(ParticipantRow.session_id == session)
        return list(await rows.scalars(query))


# ---------------------------------------------------------------------------------------------- a real coordinator
async def test_the_command_makes_every_check_and_leaves_the_session_again(client: Client, tmp_path: Path) -> None:
    session = await waiting_session(client)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cotrain.cli", "node", "doctor", f"{base_of(client)}/s/{session}", "--json",
        env={**os.environ, "COTRAIN_HOME": str(tmp_path / "home"), "COTRAIN_SHARED": str(tmp_path / "shared")},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await asyncio.wait_for(process.communicate(), 180)
    assert process.returncode == 0, (output, errors)
    told = json.loads(output)
    assert set(told) == {"checks"}
    assert [check["name"] for check in told["checks"]] == list(ORDER)
    assert {tuple(check) for check in told["checks"]} == {("name", "state", "detail", "remedy")}
    assert "tokens/s" in told["checks"][-1]["detail"]
    assert await tokens(client, session) == [""]  # registered, and left again


async def test_all_but_the_benchmark_is_found_out_at_the_coordinator(client: Client, tmp_path: Path) -> None:
    session = await waiting_session(client)
    found = await looked_at(tmp_path, base_of(client), session, EthereumWallet.create)
    assert set(found) == set(ORDER) - {"benchmark"}
    assert {check.name for check in found.values() if check.state == "failed"} == set()
    assert "/s come in" in found["line"].detail
    assert await tokens(client, session) == [""]  # registered, and left again


async def test_a_home_that_takes_no_file_fails_and_the_session_is_not_asked(client: Client, tmp_path: Path) -> None:
    session = await waiting_session(client)
    (tmp_path / "file").touch()
    home = tmp_path / "file" / "home"  # root could write to a folder without permissions
    doctor = Doctor(DoctorOptions(), home, SharedPaths(tmp_path / "shared"), lambda check: None)
    await doctor.look_at_coordinator(base_of(client), session, EthereumWallet.create)
    found = {check.name: check for check in doctor.found}
    assert (found["session"].state, found["disk"].state) == ("failed", "failed")
    assert "COTRAIN_HOME" in found["disk"].remedy
    assert exit_code(doctor.found) == 78
    assert await tokens(client, session) == []


async def test_a_session_that_takes_nobody_is_told_with_its_reason(client: Client, tmp_path: Path) -> None:
    draft = await create_session(client)
    found = await looked_at(tmp_path, base_of(client), draft, EthereumWallet.create)
    assert found["session"].state == "failed"
    assert "cannot be joined" in found["session"].detail
    assert found["session"].remedy
    assert not {"reachable", "relay", "line"} & set(found)
    assert {"clock", "memory"} <= set(found)
    assert exit_code(list(found.values())) == 69


async def test_with_a_coordinators_address_nobody_signs_in(client: Client, tmp_path: Path) -> None:
    found = await looked_at(tmp_path, base_of(client), None)
    assert (found["coordinator"].state, found["clock"].state) == ("ok", "ok")
    assert f"protocol {PROTOCOL_VERSION}" in found["coordinator"].detail
    assert found["session"].state == "warning"
    assert found["session"].detail.startswith("nothing open for this machine: ")
    assert "cotrain sessions list" in found["session"].remedy
    session = await waiting_session(client)
    found = await looked_at(tmp_path, base_of(client), None)
    assert found["session"].state == "ok"
    assert f"with {base_of(client)} this node would join {session}: it lacks 1 node" in found["session"].detail
    assert await tokens(client, session) == []


async def test_while_an_agent_takes_part_the_session_is_left_alone(client: Client, tmp_path: Path) -> None:
    session = await waiting_session(client)
    me = psutil.Process()
    record = AgentRecord(pid=me.pid, start_time=me.create_time(), session=session, run_dir=tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / AGENT_FILE).write_text(record.model_dump_json(by_alias=True))
    found = await looked_at(tmp_path, base_of(client), session)
    assert found["agent"].state == "warning"
    assert str(me.pid) in found["agent"].detail
    assert "session" not in found
    assert await tokens(client, session) == []


@pytest.mark.parametrize(("version", "side"), [(PROTOCOL_VERSION + 1, "coordinator"), (PROTOCOL_VERSION - 1, "node")])
async def test_another_version_names_the_side_to_upgrade(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, side: str
) -> None:
    monkeypatch.setattr(greeting, "PROTOCOL_VERSION", version)
    found = await looked_at(tmp_path, base_of(client), None)
    assert found["coordinator"].state == "failed"
    assert f"the node speaks protocol {version}" in found["coordinator"].detail
    assert found["coordinator"].remedy.startswith(f"upgrade the {side}:")


# ---------------------------------------------------------------------------------------------- others
@asynccontextmanager
async def answering(headers: dict[str, str]) -> AsyncIterator[str]:
    """A web server that is no coordinator, and its address."""

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text="<h1>hello</h1>", content_type="text/html", headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", page)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_coordinator_that_is_away_fails_and_the_machine_is_looked_at_all_the_same(tmp_path: Path) -> None:
    found = await looked_at(tmp_path, f"http://127.0.0.1:{free_port()}", "tales")
    assert found["coordinator"].state == "failed"
    assert "operator" in found["coordinator"].remedy
    assert {"python", "disk", "memory"} <= set(found)
    assert exit_code(list(found.values())) == 69


async def test_who_answers_but_is_no_coordinator_is_told_so(tmp_path: Path) -> None:
    async with answering({}) as url:
        found = await looked_at(tmp_path, url, "tales")
    assert found["coordinator"].state == "failed"
    assert "no coordinator" in found["coordinator"].detail


@pytest.mark.parametrize(("behind_s", "state"), [(0, "ok"), (90, "failed"), (-90, "failed")])
async def test_a_clock_is_held_against_the_coordinators(behind_s: float, state: str) -> None:
    async with answering({"Date": formatdate(time.time() + behind_s, usegmt=True)}) as url:
        found = await look_at_clock(url)
    assert found.state == state
    assert "timedatectl" in found.remedy or state == "ok"


async def test_a_clock_that_cannot_be_asked_for_is_no_failure() -> None:
    found = await look_at_clock(f"http://127.0.0.1:{free_port()}")
    assert (found.name, found.state) == ("clock", "warning")


# ---------------------------------------------------------------------------------------------- this machine alone
async def test_without_an_address_the_machine_alone_is_looked_at(tmp_path: Path) -> None:
    told: list[Check] = []
    found = await examine(
        DoctorOptions(), tmp_path / "home", SharedPaths(tmp_path / "shared"), wallet=no_wallet, report=told.append
    )
    assert sorted(map(str, told)) == sorted(map(str, found))
    assert {check.name for check in found} == set(ORDER) - {
        "coordinator", "clock", "session", "reachable", "relay", "line",
    }  # fmt: skip
    assert found[-1].name == "benchmark"
    assert found[-1].state == "ok"


def test_an_address_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COTRAIN_HOME", str(tmp_path))
    assert execute(["node", "doctor", "ftp://host/s/tales"]) == 2
    assert capsys.readouterr().err.startswith("error: URL: an address begins with http")


# ---------------------------------------------------------------------------------------------- a join
async def test_a_join_ends_before_anything_is_fetched_and_leaves_the_session(tmp_path: Path) -> None:
    async with running_coordinator() as coordinator:
        coordinator.assets = [Asset(name="train.safetensors", sha256="a" * 64, size_bytes=10**18)]
        async with AgentProcess(tmp_path, coordinator.session_url, "complete") as agent:
            assert await agent.wait() == 78
        assert b"are needed" in agent.output
        assert b"COTRAIN_SHARED" in agent.output
        assert b"Traceback" not in agent.output
        assert b"if this estimate is wrong: --skip-preflight" in agent.output
        assert coordinator.left == ["p1"]
        assert "asset" not in coordinator.requests
        assert coordinator.stored == []


async def test_a_join_that_skips_its_preflight_tells_what_was_found_and_trains(tmp_path: Path) -> None:
    async with running_coordinator() as coordinator:
        agent = AgentProcess(tmp_path, coordinator.session_url, "complete")
        agent.home.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            (agent.home / "node.toml").write_text(f"[node]\nskip_preflight = true\nport = {port}\n")
            async with agent:
                assert await agent.wait() == 0, agent.output
        assert f"port {port} on 127.0.0.1 cannot be had: another program has it".encode() in agent.output
        assert b"training all the same: --skip-preflight" in agent.output
        assert coordinator.final_states() == ["completed"]
