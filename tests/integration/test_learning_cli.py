"""`cotrain learn import`, `status`, `run` and `watch`, as somebody at the coordinator's machine uses them."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cotrain.paths import SharedPaths
from tests.integration.coordinator_fixtures import Client, coordinator_for_nodes, services
from tests.integration.registry_fixtures import exported, finished_session

__all__ = ["exported"]

CHATS = [
    {"user": "What is a garden?", "assistant": "A garden is where people grow flowers; write to ada@example.org."},
    {"user": "Why?", "assistant": 7},
]
LIMIT_S = 90.0


async def learn(root: Path, *arguments: str) -> tuple[int, str, str]:
    process = await started(root, *arguments)
    async with asyncio.timeout(LIMIT_S):
        output, errors = await process.communicate()
    return process.returncode or 0, output.decode(), errors.decode()


async def started(root: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cotrain.cli", "learn", *arguments, env={**os.environ, "COTRAIN_SHARED": str(root)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, preexec_fn=_take_interrupts,
    )  # fmt: skip


def _take_interrupts() -> None:
    """As in a terminal: what a shell starts in the background ignores them, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
async def client(tmp_path: Path, exported: Path) -> AsyncIterator[Client]:
    """A coordinator with a model, `Poet`."""
    async with coordinator_for_nodes(tmp_path) as client:
        await finished_session(client, tmp_path, exported, name="Poet", data={"seqLength": 32})
        yield client


def chats_file(folder: Path, name: str = "chat_logs.json") -> str:
    path = folder / name
    path.write_text(json.dumps(CHATS))
    return str(path)


async def test_chats_of_the_former_system_come_into_the_log_without_personal_data(
    client: Client, tmp_path: Path
) -> None:
    code, output, errors = await learn(tmp_path, "import", chats_file(tmp_path), "--consent", "--json")
    assert code == 0, errors
    report = json.loads(output)
    assert (report["added"], report["refused"]) == (1, 1)
    assert "question or answer is not text" in report["problems"][0]
    (chat,) = await services(client).chat_log.oldest(10)
    assert (chat.question, chat.language, chat.model) == ("What is a garden?", "en", "")
    assert chat.answer.endswith("write to [email].")

    code, output, errors = await learn(tmp_path, "status", "--json", "--model", "Poet")
    assert code == 0, errors
    standing = json.loads(output)
    assert (standing["chats"], standing["minChats"], standing["running"]) == (1, 20, False)
    code, output, _ = await learn(tmp_path, "status", "--model", "Poet")
    assert "1 of the 20 that a cycle needs" in output


async def test_nothing_is_kept_without_consent(client: Client, tmp_path: Path) -> None:
    code, _, errors = await learn(tmp_path, "import", chats_file(tmp_path))
    assert (code, "--consent" in errors) == (2, True)
    assert await services(client).chat_log.count() == 0


async def test_what_cannot_be_done_is_said(client: Client, tmp_path: Path) -> None:
    code, _, errors = await learn(tmp_path, "run")
    assert (code, "no model learns" in errors) == (2, True)
    code, _, errors = await learn(tmp_path, "run", "--model", "nobody")
    assert (code, "there is no model nobody" in errors) == (66, True)
    code, output, _ = await learn(tmp_path, "status")
    assert (code, "no model learns" in output) == (0, True)
    with SharedPaths(tmp_path).learning_lock.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, _, errors = await learn(tmp_path, "run", "--model", "Poet")
    assert (code, "another process carries out a cycle" in errors) == (75, True)


async def test_watching_goes_on_until_it_is_interrupted(client: Client, tmp_path: Path) -> None:
    watching = await started(tmp_path, "watch", "--every", "1", "--json", "--model", "Poet")
    assert watching.stdout is not None
    try:
        async with asyncio.timeout(LIMIT_S):
            told: list[Any] = [json.loads(await watching.stdout.readline()) for _ in range(2)]
            assert told == [{"chats": 0, "minChats": 20}] * 2
            watching.send_signal(signal.SIGINT)
            assert await watching.wait() == 130
    finally:
        if watching.returncode is None:
            watching.kill()
            await watching.wait()
