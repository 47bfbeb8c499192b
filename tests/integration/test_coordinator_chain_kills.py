"""kill -9 of a real coordinator at each step of the queue: every record arrives, and exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp

from cotrain.chain.config_hash import config_hash
from tests.integration.chain_fixtures import Stage, chain_stage
from tests.integration.coordinator_fixtures import LIMIT_S, REPOSITORY, WALLET, bearer, double_command, sign_in, until
from tests.integration.killed_coordinator import ARMED, POINTS, REACHED

PROGRAM = Path(__file__).with_name("killed_coordinator.py")
SESSIONS = "/api/v1/sessions"
BEGINS_A_ROUND = "eth_chainId"
LOOK_EVERY_S = 0.02
CONFIRMATIONS = 2
CONFIRMED_WITHIN_S = 40.0


def config_file(stage: Stage) -> Path:
    """`[chain]` in a coordinator's file."""
    section = stage.section(confirmations=CONFIRMATIONS)
    lines = [f"{key} = {json.dumps(value)}" for key, value in section.model_dump().items()]
    path = stage.folder / "coordinator.toml"
    path.write_text("\n".join(["[chain]", *lines]) + "\n")
    return path


@contextlib.contextmanager
def serving(root: Path, stage: Stage) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The coordinator, and its URL once it is ready."""
    environment = {**os.environ, "COTRAIN_SHARED": str(root), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(PROGRAM), json.dumps(double_command()), str(stage.folder)]
    process = subprocess.Popen(
        [*command, "--config", str(config_file(stage))], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["url"]
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(LIMIT_S)
        process.stdout.close()


@contextlib.asynccontextmanager
async def blocks_come(stage: Stage) -> AsyncIterator[None]:
    """A block once the coordinator has looked at the one before in a whole round: however slow it is, it sees each."""

    async def mine() -> None:
        mined_at = 0
        while True:
            begun = stage.node.calls.count(BEGINS_A_ROUND)
            if begun >= mined_at + 2:
                await asyncio.to_thread(stage.node.evm.mine)
                mined_at = begun
            await asyncio.sleep(LOOK_EVERY_S)

    task = asyncio.create_task(mine())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def signed_in(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        http.headers["Authorization"] = bearer(await sign_in(http, WALLET, base=url))
        yield http


async def drafted(http: aiohttp.ClientSession, url: str) -> str:
    """A new session."""
    async with http.post(f"{url}{SESSIONS}", json={"name": "killed"}) as response:
        return str((await response.json())["id"])


async def record_of(http: aiohttp.ClientSession, url: str, session: str) -> dict[str, object]:
    async with http.get(f"{url}{SESSIONS}/{session}/record") as response:
        return dict(await response.json())


async def test_each_record_arrives_once_wherever_the_coordinator_is_killed(tmp_path: Path) -> None:
    sessions: list[str] = []
    with chain_stage(tmp_path) as stage:
        async with blocks_come(stage):
            for point in POINTS:
                with serving(tmp_path / "shared", stage) as (process, url):
                    async with signed_in(url) as http:
                        await until_all(http, url, sessions, "opened")  # else one of these would come to the point
                        sessions.append(await drafted(http, url))
                        (stage.folder / ARMED).write_text(point)
                        with contextlib.suppress(aiohttp.ClientError):  # it may be dead before it answers
                            await (await http.post(f"{url}{SESSIONS}/{sessions[-1]}/start")).read()
                        await until(lambda: process.poll() is not None, limit_s=CONFIRMED_WITHIN_S)
                    assert process.returncode == -signal.SIGKILL, point
                    (stage.folder / REACHED).unlink()
                    stage.node.evm.mine(CONFIRMATIONS)  # the chain goes on without it
            with serving(tmp_path / "shared", stage) as (_, url):
                async with signed_in(url) as http:
                    await until_all(http, url, sessions, "opened")
                    for session in sessions:
                        await (await http.post(f"{url}{SESSIONS}/{session}/cancel")).read()
                    await until_all(http, url, sessions, "closed")
                    configs = [await (await http.get(f"{url}{SESSIONS}/{one}/config")).text() for one in sessions]
        held = [stage.recorded(session) for session in sessions]
        assert [one.config_hash for one in held] == [config_hash(config) for config in configs]
        assert all(one.closed_at for one in held)
        # no transaction was refused, and none was made in vain
        assert stage.transactions() == 2 * len(sessions)


async def until_all(http: aiohttp.ClientSession, url: str, sessions: list[str], status: str) -> None:
    async def reached() -> bool:
        return all([(await record_of(http, url, session))["status"] == status for session in sessions])

    await until(reached, limit_s=CONFIRMED_WITHIN_S)
