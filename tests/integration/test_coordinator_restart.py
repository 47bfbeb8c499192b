"""What outlives the coordinator's and the checkpointer's death."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import aiohttp
import psutil
import pytest

from coordinator.checkpointer_process import PORT_FILE, lasting_port
from coordinator.serve import run_server
from cotrain.listening import AddressError
from tests.integration.coordinator_fixtures import (
    LIMIT_S,
    REPOSITORY,
    WALLET,
    Client,
    bearer,
    client,
    commands,
    coordinator_client,
    double_command,
    post_json,
    register,
    registration,
    services,
    settings_for,
    sign_in,
    status_message,
    until,
    until_state,
    uplink,
    waiting_session,
    welcomed,
)

__all__ = ["client"]

SESSIONS = "/api/v1/sessions"

# serves like the command line does, with the checkpointer's stand-in
PROGRAM = """
    import dataclasses, json, sys
    from coordinator.cli import app
    from coordinator.settings import Settings

    original = Settings.from_env
    def with_double(**given):
        return dataclasses.replace(original(**given), checkpointer_command=tuple(json.loads(sys.argv[1])))
    Settings.from_env = with_double
    app(["serve", "--port", "0", "--json", *sys.argv[2:]])
"""


@contextlib.contextmanager
def serving(root: Path, *options: str, log: IO[str] | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`serve` in a process of its own, and its URL once it is ready; its log goes to stderr where none is given."""
    environment = {**os.environ, "COTRAIN_SHARED": str(root), "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), json.dumps(double_command()), *options],
        env=environment, stdout=subprocess.PIPE, stderr=log, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["pid"] == process.pid
        yield process, ready["url"]
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(LIMIT_S)


def double_pid(root: Path) -> int:
    return int((root / "double.pid").read_text())


async def log_numbers(http: aiohttp.ClientSession, url: str, session: str) -> list[int]:
    async with http.get(f"{url}{SESSIONS}/{session}/logs?limit=200") as response:
        return sorted(entry["number"] for entry in (await response.json())["items"])


async def stream_until_killed(url: str, answer: dict[str, str], process: subprocess.Popen[str]) -> int:
    """Send statuses, kill the coordinator half-way, and return the highest acknowledged number."""
    acknowledged = 0
    path = f"{url}{SESSIONS}/{answer['session']}/participants/{answer['participant']}/stream"
    headers = {"Authorization": f"Bearer {answer['token']}"}
    async with aiohttp.ClientSession() as http, http.ws_connect(path, headers=headers) as socket:
        await socket.send_json({"type": "hello"})
        for seq in range(1, 31):
            await socket.send_str(status_message(answer["session"], seq, records=seq))
        async for message in socket:
            told = json.loads(message.data)
            if told["type"] == "ack":
                acknowledged = told["seq"]
                process.send_signal(signal.SIGKILL)
    return acknowledged


async def wait_for_status(http: aiohttp.ClientSession, url: str, session: str, wanted: str) -> None:
    async def reached() -> bool:
        async with http.get(f"{url}{SESSIONS}/{session}") as response:
            return bool((await response.json())["status"] == wanted)

    await until(reached)


async def test_a_killed_coordinator_keeps_what_it_acknowledged_and_follows_again(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, url):
        async with aiohttp.ClientSession() as http:
            http.headers["Authorization"] = bearer(await sign_in(http, WALLET, base=url))
            async with http.post(f"{url}{SESSIONS}", json={"name": "x"}) as response:
                session = (await response.json())["id"]
            await (await http.post(f"{url}{SESSIONS}/{session}/start")).read()
            await wait_for_status(http, url, session, "waiting")
            body = registration(session, coordinator=url)
            async with http.post(f"{url}{SESSIONS}/{session}/participants", json=body) as response:
                answer = await response.json()
        orphan = psutil.Process(double_pid(tmp_path))
        acknowledged = await stream_until_killed(url, answer, process)
        assert acknowledged > 0
        await until(lambda: not orphan.is_running())
    with serving(tmp_path) as (process, url):
        async with aiohttp.ClientSession() as http:
            stored = await log_numbers(http, url, session)
            assert stored[:acknowledged] == list(range(1, acknowledged + 1))
            assert stored == list(range(1, len(stored) + 1))
            await wait_for_status(http, url, session, "training")
        await until(lambda: commands(tmp_path).count(("follow", session)) == 2)
        child = psutil.Process(double_pid(tmp_path))
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        assert not child.is_running()


async def test_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130


async def test_a_killed_checkpointer_is_started_again_and_told_what_to_follow(client: Client, tmp_path: Path) -> None:
    session = await waiting_session(client)
    first = double_pid(tmp_path)
    os.kill(first, signal.SIGKILL)
    await until(lambda: commands(tmp_path) == [("follow", session)] * 2)
    assert double_pid(tmp_path) != first
    await until(lambda: services(client).checkpointer.ready is not None)
    await post_json(client, f"{SESSIONS}/{session}/stop")
    await until_state(client, session, "stopped")


async def test_a_stop_survives_a_restart(tmp_path: Path) -> None:
    async with coordinator_client(settings_for(tmp_path, stop_grace_s=60.0)) as client:
        session = await waiting_session(client)
        async with uplink(client, await register(client, session)) as socket:
            await welcomed(socket)
            await socket.send_str(status_message(session, 1))
            await socket.receive(timeout=LIMIT_S)
            assert (await post_json(client, f"{SESSIONS}/{session}/stop"))["status"] == "stopping"
    async with coordinator_client(settings_for(tmp_path)) as client:
        await until_state(client, session, "stopped")


def test_a_taken_port_is_named(unused_tcp_port: int, tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", unused_tcp_port)), pytest.raises(AddressError) as raised:
        run_server(
            host="127.0.0.1", port=unused_tcp_port, public_url="", swarm_host="127.0.0.1", swarm_port=0,
            json_output=True,
        )  # fmt: skip
    assert str(unused_tcp_port) in str(raised.value)
    assert raised.value.exit_code == 69


async def test_the_checkpointers_port_lasts_unless_it_is_taken(tmp_path: Path) -> None:
    path = tmp_path / PORT_FILE
    port = await lasting_port(path, "127.0.0.1", 0)
    assert await lasting_port(path, "127.0.0.1", 0) == port
    assert await lasting_port(path, "127.0.0.1", 4321) == 4321
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", port)
    async with server:
        assert await lasting_port(path, "127.0.0.1", 0) != port
