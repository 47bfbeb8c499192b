"""Saving and evaluating as jobs, over real HTTP: who may, what comes of them, and that they outlive a restart."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator.checkpointer_messages import Exported, Saved, SaveFailed
from coordinator.model_rows import ModelVersionRow
from cotrain.paths import SharedPaths
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import (
    STRANGER,
    Client,
    acting_as,
    anonymous,
    client,
    commands,
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
from tests.integration.registry_fixtures import exported

__all__ = ["client", "exported"]

SESSIONS = "/api/v1/sessions"
MODELS = "/api/v1/models"
JOBS = "/api/v1/jobs"


async def save(client: Client, session: str) -> str:
    async with client.post(f"{SESSIONS}/{session}/save") as response:
        assert response.status == 202, await response.text()
        view = await response.json()
        assert response.headers["Location"] == f"{JOBS}/{view['id']}"
    assert (view["kind"], view["sessionId"], view["asked"]) == ("save", session, None)
    return str(view["id"])


async def ended(client: Client, job: str, limit_s: float = 15.0) -> dict[str, Any]:
    """The job once it has ended."""
    found: dict[str, Any] = {}

    async def is_over() -> bool:
        found.update(await get_json(client, f"{JOBS}/{job}"))
        return found["status"] in ("completed", "failed")

    await until(is_over, limit_s)
    return found


async def report_to(client: Client, message: Exported | SaveFailed | Saved) -> None:
    """What the checkpointer would say."""
    coordinator = services(client)
    if isinstance(message, Saved):
        await coordinator.sessions.on_report(message)
    else:
        await coordinator.jobs.on_report(message)


# ------------------------------------------------------------------------------------------------------ saving
@BOTH
async def test_a_session_saved_in_the_middle_ends_with_two_versions(
    client: Client, tmp_path: Path, exported: Path
) -> None:
    session, shared = await waiting_session(client, "Poems"), SharedPaths(tmp_path)
    shutil.copytree(exported, shared.interim_model(session, 4))
    jobs = [await ended(client, await save(client, session)) for _ in range(2)]
    assert [(job["status"], job["version"], job["result"]) for job in jobs] == [("completed", 1, {"round": 4})] * 2
    assert (await get_json(client, f"{SESSIONS}/{session}"))["status"] == "waiting"
    shutil.copytree(exported, shared.final_model(session))
    await report_to(client, Saved(session=session, path=str(shared.final_model(session)), round=9))
    found = (await get_json(client, f"{MODELS}/Poems"))["items"]
    assert [(one["version"], one["round"], one["available"]) for one in found] == [(2, 9, True), (1, 4, True)]
    assert found[1]["evaluation"]["metrics"]["validationLoss"] == 3.5
    async with client.delete(f"{SESSIONS}/{session}/training") as response:
        assert response.status == 204
    async with client.get(f"{MODELS}/Poems/versions/1/download") as response:
        assert response.status == 200
    assert (await get_json(client, f"{JOBS}/{jobs[0]['id']}"))["model"] == found[0]["model"]


@BOTH
async def test_files_that_retention_has_removed_are_saved_again(client: Client, tmp_path: Path, exported: Path) -> None:
    session = await waiting_session(client, "Poems")
    folder = shutil.copytree(exported, SharedPaths(tmp_path).interim_model(session, 4))
    job = await ended(client, await save(client, session))
    async with services(client).store.write() as transaction:
        (await transaction.rows.get_one(ModelVersionRow, (job["model"], 1))).path = ""
    assert folder.is_dir()
    await ended(client, await save(client, session))
    (version,) = (await get_json(client, f"{MODELS}/Poems"))["items"]
    assert version["available"]


async def test_only_what_the_checkpointer_follows_is_saved(client: Client) -> None:
    session = await create_session(client)
    problem = await post_json(client, f"{SESSIONS}/{session}/save", status=409)
    assert (problem["state"], problem["possible"]) == ("draft", ["start", "cancel"])
    await post_json(client, f"{SESSIONS}/{session}/cancel")
    assert (await post_json(client, f"{SESSIONS}/{session}/save", status=409))["possible"] == []
    await post_json(client, f"{SESSIONS}/nothing/save", status=404)


@BOTH
async def test_jobs_are_their_accounts_and_the_owners(client: Client, tmp_path: Path) -> None:
    (tmp_path / "no-saves").touch()
    session = await waiting_session(client)
    mine = [await save(client, session) for _ in range(3)]
    page = await get_json(client, f"{JOBS}?session={session}&limit=2")
    rest = await get_json(client, f"{JOBS}?limit=2&cursor={page['nextCursor']}")
    assert sorted(one["id"] for one in page["items"] + rest["items"]) == sorted(mine)
    assert (rest["nextCursor"], {one["status"] for one in page["items"]}) == (None, {"queued"})
    assert (await get_json(client, f"{JOBS}?session=another"))["items"] == []
    assert (await get_json(client, f"{JOBS}?session=%00", status=422))["field"] == "session"
    with acting_as(client, await sign_in(client, STRANGER)):
        await post_json(client, f"{SESSIONS}/{session}/save", status=403)
        await get_json(client, f"{JOBS}/{mine[0]}", status=404)
        assert (await get_json(client, f"{JOBS}?session={session}"))["items"] == []
    with anonymous(client):
        for path in (f"{SESSIONS}/{session}/save", f"{MODELS}/Poems/evaluate"):
            await post_json(client, path, {}, status=401)
        for path in (JOBS, f"{JOBS}/{mine[0]}"):
            await get_json(client, path, status=401)


async def test_a_repeated_request_makes_one_job_and_too_many_are_refused(client: Client, tmp_path: Path) -> None:
    (tmp_path / "no-saves").touch()
    session = await waiting_session(client)
    ids = set()
    for _ in range(2):
        async with client.post(f"{SESSIONS}/{session}/save", headers={"Idempotency-Key": "one"}) as response:
            ids.add((await response.json())["id"])
    assert len(ids) == 1
    for _ in range(15):
        await save(client, session)
    assert "16 jobs" in (await post_json(client, f"{SESSIONS}/{session}/save", status=409))["detail"]


async def test_what_cannot_be_saved_fails_with_the_reason_and_the_session_goes_on(
    client: Client, tmp_path: Path
) -> None:
    (tmp_path / "no-saves").touch()
    session = await waiting_session(client)
    job = await save(client, session)
    await report_to(client, SaveFailed(session=session, job=job, message="the disk is full", hint="free some space"))
    view = await ended(client, job)
    assert (view["status"], view["message"], view["hint"]) == ("failed", "the disk is full", "free some space")
    assert (await get_json(client, f"{SESSIONS}/{session}"))["status"] == "waiting"


@BOTH
async def test_a_session_that_ends_first_fails_its_saves_and_keeps_no_files(
    client: Client, tmp_path: Path, exported: Path
) -> None:
    (tmp_path / "no-saves").touch()
    session, shared = await waiting_session(client), SharedPaths(tmp_path)
    job = await save(client, session)
    await post_json(client, f"{SESSIONS}/{session}/cancel")
    view = await ended(client, job)
    assert (view["status"], view["message"]) == ("failed", "the session was cancelled before its model could be saved")
    late = shutil.copytree(exported, shared.interim_model(session, 4))
    await report_to(client, Exported(session=session, job=job, path=str(late), round=4, evaluation={}))
    assert not late.exists()
    assert (await get_json(client, MODELS))["items"] == []
    async with client.delete(f"{SESSIONS}/{session}") as response:
        assert response.status == 204
    assert (await get_json(client, f"{JOBS}/{job}"))["sessionId"] is None


@BOTH
async def test_a_save_outlives_coordinator_and_checkpointer(tmp_path: Path, database_url: str, exported: Path) -> None:
    settings = settings_for(tmp_path, database_url=database_url)
    (tmp_path / "no-saves").touch()
    async with coordinator_client(settings) as client:
        session = await waiting_session(client, "Poems")
        job = await save(client, session)
        await until(lambda: ("save", session) in commands(tmp_path))
    (tmp_path / "no-saves").unlink()
    shutil.copytree(exported, SharedPaths(tmp_path).interim_model(session, 4))
    async with coordinator_client(settings) as client:
        assert (await ended(client, job))["version"] == 1
        (tmp_path / "no-saves").touch()
        other = await save(client, session)
        await until(lambda: commands(tmp_path)[-1] == ("save", session))
        (tmp_path / "no-saves").unlink()
        psutil.Process(int((tmp_path / "double.pid").read_text())).kill()
        assert (await ended(client, other))["version"] == 1


# -------------------------------------------------------------------------------------------------- evaluating
@pytest.fixture
def unread(tmp_path: Path) -> Path:
    """A model's folder with weights that nobody loads."""
    folder = tmp_path / "unread"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


async def model_of(client: Client, root: Path, files: Path, **fields: Any) -> str:
    """A finished session's model, by id."""
    session = await create_session(client, "Poems", **fields)
    await post_json(client, f"{SESSIONS}/{session}/start")
    await until_state(client, session, "waiting")
    shutil.copytree(files, SharedPaths(root).final_model(session))
    (root / f"reached-{session}").touch()
    await until_state(client, session, "completed")
    return str((await get_json(client, f"{MODELS}/Poems"))["id"])


async def ask(client: Client, model: str, **wanted: Any) -> str:
    async with client.post(f"{MODELS}/{model}/evaluate", json=wanted) as response:
        assert response.status == 202, await response.text()
        view = await response.json()
        assert response.headers["Location"] == f"{JOBS}/{view['id']}"
    assert view["status"] == "queued"
    return str(view["id"])


EVALUATOR = """
import json, os, sys, pathlib, time
task, shared = json.loads(sys.stdin.read()), pathlib.Path(sys.argv[2])
(shared / f"evaluating-{os.getpid()}").write_text(json.dumps(task))
while (shared / "hold").exists():
    time.sleep(0.02)
print("noise")
print(json.dumps({"outcome": "evaluated", "dataFingerprint": "ff", "targets": 7, "metrics": {"validationLoss": 2.5}}))
"""


def with_evaluator(root: Path, **changes: Any) -> Any:
    """Settings with a stand-in for the evaluation's process."""
    return settings_for(root, evaluation_command=(sys.executable, "-c", EVALUATOR), **changes)


def evaluators(root: Path) -> list[int]:
    """Process ids of all that were started."""
    return [int(path.name.partition("-")[2]) for path in root.glob("evaluating-*")]


@BOTH
async def test_an_evaluation_is_kept_with_the_job_and_the_version(
    tmp_path: Path, database_url: str, unread: Path
) -> None:
    async with coordinator_client(with_evaluator(tmp_path, database_url=database_url)) as client:
        model = await model_of(client, tmp_path, unread)
        view = await ended(client, await ask(client, "Poems", dataset="persian-poetry", batches=3))
        assert (view["status"], view["model"], view["version"]) == ("completed", model, 1), view
        assert view["asked"] == {
            "version": 1, "dataset": "persian-poetry", "dataPath": None, "seqLength": None, "split": "validation",
            "batches": 3,
        }  # fmt: skip
        assert view["result"]["metrics"] == {"validationLoss": 2.5}
        (version,) = (await get_json(client, f"{MODELS}/Poems"))["items"]
        assert (version["lastEvaluation"], version["evaluation"]) == (view["result"], None)


@BOTH
async def test_evaluations_run_one_at_a_time_end_with_the_coordinator_and_are_taken_up_again(
    tmp_path: Path, database_url: str, unread: Path
) -> None:
    settings = with_evaluator(tmp_path, database_url=database_url)
    (tmp_path / "hold").touch()
    async with coordinator_client(settings) as client:
        await model_of(client, tmp_path, unread)
        jobs = [await ask(client, "Poems") for _ in range(2)]
        await until(lambda: bool(evaluators(tmp_path)))
        states = [(await get_json(client, f"{JOBS}/{job}"))["status"] for job in jobs]
        assert states == ["running", "queued"]
        assert len(evaluators(tmp_path)) == 1
    (first,) = evaluators(tmp_path)
    assert not psutil.pid_exists(first)
    (tmp_path / "hold").unlink()
    async with coordinator_client(settings) as client:
        assert [(await ended(client, job))["status"] for job in jobs] == ["completed"] * 2
    assert len(evaluators(tmp_path)) == 3


async def test_what_cannot_be_evaluated_is_refused(client: Client, tmp_path: Path, unread: Path) -> None:
    await post_json(client, f"{MODELS}/nobody/evaluate", {}, status=404)
    model = await model_of(client, tmp_path, unread)
    await post_json(client, f"{MODELS}/{model}/evaluate", {"version": 2}, status=404)
    for wanted, field in (
        ({"dataset": "no such"}, "dataset"), ({"split": "test"}, "split"), ({"batches": 0}, "batches"),
        ({"batches": 1001}, "batches"), ({"other": 1}, "other"),
    ):  # fmt: skip
        assert (await post_json(client, f"{MODELS}/{model}/evaluate", wanted, status=422))["field"] == field
    async with services(client).store.write() as transaction:
        (await transaction.rows.get_one(ModelVersionRow, (model, 1))).path = ""
    await post_json(client, f"{MODELS}/{model}/evaluate", {"version": 1}, status=409)
    await post_json(client, f"{MODELS}/{model}/evaluate", {}, status=404)
