"""What private sessions made, over real HTTP: for strangers there is none of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.databases import BOTH
from tests.integration.coordinator_fixtures import (
    STRANGER,
    Client,
    acting_as,
    anonymous,
    client,
    get_json,
    post_json,
    sign_in,
)
from tests.integration.registry_fixtures import MODELS, SESSIONS, exported, finished_session

__all__ = ["client", "exported"]


async def answers(client: Client, model: str, **headers: str) -> list[tuple[int, dict[str, Any]]]:
    """What there is to be read about a model and its first version: status, and what is said of a failure."""
    found = []
    for part in ("", "/versions/1", "/versions/7", "/download", "/versions/1/download"):
        async with client.get(f"{MODELS}/{model}{part}", headers=headers) as response:
            problem = await response.json(content_type=None) if response.status >= 400 else {}
            found.append((response.status, {**problem, "instance": "", "requestId": ""}))
    async with client.get(f"{MODELS}/compare?ids={model},{model}:1", headers=headers) as response:
        problem = await response.json(content_type=None) if response.status >= 400 else {}
        found.append((response.status, {**problem, "instance": "", "requestId": ""}))
    return found


def statuses(found: list[tuple[int, dict[str, Any]]]) -> list[int]:
    return [status for status, _ in found]


CATALOG = "/api/v1/catalog"
ALL_SEEN = [200, 200, 404, 200, 200, 200]


@BOTH
async def test_to_strangers_there_is_no_model_that_private_sessions_made(
    client: Client, tmp_path: Path, exported: Path
) -> None:
    """The owner asks first: nothing that was kept for his answers reaches a stranger, neither while the session is
    there nor when it has been deleted.
    """
    session = await finished_session(client, tmp_path, exported, visibility="private")
    other = await sign_in(client, STRANGER)
    for left in (True, False):
        assert statuses(await answers(client, "Poems")) == ALL_SEEN
        assert (await get_json(client, f"{SESSIONS}/{session}", status=200 if left else 404)) is not None
        for token in (None, other, "y" * 43):
            with acting_as(client, token):
                nowhere = await answers(client, "nobody")
                assert statuses(nowhere) == [404] * 6
                assert [await answers(client, name) for name in ("Poems", session)] == [nowhere, nowhere]
                assert (await get_json(client, MODELS))["items"] == []
                await get_json(client, f"{SESSIONS}/{session}", status=404)
        assert [one["id"] for one in (await get_json(client, MODELS))["items"]] == [session]
        with acting_as(client, other):
            expected = await post_json(client, f"{MODELS}/nobody/versions/1/pin", status=404)
            found = await post_json(client, f"{MODELS}/Poems/versions/1/pin", status=404)
            assert found | {"instance": "", "requestId": ""} == expected | {"instance": "", "requestId": ""}
        if left:
            async with client.delete(f"{SESSIONS}/{session}") as response:
                assert response.status == 204


@BOTH
async def test_of_one_model_strangers_see_the_public_versions(client: Client, tmp_path: Path, exported: Path) -> None:
    await finished_session(client, tmp_path, exported)
    await finished_session(client, tmp_path, None, visibility="private")
    assert (await get_json(client, f"{MODELS}/Poems"))["versions"] == 2
    with anonymous(client):
        found = await get_json(client, f"{MODELS}/Poems")
        assert (found["versions"], found["newest"]["version"]) == (1, 1)
        assert [one["version"] for one in found["items"]] == [1]
        await get_json(client, f"{MODELS}/Poems/versions/2", status=404)
        compared = await get_json(client, f"{MODELS}/compare?ids=Poems,Poems:1")
        assert [one["version"] for one in compared["versions"]] == [1]
        assert (await get_json(client, f"{MODELS}/compare?ids=Poems,Poems:2", status=404))["field"] == "version"


@BOTH
async def test_who_may_see_a_private_session_sees_what_it_made(
    client: Client, tmp_path: Path, exported: Path
) -> None:  # fmt: skip
    session = await finished_session(client, tmp_path, exported, visibility="private")
    path = f"{SESSIONS}/{session}/invitations"
    token = (await post_json(client, path, {}, status=201))["token"]
    with anonymous(client):
        assert statuses(await answers(client, "Poems", **{"Cotrain-Invitation": token})) == ALL_SEEN
    other = await sign_in(client, STRANGER)
    with acting_as(client, other):
        assert statuses(await answers(client, "Poems")) == [404] * 6
    await post_json(client, path, {"wallet": f"eip155:1:{STRANGER.address}"}, status=201)
    with acting_as(client, other):
        assert statuses(await answers(client, "Poems")) == ALL_SEEN
        assert (await post_json(client, f"{MODELS}/Poems/versions/1/pin", status=403))["code"] == "forbidden"


@BOTH
async def test_strangers_start_nothing_from_what_a_private_session_made(
    client: Client, tmp_path: Path, exported: Path
) -> None:
    session = await finished_session(client, tmp_path, exported, visibility="private")

    def wanted(source: str) -> dict[str, Any]:
        return {"name": "a copy", "model": {"source": source}, "training": {"task": "causal-lm"}}

    def entry(path: str) -> dict[str, Any]:
        return {"id": "mine", "name": "Mine", "type": "llama3", "path": path}

    sources = [f"final/{session}", f"x/../final/{session}", f"final/{session}/../{session}"]
    await post_json(client, "/api/v1/configs/preview", wanted(sources[0]))
    with acting_as(client, await sign_in(client, STRANGER)):
        missing = await post_json(client, SESSIONS, wanted("final/nothing"), status=422)
        nowhere = await post_json(client, f"{CATALOG}/models", entry("final/nothing"), status=422)
        for source in sources:
            for path in (SESSIONS, "/api/v1/configs/preview"):
                problem = await post_json(client, path, wanted(source), status=422)
                assert (problem["field"], problem["code"]) == (missing["field"], missing["code"])
                assert problem["detail"].replace(source, "") == missing["detail"].replace("final/nothing", "")
            problem = await post_json(client, f"{CATALOG}/models", entry(source), status=422)
            assert (problem["field"], problem["detail"]) == (nowhere["field"], nowhere["detail"])
    await post_json(client, SESSIONS, wanted(sources[0]), status=201)


@BOTH
async def test_strangers_train_on_nothing_that_became_of_chats_with_a_private_model(
    client: Client, tmp_path: Path, exported: Path
) -> None:
    hidden = await finished_session(client, tmp_path, exported, visibility="private")
    public = await finished_session(client, tmp_path, exported, name="Songs")
    datasets = tmp_path / "datasets"
    for model in (hidden, public):
        version = datasets / "learned" / model / "v000001"
        version.mkdir(parents=True)
        (version / "train.jsonl").write_text('{"text": "what somebody has said"}')
    (datasets / "away").symlink_to(datasets / "learned" / hidden)

    def wanted(path: str) -> dict[str, Any]:
        return {"name": "a copy", "data": {"dataPath": path}}

    async def refused(path: str) -> None:
        for where in (SESSIONS, "/api/v1/configs/preview"):
            problem = await post_json(client, where, wanted(path), status=422)
            assert (problem["field"], problem["detail"]) == ("data.dataPath", f"there is no data {path}")
        job = await post_json(client, f"{MODELS}/Songs/evaluate", {"dataPath": path}, status=422)
        assert (job["field"], job["detail"]) == ("dataPath", f"there is no data {path}")
        entry = {"id": "mine", "name": "Mine", "task": "causal-lm", "path": path}
        problem = await post_json(client, f"{CATALOG}/datasets", entry, status=422)
        assert (problem["field"], problem["detail"]) == ("path", "there is no such file or folder")

    everybodys = [".", "learned", "learned/nobody", "learned/../learned"]
    for path in everybodys:
        await refused(path)
    await post_json(client, SESSIONS, wanted(f"learned/{hidden}/v000001"), status=201)
    with acting_as(client, await sign_in(client, STRANGER)):
        for path in [*everybodys, f"learned/{hidden}", f"learned/{hidden}/v000001/train.jsonl", "away", "away/v000001"]:
            await refused(path)
        await post_json(client, SESSIONS, wanted(f"learned/{public}/v000001"), status=201)
        await post_json(client, SESSIONS, wanted("comes/later"), status=201)
