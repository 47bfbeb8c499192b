"""A real coordinator on a free port, in this process, with a checkpointer that trains nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from coordinator.app import create_app
from coordinator.context import COORDINATOR, Coordinator
from coordinator.settings import Settings
from cotrain.paths import SharedPaths
from cotrain.protocol import StatusMessage
from cotrain.status import Record, Status, now, write_status

DOUBLE = Path(__file__).with_name("checkpointer_double.py")
REPOSITORY = Path(__file__).resolve().parents[2]
PEER_ID = "12D3KooWGRUacYwXCQnm3fTWJaXuXnb1UcSgbBcqCmVQN9jXFu5a"
LIMIT_S = 15.0

Client = TestClient[web.Request, web.Application]


def double_command() -> tuple[str, ...]:
    """The command line of the checkpointer's stand-in."""
    return (sys.executable, str(DOUBLE))


def settings_for(root: Path, **changes: Any) -> Settings:
    settings = Settings(
        shared=SharedPaths(root), public_url="http://coordinator.test", checkpointer_command=double_command(),
        stop_grace_s=1.0, restart_delay_s=0.05,
    )  # fmt: skip
    return dataclasses.replace(settings, **changes)


@asynccontextmanager
async def coordinator_client(settings: Settings) -> AsyncIterator[Client]:
    """A running coordinator and a client of it."""
    # the child finds the packages of this checkout
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    async with TestClient(TestServer(create_app(settings), host="127.0.0.1")) as client:
        await until(lambda: services(client).checkpointer.ready is not None)
        yield client


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with coordinator_client(settings_for(tmp_path)) as client:
        yield client


def services(client: Client) -> Coordinator:
    return client.app[COORDINATOR]  # type: ignore[index]


async def until(condition: Callable[[], bool | Awaitable[bool]], limit_s: float = LIMIT_S) -> None:
    """Wait for a condition; fails once the limit has passed."""
    give_up = time.monotonic() + limit_s
    while time.monotonic() < give_up:
        result = condition()
        if await result if isinstance(result, Awaitable) else result:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"did not happen within {limit_s} s")


async def get_json(client: Client, path: str, status: int = 200) -> dict[str, Any]:
    async with client.get(path) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def post_json(client: Client, path: str, body: Any = None, status: int = 200) -> dict[str, Any]:
    async with client.post(path, json=body) as response:
        assert response.status == status, await response.text()
        return await response.json(content_type=None)


async def create_session(client: Client, name: str = "A Test", **fields: Any) -> str:
    view = await post_json(client, "/api/v1/sessions", {"name": name, **fields}, status=201)
    return str(view["id"])


async def state_of(client: Client, session: str) -> str:
    return str((await get_json(client, f"/api/v1/sessions/{session}"))["status"])


async def until_state(client: Client, session: str, wanted: str) -> None:
    async def reached() -> bool:
        return await state_of(client, session) == wanted

    await until(reached)


async def waiting_session(client: Client, name: str = "A Test") -> str:
    """A session that can be joined."""
    session = await create_session(client, name)
    await post_json(client, f"/api/v1/sessions/{session}/start")
    await until_state(client, session, "waiting")
    return session


async def register(client: Client, session: str, peer_id: str = PEER_ID) -> dict[str, Any]:
    body = {"peerId": peer_id, "name": "volunteer", "hardware": {"device": "cpu", "cpuCount": 2}}
    return await post_json(client, f"/api/v1/sessions/{session}/participants", body, status=201)


@asynccontextmanager
async def uplink(client: Client, answer: dict[str, Any]) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """An uplink with a registration's credentials."""
    path = f"/api/v1/sessions/{answer['session']}/participants/{answer['participant']}/stream"
    headers = {"Authorization": f"Bearer {answer['token']}"}
    async with client.ws_connect(path, headers=headers, autoclose=False) as socket:
        yield socket


async def welcomed(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    await socket.send_json({"type": "hello"})
    return await receive(socket, "welcome")


async def receive(socket: aiohttp.ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    """The next message of this type; others before it are passed over."""
    while True:
        message = await socket.receive_json(timeout=LIMIT_S)
        if message["type"] == kind:
            return dict(message)


def status_of(session: str, peer: str, **changes: Any) -> Status:
    fields: dict[str, Any] = {
        "session": session, "peer": peer, "run": "run-1", "sequence": 1, "updated_at": now(),
        "status": "training", "phase": "training", "step": 10, "loss": 2.5, "tokens_per_second": 100.0,
    }  # fmt: skip
    return Status(**{**fields, **changes})


def status_message(session: str, seq: int, *, records: int = 0, **changes: Any) -> str:
    """A StatusMessage of the test's peer; `records` log records, numbered from 1."""
    listed = [Record(number=n, time=now(), kind="phase", message=f"record {n}") for n in range(1, records + 1)]
    status = status_of(session, PEER_ID, sequence=seq, records=listed, **changes)
    return StatusMessage(run=status.run, seq=seq, status=status).model_dump_json(by_alias=True)


def write_checkpointer_status(root: Path, session: str, **changes: Any) -> None:
    """What the checkpointer would put on disk."""
    folder = SharedPaths(root).run_dir(session, "checkpointer")
    folder.mkdir(parents=True, exist_ok=True)
    write_status(folder / "status.json", status_of(session, "checkpointer", **{"loss": None, **changes}))


def commands(root: Path) -> list[tuple[str, str]]:
    """What the checkpointer has been told: (operation, session)."""
    lines = (root / "commands.jsonl").read_text().splitlines() if (root / "commands.jsonl").exists() else []
    return [(entry["op"], entry["session"]) for entry in map(json.loads, lines)]
