"""kill -9 at each point of a learning cycle: no chat is lost, no half data are ever current, nothing is done twice."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from coordinator.chat_log import ChatLog, Exchange
from coordinator.config import CoordinatorConfig, LearningSection
from cotrain.learn.versions import DatasetVersions
from cotrain.paths import SharedPaths
from cotrain.sections import ModelSection
from cotrain.train.checkpoint import export_model
from cotrain.train.model import build_model
from cotrain.train.spec import DataSpec
from cotrain.train.tokenizer import byte_tokenizer
from tests.chaos.killed_learner import POINTS
from tests.integration.coordinator_fixtures import Client, coordinator_for_nodes, get_json, services, state_of
from tests.integration.registry_fixtures import SESSIONS, exported, finished_session

__all__ = ["exported"]

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

KILLED_LEARNER = Path(__file__).with_name("killed_learner.py")
LIMIT_S = 240.0
NAME = "Poet"
OFTEN = frozenset({"half written", "chats cleared, not committed", "session opened"})
"""In each `make test`; the others are long."""
SUBJECTS = (
    "gardens", "bread", "rivers", "winter", "music", "schools", "bridges", "libraries", "markets", "candles",
    "harbours", "orchards",
)  # fmt: skip
CHATS = [
    *((f"What do you know about {one}?", f"I know that {one} matter to many people, and old books tell of {one} often.")
      for one in SUBJECTS),
    *((f"Why {one}?", "no no no no") for one in SUBJECTS),
]  # fmt: skip


@dataclass(frozen=True)
class Place:
    client: Client
    shared: SharedPaths
    model: str
    config: Path

    @property
    def chats(self) -> ChatLog:
        return services(self.client).chat_log

    @property
    def versions(self) -> DatasetVersions:
        return DatasetVersions(self.shared.learned_dataset(self.model))

    async def learn(self, point: str = "") -> tuple[int, str]:
        """Run a cycle, or its rest; returns the exit code and what it printed."""
        program = ("-m", "cotrain.cli") if not point else (str(KILLED_LEARNER), point)
        process = await asyncio.create_subprocess_exec(
            sys.executable, *program, "learn", "run", "--json", "--config", str(self.config),
            "--url", str(self.client.make_url("/")),
            env={**os.environ, "COTRAIN_SHARED": str(self.shared.root)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            async with asyncio.timeout(LIMIT_S):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode or 0, output.decode()


@pytest.fixture
async def place(tmp_path: Path, exported: Path) -> AsyncIterator[Place]:
    """A coordinator with a model that has been chatted with."""
    settings = CoordinatorConfig(learning=LearningSection(model=NAME))
    async with coordinator_for_nodes(tmp_path, config=settings) as client:
        model = await finished_session(client, tmp_path, exported, name=NAME, data={"seqLength": 32})
        config = tmp_path / "coordinator.toml"
        config.write_text(f'[learning]\nmodel = "{NAME}"\n')
        place = Place(client, SharedPaths(tmp_path), model, config)
        for question, answer in CHATS:
            await place.chats.add(Exchange(question, answer, consent="request", model=model, version=1))
        yield place


async def let_session_end(place: Place, better: Path) -> None:
    """Do what volunteers and the checkpointer would: the cycle's session ends with a model."""
    ended: set[str] = set()
    while True:
        for view in (await get_json(place.client, SESSIONS))["items"]:
            session = view["id"]
            if session not in ended and await state_of(place.client, session) == "waiting":
                shutil.copytree(better, place.shared.final_model(session))
                (place.shared.root / f"reached-{session}").touch()
                ended.add(session)
        await asyncio.sleep(0.05)


def trained(folder: Path) -> Path:
    """Another model than the one of version 1."""
    spec = DataSpec(task="causal-lm", vocab_size=256, seq_length=32)
    export_model(build_model(ModelSection(), spec, seed=7), byte_tokenizer(), folder)
    return folder


async def check_nothing_is_lost(place: Place) -> None:
    """What holds at every moment: data that are current are whole, and chats are in the log or in them."""
    current = await asyncio.to_thread(place.versions.current)
    taken: set[str] = set()
    if current is not None:
        train, held_out = await asyncio.to_thread(place.versions.read, current)
        taken = {sample.question for sample in [*train, *held_out]}
        assert {question for question, answer in CHATS if "matter" in answer} <= taken
    logged = {chat.question for chat in await place.chats.oldest(1000)}
    assert {question for question, _ in CHATS} <= logged or current is not None


@pytest.mark.parametrize(
    "point", [point if point in OFTEN else pytest.param(point, marks=pytest.mark.long) for point in POINTS]
)
async def test_a_cycle_that_is_killed_goes_on_where_it_was(place: Place, tmp_path: Path, point: str) -> None:
    volunteers = asyncio.create_task(let_session_end(place, trained(tmp_path / "better")))
    try:
        code, output = await place.learn(point)
        assert code == -signal.SIGKILL, output
        await check_nothing_is_lost(place)

        code, output = await place.learn()
        assert code == 0, output
    finally:
        volunteers.cancel()
        await asyncio.gather(volunteers, return_exceptions=True)

    cycle = json.loads(output.splitlines()[-1])
    assert cycle["outcome"] in ("promoted", "kept"), cycle["message"]
    assert (cycle["chats"], cycle["good"]) == (len(CHATS), len(SUBJECTS))
    assert await place.chats.count() == 0
    await check_nothing_is_lost(place)
    assert [version.number for version in place.versions.versions()] == [1]
    assert not list(place.shared.learned_dataset(place.model).glob(".v*"))

    sessions = (await get_json(place.client, SESSIONS))["items"]
    assert len(sessions) == 2, "one session made the model, one learnt from the chats"
    model = await get_json(place.client, f"/api/v1/models/{place.model}")
    assert model["versions"] == 2
    assert model["promotedVersion"] == (2 if cycle["outcome"] == "promoted" else None)
    jobs = (await get_json(place.client, "/api/v1/jobs"))["items"]
    assert sorted(job["version"] for job in jobs if job["kind"] == "evaluate") == [1, 2]
    log = (await get_json(place.client, "/api/v1/learning/log"))["items"]
    lines = [json.loads(line) for line in place.shared.enhancement_log.read_text().splitlines()]
    assert [one["id"] for one in log] == [one["id"] for one in lines] == [cycle["id"]]
