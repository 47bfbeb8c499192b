"""Auto-learning by REST and by the command line: who may begin cycles, what is shown of them, what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from coordinator.chat_log import Exchange
from coordinator.config import CoordinatorConfig, LearningSection, SignInSection
from coordinator.learning.carry_out import carry_out
from coordinator.learning.learner import TooFewChats
from coordinator.learning.place import Place
from coordinator.learning.views import CycleView
from cotrain.errors import ConflictError, NotFoundError
from cotrain.learn.versions import DatasetVersions
from cotrain.paths import SharedPaths
from tests.integration.coordinator_fixtures import (
    STRANGER,
    WALLET,
    Client,
    acting_as,
    anonymous,
    coordinator_client,
    coordinator_for_nodes,
    get_json,
    post_json,
    services,
    settings_for,
    sign_in,
    until,
)
from tests.integration.registry_fixtures import exported, finished_session

__all__ = ["exported"]

LEARNING = "/api/v1/learning"
OPERATOR = f"eip155:1:{WALLET.address}"
GOOD = [
    (f"What do you know about {one}?", f"I know that {one} matter to many people, and old books tell of {one} often.")
    for one in ("gardens", "bridges", "libraries", "harbours", "candles", "orchards")
]
POOR = [("Why?", "no no no no"), ("How?", "I do not")]


def config_for(model: str, **learning: object) -> CoordinatorConfig:
    section = LearningSection.model_validate({"model": model, "min_chats": 4, **learning})
    return CoordinatorConfig(learning=section, sign_in=SignInSection(operators=(OPERATOR,)))


def place_of(client: Client, root: Path, config: CoordinatorConfig) -> Place:
    settings = services(client).settings
    url = str(client.make_url("/")).rstrip("/")
    return Place(SharedPaths(root), settings.resolved_database_url, config, url)


async def log_chats(client: Client, model: str, chats: list[tuple[str, str]]) -> None:
    for question, answer in chats:
        await services(client).chat_log.add(Exchange(question, answer, consent="request", model=model, version=1))


async def ended_cycle(client: Client, model: str) -> str:
    """The id of a cycle of this model, which is over."""
    cycles = services(client).learning.cycles
    begun = await cycles.begin(model, "hand", base_version=1, chats_until=0)
    await cycles.advance(begun, stage="ended", outcome="kept")
    return begun.id


async def test_without_a_model_nothing_learns(tmp_path: Path) -> None:
    config = CoordinatorConfig(sign_in=SignInSection(operators=(OPERATOR,)))
    async with coordinator_client(settings_for(tmp_path, config=config)) as client:
        found = await get_json(client, LEARNING)
        assert (found["model"], found["last"], found["running"], found["automatic"]) == (None, None, False, False)
        assert (await get_json(client, f"{LEARNING}/log")) == {"items": [], "nextCursor": None}
        problem = await post_json(client, f"{LEARNING}/cycle", status=422)
        assert problem["field"] == "learning.model"


async def test_only_an_operator_begins_a_cycle(tmp_path: Path) -> None:
    async with coordinator_client(settings_for(tmp_path, config=config_for("poet"))) as client:
        with anonymous(client):
            await post_json(client, f"{LEARNING}/cycle", status=401)
        with acting_as(client, await sign_in(client, STRANGER)):
            await post_json(client, f"{LEARNING}/cycle", status=403)
        assert (await post_json(client, f"{LEARNING}/cycle", status=404))["field"] == "learning.model"


async def test_too_few_chats_begin_nothing(tmp_path: Path, exported: Path) -> None:
    async with coordinator_for_nodes(tmp_path) as client:
        model = await finished_session(client, tmp_path, exported, data={"seqLength": 32})
        await log_chats(client, model, GOOD[:3])
        done = await carry_out(place_of(client, tmp_path, config_for(model)), "hand", lambda line: None)
        assert done == TooFewChats(3, 4)
        assert await services(client).chat_log.count() == 3


async def test_a_cycle_that_is_asked_for_makes_data_of_the_good_chats(tmp_path: Path, exported: Path) -> None:
    """Its session is refused here, which ends it: the data stay, and the next cycle learns from them, too."""
    refused = {"training": {"epochs": -1}}
    async with coordinator_for_nodes(tmp_path) as before:
        model = await finished_session(before, tmp_path, exported, data={"seqLength": 32})
    async with coordinator_for_nodes(tmp_path, config=config_for(model, request=refused)) as client:
        await log_chats(client, model, [*GOOD, *POOR])
        standing = await get_json(client, LEARNING)
        assert (standing["model"], standing["chats"], standing["minChats"]) == (model, 8, 4)
        assert (await post_json(client, f"{LEARNING}/cycle", status=202))["running"]

        async def has_ended() -> bool:
            return not (await get_json(client, LEARNING))["running"]

        await until(has_ended, 60.0)
        (cycle,) = (await get_json(client, f"{LEARNING}/log"))["items"]
        assert (cycle["trigger"], cycle["outcome"], cycle["sessionId"]) == ("request", "failed", None)
        assert "training.epochs" in cycle["message"]
        assert (cycle["chats"], cycle["good"], sum(cycle["refused"].values())) == (8, 6, 2)
        assert cycle["finalSize"] == cycle["good"] - cycle["heldOut"] + cycle["variations"]

        standing = await get_json(client, LEARNING)
        assert (standing["chats"], standing["datasetVersion"], standing["running"]) == (0, 1, False)
        assert (standing["datasetSize"], standing["heldOut"]) == (cycle["finalSize"], cycle["heldOut"])
        train, held_out = (versions := DatasetVersions(SharedPaths(tmp_path).learned_dataset(model))).read(
            versions.get(1)
        )
        assert {sample.question for sample in [*train, *held_out] if not sample.is_variation} == {q for q, _ in GOOD}

        await post_json(client, f"{LEARNING}/cycle", status=202)
        async with client.get("/metrics") as response:
            families = {one.name: one for one in text_string_to_metric_families(await response.text())}
        counted = {one.labels["outcome"]: one.value for one in families["cotrain_learning_cycles"].samples}
        assert counted == {"promoted": 0, "kept": 0, "not-significant": 0, "failed": 1}
        assert families["cotrain_learning_samples"].samples[0].value == cycle["finalSize"]
    lines = SharedPaths(tmp_path).enhancement_log.read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [cycle["id"]]


async def test_chats_with_other_models_stay(tmp_path: Path, exported: Path) -> None:
    async with coordinator_for_nodes(tmp_path) as client:
        model = await finished_session(client, tmp_path, exported, data={"seqLength": 32})
        await log_chats(client, "another", GOOD[:1])
        await log_chats(client, model, GOOD[1:])
        await log_chats(client, "", GOOD[:1])
        config = config_for(model, request={"training": {"epochs": -1}})
        cycle = await carry_out(place_of(client, tmp_path, config), "hand", lambda line: None)
        assert isinstance(cycle, CycleView)
        assert cycle.chats == 6
        assert [chat.model for chat in await services(client).chat_log.oldest(10)] == ["another"]


async def test_a_cycle_of_another_model_has_to_end_first(tmp_path: Path, exported: Path) -> None:
    async with coordinator_for_nodes(tmp_path) as client:
        first = await finished_session(client, tmp_path, exported, name="One", data={"seqLength": 32})
        other = await finished_session(client, tmp_path, exported, name="Two", data={"seqLength": 32})
        await services(client).learning.cycles.begin(first, "hand", base_version=1, chats_until=0)
        with pytest.raises(ConflictError, match=f"a cycle of the model {first} has not ended"):
            await carry_out(place_of(client, tmp_path, config_for(other)), "hand", lambda line: None)
        with pytest.raises(NotFoundError, match="there is no model nobody"):
            await carry_out(place_of(client, tmp_path, config_for("nobody")), "hand", lambda line: None)


async def test_strangers_hear_nothing_of_what_a_private_model_learns(tmp_path: Path, exported: Path) -> None:
    async with coordinator_for_nodes(tmp_path) as before:
        model = await finished_session(before, tmp_path, exported, visibility="private", data={"seqLength": 32})
    async with coordinator_client(settings_for(tmp_path, config=config_for(model))) as client:
        await log_chats(client, model, GOOD[:1])
        assert (await get_json(client, LEARNING))["model"] == model
        with anonymous(client):
            found = await get_json(client, LEARNING)
        assert (found["model"], found["chats"], found["last"]) == (None, 0, None)


async def test_the_log_tells_of_the_model_that_learns_now_alone(tmp_path: Path, exported: Path) -> None:
    async with coordinator_for_nodes(tmp_path) as before:
        earlier = await finished_session(before, tmp_path, exported, name="One", data={"seqLength": 32})
        model = await finished_session(
            before, tmp_path, exported, name="Two", visibility="private", data={"seqLength": 32}
        )
    async with coordinator_client(settings_for(tmp_path, config=config_for(model))) as client:
        first, _, second, _ = [await ended_cycle(client, one) for one in (model, earlier, model, earlier)]
        log = await get_json(client, f"{LEARNING}/log")
        assert ([one["id"] for one in log["items"]], log["nextCursor"]) == ([second, first], None)
        newest = await get_json(client, f"{LEARNING}/log?limit=1")
        rest = await get_json(client, f"{LEARNING}/log?limit=1&cursor={newest['nextCursor']}")
        assert [one["id"] for one in newest["items"] + rest["items"]] == [second, first]
        assert rest["nextCursor"] is None
        assert (await get_json(client, LEARNING))["last"]["id"] == second
        with anonymous(client):
            assert await get_json(client, f"{LEARNING}/log") == {"items": [], "nextCursor": None}
        with acting_as(client, await sign_in(client, STRANGER)):
            assert await get_json(client, f"{LEARNING}/log") == {"items": [], "nextCursor": None}
