"""The registry of models over real HTTP: what sessions make, compared, kept, downloaded; what is cleaned up."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import os
import shutil
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import torch
from sqlalchemy import delete, func, select
from transformers import AutoModelForCausalLM, AutoTokenizer

from coordinator.checkpointer_messages import Following, Saved
from coordinator.config import CoordinatorConfig, ModelsSection
from coordinator.database import URL_VARIABLE
from coordinator.model_rows import ModelRow, ModelVersionRow
from coordinator.models import SessionRow
from cotrain.paths import SharedPaths
from cotrain.sections import ModelSection
from cotrain.train.checkpoint import CheckpointStore, export_model, outer_counters, outer_tensors
from cotrain.train.diloco import OuterState
from cotrain.train.model import build_model
from cotrain.train.spec import DataSpec
from cotrain.train.tokenizer import byte_tokenizer
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import (
    STRANGER,
    WALLET,
    Client,
    acting_as,
    anonymous,
    bearer,
    client,
    coordinator_client,
    create_session,
    get_json,
    post_json,
    register,
    services,
    settings_for,
    sign_in,
    status_message,
    until,
    until_state,
    uplink,
    waiting_session,
    welcomed,
    write_checkpointer_status,
)
from tests.integration.test_coordinator_restart import serving, wait_for_status

__all__ = ["client"]

SESSIONS = "/api/v1/sessions"
MODELS = "/api/v1/models"
KEY = "ab" * 32


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model as the checkpointer saves it."""
    folder = tmp_path_factory.mktemp("exported") / "final"
    model = build_model(ModelSection(), DataSpec(task="causal-lm", vocab_size=256, seq_length=32), seed=0)
    export_model(model, byte_tokenizer(), folder)
    return folder


def evaluation(round_: int, loss: float) -> dict[str, Any]:
    data = {"round": round_, "samples": 8 * round_, "validationLoss": loss, "targets": 100, "accuracy": 0.25}
    return {"number": round_, "time": 5.0, "kind": "evaluation", "message": "evaluated", "data": data}


async def finished_session(client: Client, root: Path, exported: Path | None, **wanted: Any) -> str:
    """A session that has reached its goal, with a final model on disk if there is one to copy."""
    session = await create_session(client, **({"name": "Poems"} | wanted))
    await post_json(client, f"{SESSIONS}/{session}/start")
    await until_state(client, session, "waiting")
    if exported is not None:
        shutil.copytree(exported, SharedPaths(root).final_model(session))
    (root / f"reached-{session}").touch()
    await until_state(client, session, "completed")
    return session


async def report(client: Client, message: Following | Saved) -> None:
    """What the checkpointer would say."""
    await services(client).sessions.on_report(message)


async def downloaded(client: Client, path: str) -> bytes:
    async with client.get(path) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "application/zip"
        return await response.read()


def weights_of(archive: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        return opened.read("model.safetensors")


# ------------------------------------------------------------------------------------------------- versions
@BOTH
async def test_a_finished_session_makes_a_version_that_says_how_it_came_about(
    client: Client, tmp_path: Path, exported: Path
) -> None:
    session = await waiting_session(client, "Persian poems")
    async with uplink(client, await register(client, session)) as socket:
        await welcomed(socket)
        await socket.send_str(status_message(session, 1, tokens=1234))
        await until_state(client, session, "training")
    final = SharedPaths(tmp_path).final_model(session)
    shutil.copytree(exported, final)
    await report(client, Following(session=session, assets=[], asset_folder="", data_key=KEY))
    # the round that was saved is not the last one that was evaluated: the run stopped early
    records = [evaluation(2, 2.5), evaluation(3, 2.75)]
    write_checkpointer_status(tmp_path, session, sequence=9, parameters=7, round=3, records=records)
    await report(client, Saved(session=session, path=str(final), round=2))
    (model,) = (await get_json(client, MODELS))["items"]
    assert (model["name"], model["versions"]) == ("Persian poems", 1)
    account = (await get_json(client, "/api/v1/auth/me"))["account"]
    assert model["owner"] == account
    version = model["newest"]
    assert (version["version"], version["sessionId"], version["round"], version["parameters"]) == (1, session, 2, 7)
    assert version["evaluation"]["metrics"] == {"validationLoss": 2.5, "accuracy": 0.25}
    assert (version["dataFingerprint"], version["available"], version["pinned"]) == (KEY, True, False)
    (contributor,) = version["contributors"]
    assert contributor == {
        "account": account, "names": ["volunteer"], "peers": 1, "samples": 0, "rounds": 0, "tokens": 1234,
    }  # fmt: skip
    assert version["uncreditedRounds"] == 3
    assert version["sizeBytes"] == sum(path.stat().st_size for path in final.iterdir())
    detail = await get_json(client, f"{MODELS}/{model['id']}/versions/1")
    async with client.get(f"{SESSIONS}/{session}/config") as response:
        assert detail["config"] == await response.text()


@BOTH
async def test_sessions_of_one_name_make_versions_of_one_model_and_never_of_anothers(
    client: Client, tmp_path: Path, exported: Path
) -> None:
    first = await finished_session(client, tmp_path, exported)
    second = await finished_session(client, tmp_path, exported)
    with acting_as(client, await sign_in(client, STRANGER)):
        third = await finished_session(client, tmp_path, exported)
    models = (await get_json(client, MODELS))["items"]
    assert [(model["name"], model["versions"]) for model in models] == [
        (f"Poems ({STRANGER.address[-8:]})", 1), ("Poems", 2),
    ]  # fmt: skip
    assert models[0]["newest"]["sessionId"] == third
    found = await get_json(client, f"{MODELS}/Poems?limit=1")
    assert [(one["version"], one["sessionId"]) for one in found["items"]] == [(2, second)]
    rest = await get_json(client, f"{MODELS}/{found['id']}?limit=1&cursor={found['nextCursor']}")
    assert [(one["version"], one["sessionId"]) for one in rest["items"]] == [(1, first)]
    assert rest["nextCursor"] is None
    page = await get_json(client, f"{MODELS}?limit=1")
    assert len((await get_json(client, f"{MODELS}?limit=1&cursor={page['nextCursor']}"))["items"]) == 1


@BOTH
async def test_a_version_outlives_its_session(client: Client, tmp_path: Path, exported: Path) -> None:
    session = await finished_session(client, tmp_path, exported)
    async with client.delete(f"{SESSIONS}/{session}") as response:
        assert response.status == 204
    (version,) = (await get_json(client, f"{MODELS}/Poems"))["items"]
    assert (version["sessionId"], version["available"]) == (None, True)
    assert weights_of(await downloaded(client, f"{MODELS}/Poems/download"))


async def test_a_model_that_is_not_there_makes_a_version_without_files(client: Client, tmp_path: Path) -> None:
    await finished_session(client, tmp_path, None)
    (version,) = (await get_json(client, f"{MODELS}/Poems"))["items"]
    assert (version["available"], version["sizeBytes"], version["evaluation"]) == (False, 0, None)
    await get_json(client, f"{MODELS}/Poems/versions/1/download", status=404)


async def test_a_cancelled_session_makes_none(client: Client, tmp_path: Path) -> None:
    session = await waiting_session(client)
    await post_json(client, f"{SESSIONS}/{session}/cancel")
    await report(client, Saved(session=session, path=str(SharedPaths(tmp_path).final_model(session))))
    assert (await get_json(client, MODELS))["items"] == []


async def versions_stored(client: Client) -> int:
    async with services(client).store.read() as rows:
        return await rows.scalar(select(func.count()).select_from(ModelVersionRow)) or 0


@BOTH
async def test_a_saved_model_from_before_the_registry_gets_one_version(
    tmp_path: Path, database_url: str, exported: Path
) -> None:
    settings = settings_for(tmp_path, database_url=database_url)
    async with coordinator_client(settings) as client:
        session = await finished_session(client, tmp_path, exported)
        async with services(client).store.write() as transaction:
            await transaction.rows.execute(delete(ModelVersionRow))
            await transaction.rows.execute(delete(ModelRow))
    for _ in range(2):
        async with coordinator_client(settings) as client:
            (version,) = (await get_json(client, f"{MODELS}/Poems"))["items"]
            assert (version["version"], version["sessionId"], version["available"]) == (1, session, True)
            assert await versions_stored(client) == 1


@BOTH
async def test_killed_while_a_model_is_saved_there_is_one_version(
    tmp_path: Path, database_url: str, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, database_url)
    with serving(tmp_path) as (process, url):
        async with aiohttp.ClientSession() as http:
            http.headers["Authorization"] = bearer(await sign_in(http, WALLET, base=url))
            async with http.post(f"{url}{SESSIONS}", json={"name": "Poems"}) as response:
                session = (await response.json())["id"]
            await (await http.post(f"{url}{SESSIONS}/{session}/start")).read()
            await wait_for_status(http, url, session, "waiting")
            shutil.copytree(exported, SharedPaths(tmp_path).final_model(session))
            await (await http.post(f"{url}{SESSIONS}/{session}/stop")).read()
            process.kill()
    for _ in range(2):
        with serving(tmp_path) as (process, url):
            async with aiohttp.ClientSession() as http:
                await wait_for_status(http, url, session, "stopped")
                async with http.get(f"{url}{MODELS}/Poems") as response:
                    (version,) = (await response.json())["items"]
                assert (version["version"], version["sessionId"], version["available"]) == (1, session, True)
            process.kill()


# ------------------------------------------------------------------------------------------------- comparison
@BOTH
async def test_versions_are_compared_by_reference(client: Client, tmp_path: Path, exported: Path) -> None:
    for name, loss in (("one", 2.5), ("two", 2.0)):
        session = await waiting_session(client, name)
        final = SharedPaths(tmp_path).final_model(session)
        shutil.copytree(exported, final)
        await report(client, Following(session=session, assets=[], asset_folder="", data_key=KEY))
        write_checkpointer_status(tmp_path, session, sequence=9, records=[evaluation(3, loss)])
        await report(client, Saved(session=session, path=str(final), round=3))
    first, second = [(await get_json(client, f"{MODELS}/{name}"))["id"] for name in ("one", "two")]
    answer = await get_json(client, f"{MODELS}/compare?ids=one,{second}:1")
    loss = next(one for one in answer["metrics"] if one["metric"] == "validationLoss")
    assert (loss["best"], loss["better"], loss["notComparable"]) == ([f"{second}:1"], "lower", "")
    assert loss["differences"] == {f"{first}:1": 0.0, f"{second}:1": -0.5}
    assert [version["model"] for version in answer["versions"]] == [first, second]


@pytest.mark.parametrize(("query", "status"), [
    ("", 422), ("?ids=", 422), ("?ids=one", 422), ("?ids=one,", 422), ("?ids=" + ",".join("abcdefghijk"), 422),
    ("?ids=one,two", 404), ("?ids=%00,one", 404),
])  # fmt: skip
async def test_what_cannot_be_compared_is_refused(client: Client, query: str, status: int) -> None:
    problem = await get_json(client, f"{MODELS}/compare{query}", status=status)
    assert problem["field"] == ("ids" if status == 422 else "model")


@BOTH
@pytest.mark.parametrize(
    "path", ["nobody", "%00", "nobody/versions/1", "nobody/versions/x", "nobody/download", "nobody?cursor=MA"]
)
async def test_unknown_models_are_404(client: Client, path: str) -> None:
    await get_json(client, f"{MODELS}/{path}", status=404)


async def test_a_cursor_of_another_list_is_refused(client: Client) -> None:
    for path in (f"{MODELS}?cursor=MA", f"{MODELS}/x?cursor=OTk5OTk5OTk5OTk5"):
        assert (await get_json(client, path, status=422))["field"] == "cursor"


# ------------------------------------------------------------------------------------------------- downloads
async def test_a_download_loads_with_transformers(client: Client, tmp_path: Path, exported: Path) -> None:
    await finished_session(client, tmp_path, exported)
    model = (await get_json(client, f"{MODELS}/Poems"))["id"]
    async with client.get(f"{MODELS}/Poems/versions/1/download") as response:
        assert response.headers["Content-Disposition"] == f'attachment; filename="{model}-1.zip"'
        archive = await response.read()
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        opened.extractall(tmp_path / "unzipped")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "unzipped", local_files_only=True)
    original = AutoModelForCausalLM.from_pretrained(exported, local_files_only=True)
    tokens = AutoTokenizer.from_pretrained(tmp_path / "unzipped", local_files_only=True)("x = 1", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(loaded(tokens.input_ids).logits, original(tokens.input_ids).logits)


async def test_without_a_version_number_the_newest_with_files_is_sent(
    client: Client, tmp_path: Path, exported: Path
) -> None:
    await finished_session(client, tmp_path, exported)
    await finished_session(client, tmp_path, None)
    archive = await downloaded(client, f"{MODELS}/Poems/download")
    assert weights_of(archive) == (exported / "model.safetensors").read_bytes()
    async with client.head(f"{MODELS}/Poems/download") as response:
        assert (response.status, response.content_type) == (200, "application/zip")


async def test_receivers_that_leave_keep_no_file_open(client: Client, tmp_path: Path, exported: Path) -> None:
    session = await finished_session(client, tmp_path, None)
    final = shutil.copytree(exported, SharedPaths(tmp_path).final_model(session))
    (final / "model.safetensors").write_bytes(bytes(64 * 2**20))
    async with services(client).store.write() as transaction:
        row = await transaction.rows.scalar(select(ModelVersionRow))
        assert row is not None
        row.path = f"models/final/{session}"

    def still_open() -> list[str]:
        links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
        return [link for link in links if str(final) in os.path.realpath(link)]

    for _ in range(8):  # more than there are threads for them
        response = await client.get(f"{MODELS}/Poems/download")
        await response.content.readexactly(1000)
        response.close()
    await until(lambda: still_open() == [])
    assert len(await downloaded(client, f"{MODELS}/Poems/download")) > 64 * 2**20


# ------------------------------------------------------------------------------------------------- retention
@pytest.fixture
async def frugal(tmp_path: Path, database_url: str) -> AsyncIterator[Client]:
    """A coordinator that keeps the files of one version."""
    config = CoordinatorConfig(models=ModelsSection(versions_kept=1))
    settings = dataclasses.replace(settings_for(tmp_path, database_url=database_url), config=config)
    async with coordinator_client(settings) as client:
        yield client


async def available(client: Client) -> list[int]:
    items = (await get_json(client, f"{MODELS}/Poems"))["items"]
    return sorted(one["version"] for one in items if one["available"])


async def until_available(client: Client, *versions: int) -> None:
    async def reached() -> bool:
        return await available(client) == list(versions)

    await until(reached)


@BOTH
async def test_older_versions_lose_their_files_and_stay_in_the_list(
    frugal: Client, tmp_path: Path, exported: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    finals = SharedPaths(tmp_path).final_models
    first = await finished_session(frugal, tmp_path, exported)
    second = await finished_session(frugal, tmp_path, exported)
    await until_available(frugal, 2)
    await until(lambda: [path.name for path in finals.iterdir()] == [second])
    assert len((await get_json(frugal, f"{MODELS}/Poems"))["items"]) == 2
    assert (await get_json(frugal, f"{MODELS}/Poems/versions/1/download", status=404))["code"] == "not-found"
    assert any(f"models/final/{first}" in record.message for record in caplog.records)
    problem = await post_json(frugal, f"{MODELS}/Poems/versions/1/pin", status=409)
    assert "have been removed" in problem["detail"]


@BOTH
async def test_pinned_versions_and_those_that_a_session_started_from_stay(
    frugal: Client, tmp_path: Path, exported: Path
) -> None:
    await finished_session(frugal, tmp_path, exported)
    assert (await post_json(frugal, f"{MODELS}/Poems/versions/1/pin"))["pinned"]
    second = await finished_session(frugal, tmp_path, exported)
    await create_session(frugal, "goes on", model={"source": f"final/{second}"}, training={"task": "causal-lm"})
    await finished_session(frugal, tmp_path, exported)
    await finished_session(frugal, tmp_path, exported)
    await until_available(frugal, 1, 2, 4)
    async with frugal.delete(f"{MODELS}/Poems/versions/1/pin") as response:
        assert (response.status, (await response.json())["pinned"]) == (200, False)
    assert [one.version for one in await services(frugal).retention.apply()] == [1]
    assert await available(frugal) == [2, 4]


async def test_only_the_owner_pins(client: Client, tmp_path: Path, exported: Path) -> None:
    await finished_session(client, tmp_path, exported)
    path = f"{MODELS}/Poems/versions/1/pin"
    with anonymous(client):
        await post_json(client, path, status=401)
    with acting_as(client, await sign_in(client, STRANGER)):
        assert (await post_json(client, path, status=403))["allowed"] == ["owner", "operator"]
    assert not (await get_json(client, f"{MODELS}/Poems"))["newest"]["pinned"]


async def test_what_a_killed_coordinator_had_set_aside_is_deleted(tmp_path: Path) -> None:
    left = SharedPaths(tmp_path).create().final_models / ".removed-0123456789abcdef"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"x")
    async with coordinator_client(settings_for(tmp_path)):
        await until(lambda: not left.exists())


# ------------------------------------------------------------------------------------------------- clean-up
def leave_behind(root: Path, session: str, key: str = KEY) -> list[Path]:
    """What a training puts into the data folder."""
    shared = SharedPaths(root)
    state = OuterState(torch.zeros(8), torch.zeros(8), round=2, samples=16, cursor=0)
    metadata = {"outer": outer_counters(state), "digest": state.digest()}
    CheckpointStore(shared.checkpoints / session).save(outer_tensors(state), metadata, validation_loss=2.5)
    folders = [shared.temporary_models / session, shared.temporary_models / f"{session}-assets"]
    folders.append(shared.processed_datasets / key)
    for folder in folders:
        folder.mkdir(exist_ok=True)
        (folder / "file").write_bytes(b"x")
    return [shared.checkpoints / session, *folders]


@BOTH
async def test_clean_up_removes_what_the_training_needed(client: Client, tmp_path: Path, exported: Path) -> None:
    session = await waiting_session(client)
    await report(client, Following(session=session, assets=[], asset_folder="", data_key=KEY))
    folders = leave_behind(tmp_path, session)
    (checkpoint,) = (await get_json(client, f"{SESSIONS}/{session}/checkpoints"))["items"]
    assert (checkpoint["round"], checkpoint["samples"], checkpoint["validationLoss"]) == (2, 16, 2.5)
    path = f"{SESSIONS}/{session}/training"
    async with client.delete(path) as response:
        assert (response.status, (await response.json())["state"]) == (409, "waiting")
    final = SharedPaths(tmp_path).final_model(session)
    shutil.copytree(exported, final)
    (tmp_path / f"reached-{session}").touch()
    await until_state(client, session, "completed")
    with anonymous(client):
        async with client.delete(path) as response:
            assert response.status == 401
    assert all(folder.exists() for folder in folders)
    for _ in range(2):  # nothing is left to do the second time
        async with client.delete(path) as response:
            assert response.status == 204
    assert not any(folder.exists() for folder in folders)
    assert list(SharedPaths(tmp_path).processed_datasets.iterdir()) == []
    assert (await get_json(client, f"{SESSIONS}/{session}/checkpoints"))["items"] == []
    assert (await get_json(client, f"{SESSIONS}/{session}/assets"))["items"] == []
    assert final.is_dir()
    assert weights_of(await downloaded(client, f"{MODELS}/A%20Test/download"))


@pytest.mark.parametrize("known", [True, False])
async def test_data_that_another_session_may_use_stays(client: Client, tmp_path: Path, known: bool) -> None:
    session, other = await waiting_session(client), await waiting_session(client, "other")
    for one, key in ((session, KEY), (other, KEY if known else "")):
        await report(client, Following(session=one, assets=[], asset_folder="", data_key=key))
    folders = leave_behind(tmp_path, session)
    for one, stays in ((session, True), (other, not known)):
        await post_json(client, f"{SESSIONS}/{one}/cancel")
        async with client.delete(f"{SESSIONS}/{one}/training") as response:
            assert response.status == 204
        assert folders[-1].exists() == stays
    assert not folders[0].exists()


async def test_deleting_a_session_leaves_nothing_that_nobody_could_remove(client: Client, tmp_path: Path) -> None:
    session = await waiting_session(client)
    folders = leave_behind(tmp_path, session)
    await post_json(client, f"{SESSIONS}/{session}/cancel")
    async with client.delete(f"{SESSIONS}/{session}") as response:
        assert response.status == 204
    assert not any(folder.exists() for folder in folders[:3])
    async with services(client).store.read() as rows:
        assert await rows.get(SessionRow, session) is None


async def test_many_reports_of_one_model_make_one_version(client: Client, tmp_path: Path, exported: Path) -> None:
    session = await waiting_session(client)
    final = shutil.copytree(exported, SharedPaths(tmp_path).final_model(session))
    await asyncio.gather(*(report(client, Saved(session=session, path=str(final), round=1)) for _ in range(5)))
    assert await versions_stored(client) == 1
