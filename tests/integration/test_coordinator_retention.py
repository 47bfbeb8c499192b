"""What of models and trainings stays on disk, and what is removed, over real HTTP."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch

from coordinator.checkpointer_messages import Following
from coordinator.config import CoordinatorConfig, ModelsSection
from coordinator.models import SessionRow
from cotrain.paths import SharedPaths
from cotrain.train.checkpoint import CheckpointStore, outer_counters, outer_tensors
from cotrain.train.diloco import OuterState
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import (
    STRANGER,
    Client,
    acting_as,
    anonymous,
    client,
    coordinator_client,
    create_session,
    get_json,
    post_json,
    services,
    settings_for,
    sign_in,
    until,
    until_state,
    waiting_session,
)
from tests.integration.registry_fixtures import (
    KEY,
    MODELS,
    SESSIONS,
    downloaded,
    exported,
    finished_session,
    report,
    weights_of,
)

__all__ = ["client", "exported"]


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
