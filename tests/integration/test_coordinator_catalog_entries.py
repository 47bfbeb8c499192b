"""Models and datasets that people add to a real coordinator's catalog: who may, what is refused, what a name means."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from coordinator.config import CoordinatorConfig, LimitsSection, SignInSection
from cotrain.config import RunConfig, parse_config
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import (
    STRANGER,
    WALLET,
    Client,
    acting_as,
    anonymous,
    client,
    coordinator_client,
    get_json,
    post_json,
    settings_for,
    sign_in,
)

__all__ = ["client"]

CATALOG = "/api/v1/catalog"
PREVIEW = "/api/v1/configs/preview"
SESSIONS = "/api/v1/sessions"
MODEL = {"id": "our-bert", "name": "Our BERT", "huggingFaceId": "our/bert", "type": "bert", "sizeBytes": 420_000_000}
WRONG_PATHS = ("missing", "../outside", "/etc", ".", "here/..", "a-file", "leads-out", "x" * 300, "a\0")
DATASET = {"id": "our-poems", "name": "Our Poems", "huggingFaceId": "our/poems", "task": "causal-lm"}


async def add(client: Client, entry: dict[str, Any], status: int = 201, **changes: Any) -> dict[str, Any]:
    kind = "models" if "sizeBytes" in entry else "datasets"
    return await post_json(client, f"{CATALOG}/{kind}", {**entry, **changes}, status=status)


async def delete(client: Client, path: str) -> int:
    async with client.delete(f"{CATALOG}/{path}") as response:
        return response.status


async def config_of(client: Client, **fields: Any) -> RunConfig:
    """The config of a new session with these fields."""
    session = await post_json(client, SESSIONS, {"name": "x", **fields}, status=201)
    async with client.get(f"{SESSIONS}/{session['id']}/config") as response:
        return parse_config(await response.text())


def folder(root: Path, path: str) -> Path:
    made = root / path
    made.mkdir(parents=True)
    return made


# ------------------------------------------------------------------------------------------------- adding, deleting
@BOTH
async def test_what_is_added_is_read_by_everybody_and_deleted_by_its_owner(client: Client) -> None:
    made = await add(client, MODEL, licence="mit", language="de")
    assert made["owner"] == f"eip155:1:{WALLET.address}"
    assert (made["huggingFaceId"], made["path"], made["licence"], made["verified"]) == ("our/bert", None, "mit", False)
    await add(client, DATASET)
    with anonymous(client):
        assert await get_json(client, f"{CATALOG}/models/our-bert") == made
        assert await get_json(client, f"{CATALOG}/models/OUR%20bert") == made
        assert (await get_json(client, f"{CATALOG}/models"))["items"][-1] == made
        assert "our-poems" in [entry["id"] for entry in (await get_json(client, f"{CATALOG}/datasets"))["items"]]
        near = await get_json(client, f"{CATALOG}/models/our-brt", status=404)
        assert "our-bert" in near["near"]
        await post_json(client, f"{CATALOG}/models", MODEL, status=401)
        assert await delete(client, "models/our-bert") == 401
    with acting_as(client, await sign_in(client, STRANGER)):
        assert await delete(client, "models/our-bert") == 403
    assert await delete(client, "datasets/our-bert") == 404
    assert await delete(client, "models/our-bert") == 204
    assert await delete(client, "models/our-bert") == 404
    assert await delete(client, "models/%00") == 404
    await get_json(client, f"{CATALOG}/models/our-bert", status=404)


async def test_an_operator_deletes_what_others_have_added_but_not_what_came_with_cotrain(tmp_path: Path) -> None:
    operators = SignInSection(operators=(f"eip155:1:{STRANGER.address}",))
    async with coordinator_client(settings_for(tmp_path, config=CoordinatorConfig(sign_in=operators))) as client:
        await add(client, MODEL)
        with acting_as(client, await sign_in(client, STRANGER)):
            assert await delete(client, "models/bert-fa") == 409
            assert await delete(client, "models/our-bert") == 204


@BOTH
async def test_pages_hold_those_that_came_with_cotrain_and_then_the_others(client: Client) -> None:
    for name in ("c", "a", "b"):
        await add(client, DATASET, id=f"own-{name}", name=name)
    whole = [entry["id"] for entry in (await get_json(client, f"{CATALOG}/datasets"))["items"]]
    assert (len(whole), whole[-3:]) == (11, ["own-a", "own-b", "own-c"])
    for limit in (1, 3, 8, 11):
        found, cursor = [], ""
        while cursor is not None:
            page = await get_json(client, f"{CATALOG}/datasets?limit={limit}" + (f"&cursor={cursor}" if cursor else ""))
            assert 1 <= len(page["items"]) <= limit
            found += [entry["id"] for entry in page["items"]]
            cursor = page["nextCursor"]
        assert found == whole


@BOTH
async def test_a_repeated_request_adds_once_and_two_at_once_clash(client: Client) -> None:
    answers = []
    for _ in range(2):
        async with client.post(f"{CATALOG}/models", json=MODEL, headers={"Idempotency-Key": "k"}) as response:
            answers.append((response.status, await response.json()))
    assert answers[0] == answers[1]
    assert answers[0][0] == 201

    async def racing() -> int:
        async with client.post(f"{CATALOG}/datasets", json=DATASET) as response:
            return response.status

    assert sorted(await asyncio.gather(racing(), racing(), racing())) == [201, 409, 409]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": "bert-fa"}, "id"), ({"name": "BERT persian"}, "name"), ({"name": "bert-fa"}, "name"),
        ({"name": "taken "}, "name"), ({"id": "taken"}, "id"), ({"id": "in-the-folder"}, "id"),
    ],
)  # fmt: skip
async def test_a_name_that_means_something_already_is_a_conflict(
    client: Client, tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    folder(tmp_path, "models/in-the-folder")
    await add(client, MODEL, id="taken", name="Taken")
    problem = await add(client, MODEL, status=409, **changes)
    assert problem["field"] == field
    assert "another" in problem["hint"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"huggingFaceId": None}, "path"), ({"path": "here"}, "path"), ({"huggingFaceId": "none"}, "huggingFaceId"),
        ({"huggingFaceId": "a/.."}, "huggingFaceId"), ({"huggingFaceId": "a/b..c"}, "huggingFaceId"),
        ({"id": "Our BERT"}, "id"), ({"id": "../x"}, "id"), ({"name": "our/bert"}, "name"), ({"name": " x"}, "name"),
        ({"name": "a\0"}, "name"), ({"name": ""}, "name"), ({"sizeBytes": 2**63}, "sizeBytes"),
        ({"sizeBytes": 0}, "sizeBytes"), ({"type": "gpt5"}, "type"), ({"licence": ""}, "licence"),
        ({"language": "Farsi"}, "language"),
        ({"verified": True}, "verified"), ({"owner": "me"}, "owner"),
        *(({"huggingFaceId": None, "path": path}, "path") for path in WRONG_PATHS),
    ],
)  # fmt: skip
async def test_wrong_entries_are_refused_with_their_field(
    client: Client, tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    models = folder(tmp_path, "models/here").parent
    (models / "a-file").touch()
    (models / "leads-out").symlink_to("/etc")
    problem = await add(client, MODEL, status=422, **changes)
    assert problem["field"] == field
    assert str(tmp_path) not in str(problem)
    assert len((await get_json(client, f"{CATALOG}/models"))["items"]) == 5


async def test_an_account_has_so_many_entries_and_no_more(tmp_path: Path) -> None:
    limits = CoordinatorConfig(limits=LimitsSection(catalog_entries_per_account=2))
    async with coordinator_client(settings_for(tmp_path, config=limits)) as client:
        await add(client, MODEL)
        await add(client, DATASET)
        assert (await add(client, DATASET, status=429, id="third", name="Third"))["code"] == "rate-limited"
        with acting_as(client, await sign_in(client, STRANGER)):
            await add(client, DATASET, id="third", name="Third")
        assert await delete(client, "models/our-bert") == 204
        await add(client, MODEL)


# ------------------------------------------------------------------------------------------------- in requests
@BOTH
async def test_a_session_goes_on_from_what_a_name_stood_for(client: Client, tmp_path: Path) -> None:
    folder(tmp_path, "models/own/bert")
    await add(client, MODEL, huggingFaceId=None, path="./own/bert")
    await add(client, MODEL, id="our-teacher", name="Our Teacher", huggingFaceId="our/teacher")
    config = await config_of(
        client, model={"source": "our bert"}, training={"task": "masked-lm", "enableDistillation": True},
        distillation={"teacher": "our-teacher"}, data={"tokenizer": "our-bert"},
    )  # fmt: skip
    assert (config.model.source, config.distillation.teacher, config.data.tokenizer) == (
        "own/bert", "our/teacher", "own/bert",
    )  # fmt: skip


async def test_a_dataset_brings_its_columns_and_spelling(client: Client, tmp_path: Path) -> None:
    folder(tmp_path, "datasets/poems/2026")
    await add(
        client, DATASET, huggingFaceId=None, path="poems/2026", normalization="persian", task="text-classification",
        fields={"text": "verse", "label": "poet"},
    )  # fmt: skip
    task = {"task": "text-classification"}
    data = (await config_of(client, data={"dataset": "Our Poems"}, training=task)).data
    assert (data.dataset, data.data_path, data.normalization) == (None, "poems/2026", "persian")
    assert (data.fields.text, data.fields.label) == ("verse", "poet")
    asked = {"dataset": "our-poems", "normalization": "none", "fields": {"label": "author"}}
    data = (await config_of(client, data=asked, training=task)).data
    assert (data.normalization, data.fields.text, data.fields.label) == ("none", "verse", "author")


async def test_a_dataset_that_came_with_cotrain_keeps_its_columns(client: Client) -> None:
    data = (await config_of(client, data={"dataset": "farstail"}, training={"task": "text-classification"})).data
    assert (data.dataset, data.normalization) == ("farstail", "persian")
    assert (data.fields.text, data.fields.pair, data.fields.label) == ("premise", "hypothesis", "label")


async def test_previews_know_what_was_added_and_tell_near_names(client: Client) -> None:
    await add(client, MODEL)
    await add(client, DATASET)
    body = {"name": "x", "model": {"source": "our-bert"}, "training": {"task": "masked-lm"}}
    with anonymous(client):
        found = await post_json(client, PREVIEW, body)
        wrong = await post_json(client, PREVIEW, {"name": "x", "data": {"dataset": "our-pomes"}}, status=422)
        wrong_model = await post_json(client, PREVIEW, {**body, "model": {"source": "our-brt"}}, status=422)
    assert parse_config(found["config"]).model.source == "our/bert"
    assert found["estimate"]["parameters"] == 420_000_000 // 4
    assert any("could not be verified" in advice["message"] for advice in found["advice"])
    assert (wrong["field"], wrong["near"][0]) == ("data.dataset", "our-poems")
    assert "our-bert" in wrong_model["near"]
    await delete(client, "models/our-bert")
    await post_json(client, PREVIEW, body, status=422)


@pytest.mark.parametrize(
    "fields", [{"distillation": {"teacher": "x" * 300}}, {"data": {"tokenizer": "bytes"}, "model": {"size": "nano"}}]
)
async def test_what_is_not_used_is_left_as_it_is(client: Client, fields: dict[str, Any]) -> None:
    await add(client, MODEL, id="bytes", name="Bytes")
    config = await config_of(client, **fields)
    assert config.distillation.teacher == fields.get("distillation", {}).get("teacher")
    assert config.data.tokenizer == fields.get("data", {}).get("tokenizer")


async def test_nobody_can_attach_anything_to_a_hub_id_or_a_folder(client: Client, tmp_path: Path) -> None:
    await add(client, DATASET, huggingFaceId="others/poems", fields={"text": "lies"})
    data = (await config_of(client, data={"dataset": "others/poems"})).data
    assert (data.dataset, data.fields.text) == ("others/poems", "text")
    await add(client, MODEL, id="later")
    folder(tmp_path, "models/later")
    config = await config_of(client, model={"source": "later"}, training={"task": "masked-lm"})
    assert config.model.source == "later"
