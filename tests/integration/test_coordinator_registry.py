"""The registry of models over real HTTP: what sessions make, compared, downloaded."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import zipfile
from pathlib import Path

import aiohttp
import pytest
import torch
from sqlalchemy import delete, func, select
from transformers import AutoModelForCausalLM, AutoTokenizer

from coordinator.checkpointer_messages import Following, Saved
from coordinator.database import URL_VARIABLE
from coordinator.model_rows import ModelRow, ModelVersionRow
from cotrain.paths import SharedPaths
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import (
    STRANGER,
    WALLET,
    Client,
    acting_as,
    bearer,
    client,
    coordinator_client,
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
from tests.integration.registry_fixtures import (
    KEY,
    MODELS,
    SESSIONS,
    downloaded,
    evaluation,
    exported,
    finished_session,
    report,
    weights_of,
)
from tests.integration.test_coordinator_restart import serving, wait_for_status

__all__ = ["client", "exported"]


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


async def test_many_reports_of_one_model_make_one_version(client: Client, tmp_path: Path, exported: Path) -> None:
    session = await waiting_session(client)
    final = shutil.copytree(exported, SharedPaths(tmp_path).final_model(session))
    await asyncio.gather(*(report(client, Saved(session=session, path=str(final), round=1)) for _ in range(5)))
    assert await versions_stored(client) == 1
