"""The processes behind chats: killed, changed over under load, ended for others, and never started for nothing."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator.chat_models import ServedVersion
from coordinator.chat_service import ChatService
from cotrain.chat_protocol import ChatRequest, ChatUnavailableError, parse_chat
from tests.integration.coordinator_fixtures import settings_for, until
from tests.serve_fixtures import ASKED, export_chat_model

LIMIT_S = 120.0
TOKENS = 60


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models."""
    root = tmp_path_factory.mktemp("served")
    return [export_chat_model(root / f"poet-{seed}", seed=seed) for seed in (1, 2)]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[ChatService]:
    settings = settings_for(tmp_path)
    settings.shared.create()
    made = ChatService(settings)
    yield made
    pids = [pid for pid in made.processes.values() if pid is not None]
    await made.close()
    assert not any(map(psutil.pid_exists, pids))


def version(folder: Path, number: int = 1, model: str = "poet") -> ServedVersion:
    return ServedVersion(model, number, folder)


def request(**fields: Any) -> ChatRequest:
    body = {"model": "poet", "messages": ASKED, "max_tokens": TOKENS, "seed": 1} | fields
    return parse_chat(json.dumps(body).encode())


async def ask(service: ChatService, *candidates: ServedVersion, **fields: Any) -> str:
    """Who has answered. Fails if the answer is not whole."""
    async with service.asking(candidates, request(**fields)) as (served, answered):
        assert answered.status == 200
        completion = await answered.json()
        assert completion["model"] == served.name
        assert completion["usage"]["completion_tokens"] == fields.get("max_tokens", TOKENS)
        return served.name


async def test_a_killed_process_costs_nothing_but_time(service: ChatService, folders: list[Path]) -> None:
    poet = version(folders[0])
    assert service.processes == {}
    assert await ask(service, poet) == "poet:1"
    first = service.processes["poet:1"]
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert await ask(service, poet) == "poet:1"
    second = service.processes["poet:1"]
    assert second not in (None, first)
    # one that dies while it computes: nothing has been told yet, so it is asked again of another one
    asked = asyncio.create_task(ask(service, poet, max_tokens=400))
    await until(lambda: service.in_use("poet:1") == 1)
    os.kill(second, signal.SIGKILL)
    assert await asked == "poet:1"


async def test_a_change_over_under_load_drops_nothing(service: ChatService, folders: list[Path]) -> None:
    old, new = version(folders[0], 1), version(folders[1], 2)
    candidates = [old, new]
    answered: list[str] = []
    await ask(service, old)
    first = service.processes["poet:1"]
    ending = asyncio.Event()

    async def talk() -> None:
        while not ending.is_set():
            answered.append(await ask(service, *candidates))

    talks = [asyncio.create_task(talk()) for _ in range(4)]
    await until(lambda: len(answered) >= 4, LIMIT_S)
    candidates.reverse()
    await until(lambda: "poet:2" in answered, LIMIT_S)
    await until(lambda: not psutil.pid_exists(first or 0), LIMIT_S)
    ending.set()
    await asyncio.gather(*talks)  # raises what any of them has met
    turn = answered.index("poet:2")
    assert turn > 4
    # those that were under way may end after the first of the new version
    assert answered[turn:].count("poet:1") <= len(talks)
    assert list(service.processes) == ["poet:2"]


async def test_the_least_recently_used_one_makes_room(service: ChatService, folders: list[Path]) -> None:
    poet, critic = version(folders[0]), version(folders[1], model="critic")
    assert await ask(service, poet) == "poet:1"
    first = service.processes["poet:1"]
    assert await asyncio.gather(ask(service, critic), ask(service, critic)) == ["critic:1", "critic:1"]
    assert list(service.processes) == ["critic:1"]
    assert not psutil.pid_exists(first or 0)
    assert await asyncio.gather(ask(service, poet), ask(service, critic)) == ["poet:1", "critic:1"]


async def test_a_version_that_cannot_be_loaded_is_not_tried_all_the_time(
    service: ChatService, folders: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(folders[0], folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    broken, fine = version(folder, 2), version(folders[0], 1)
    with pytest.raises(ChatUnavailableError, match="cannot be loaded"):
        await ask(service, broken)
    with pytest.raises(ChatUnavailableError) as waits:
        await ask(service, broken)
    assert waits.value.details["retryAfterS"] >= 1
    # an older version goes on answering in the place of one that was promoted and is broken
    assert await ask(service, fine) == "poet:1"
    assert await ask(service, broken, fine) == "poet:1"
