"""The REST API of a real coordinator."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from coordinator.api.requests import encode_cursor
from coordinator.models import MetricRow
from cotrain.paths import SharedPaths
from tests.databases import BOTH
from tests.integration.checkpointer_double import CONTENT
from tests.integration.coordinator_fixtures import (
    REPOSITORY,
    Client,
    client,
    commands,
    create_session,
    get_json,
    post_json,
    register,
    registration,
    services,
    until,
    until_state,
    waiting_session,
    write_checkpointer_status,
)

__all__ = ["client"]

SESSIONS = "/api/v1/sessions"


@BOTH
async def test_a_session_from_draft_to_stopped(client: Client, tmp_path: Path) -> None:
    session = await create_session(client, "Persian poems", description="verses")
    view = await get_json(client, f"{SESSIONS}/{session}")
    assert view["status"] == "draft"
    assert view["possibleActions"] == ["start", "cancel"]
    assert view["joinCommand"] == f"cotrain node join http://coordinator.test/s/{session}"
    assert session.startswith("persia-")
    assert len(session) == 12
    await post_json(client, f"{SESSIONS}/{session}/start")
    await until_state(client, session, "waiting")
    paused = await post_json(client, f"{SESSIONS}/{session}/pause")
    assert paused["status"] == "paused"
    assert (await post_json(client, f"{SESSIONS}/{session}/resume"))["status"] == "waiting"
    assert (await post_json(client, f"{SESSIONS}/{session}/stop"))["status"] == "stopping"
    await until_state(client, session, "stopped")
    assert commands(tmp_path) == [("follow", session), ("finish", session)]
    assert (await get_json(client, f"{SESSIONS}/{session}"))["modelPath"].endswith(session)


async def test_the_config_is_on_disk_and_has_an_etag(client: Client, tmp_path: Path) -> None:
    session = await create_session(client, training={"batchSize": 4})
    async with client.get(f"{SESSIONS}/{session}/config") as response:
        text, etag = await response.text(), response.headers["ETag"]
        assert response.content_type == "application/toml"
    assert tomllib.loads(text)["train"]["batch_size"] == 4
    assert SharedPaths(tmp_path).generated_config(session).read_text() == text
    async with client.get(f"{SESSIONS}/{session}/config", headers={"If-None-Match": etag}) as response:
        assert response.status == 304


@BOTH
async def test_progress_logs_and_metrics_come_from_the_checkpointer(client: Client, tmp_path: Path) -> None:
    session = await waiting_session(client)
    record = {"number": 1, "time": 5.0, "kind": "round", "message": "round 1", "data": {"round": 1}}
    evaluation = {
        "number": 2, "time": 6.0, "kind": "evaluation", "message": "evaluated",
        "data": {"round": 1, "validationLoss": 3.25},
    }  # fmt: skip
    common = {
        "round": 1,
        "samples_committed": 50,
        "samples_wanted": 200,
        "validation_loss": 3.25,
        "digest": "ab",
    }
    for sequence in (1, 2):  # the records come twice and count once
        write_checkpointer_status(tmp_path, session, sequence=sequence, records=[record, evaluation], **common)

        async def applied(sequence: int = sequence) -> bool:
            row = await services(client).sessions.row(session)
            return (row.checkpointer_status or {}).get("sequence") == sequence

        await until(applied)
    progress = await get_json(client, f"{SESSIONS}/{session}/progress")
    assert (progress["round"], progress["samplesCommitted"], progress["samplesWanted"]) == (1, 50, 200)
    assert progress["processRate"] == pytest.approx(5 + 93 * 0.25)
    points = (await get_json(client, f"{SESSIONS}/{session}/metrics"))["items"]
    assert [(p["round"], p["samples"], p["validationLoss"]) for p in points] == [(1, 50, 3.25)]
    first = await get_json(client, f"{SESSIONS}/{session}/logs?limit=1")
    assert [entry["number"] for entry in first["items"]] == [2]
    rest = await get_json(client, f"{SESSIONS}/{session}/logs?limit=1&cursor={first['nextCursor']}")
    assert [entry["number"] for entry in rest["items"]] == [1]
    assert rest["nextCursor"] is None
    page = await get_json(client, f"{SESSIONS}/{session}/participants")
    assert (page["checkpointer"]["digest"], page["checkpointer"]["round"]) == ("ab", 1)


@BOTH
async def test_metrics_of_some_rounds_are_thinned_to_what_is_asked_for(client: Client) -> None:
    session = await create_session(client)
    async with services(client).store.write() as transaction:
        transaction.rows.add_all(
            MetricRow(session_id=session, round=number, time=float(number), samples=number * 8, loss=2.0)
            for number in range(1, 101)
        )

    async def rounds(query: str) -> list[int]:
        page = await get_json(client, f"{SESSIONS}/{session}/metrics{query}")
        assert page["nextCursor"] is None
        return [point["round"] for point in page["items"]]

    assert await rounds("") == list(range(1, 101))
    assert await rounds("?from=90&to=95") == list(range(90, 96))
    assert await rounds("?points=1") == [100]
    assert await rounds("?from=11&to=51&points=5") == [11, 21, 31, 41, 51]
    assert await rounds("?from=200") == await rounds("?from=5&to=4") == []
    for query in ("?points=0", "?points=2001", "?from=-1", "?to=x"):
        problem = await get_json(client, f"{SESSIONS}/{session}/metrics{query}", status=422)
        assert problem["field"] == query[1:].partition("=")[0]


@BOTH
async def test_text_that_no_database_takes_does_no_harm(client: Client) -> None:
    await get_json(client, f"{SESSIONS}/a%00b", status=404)
    await get_json(client, f"{SESSIONS}/%00/participants", status=404)
    for wrong in ({"name": "a\x00b"}, {"name": "a", "description": "\x00"}):
        async with client.post(SESSIONS, json=wrong) as response:
            assert response.status == 422
            assert (await response.json(content_type=None))["field"] == list(wrong)[-1]


@BOTH
async def test_sessions_are_listed_in_pages(client: Client) -> None:
    made = [await create_session(client, f"s{i}") for i in range(5)]
    listed: list[str] = []
    cursor = ""
    while True:
        page = await get_json(client, f"{SESSIONS}?limit=2{cursor}")
        listed += [item["id"] for item in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert listed == made[::-1]


async def test_assets_are_served_by_content_and_in_ranges(client: Client) -> None:
    session = await waiting_session(client)
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    listed = (await get_json(client, f"{SESSIONS}/{session}/assets"))["items"]
    assert listed == [{"name": "train.safetensors", "sha256": sha256, "sizeBytes": len(CONTENT)}]
    path = f"{SESSIONS}/{session}/assets/{sha256}"
    async with client.get(path, headers={"Range": "bytes=995-"}) as response:
        assert response.status == 206
        assert await response.read() == CONTENT[995:]
    async with client.get(path, headers={"Range": "bytes=1000-"}) as response:
        assert (response.status, (await response.json(content_type=None))["status"]) == (416, 416)
    for no_range in ("bytes=9-1", "", "lines=1-2"):  # RFC 9110, 14.2: what is no range is not there
        async with client.get(path, headers={"Range": no_range}) as response:
            assert (response.status, await response.read()) == (200, CONTENT)
    await get_json(client, f"{SESSIONS}/{session}/assets/{'0' * 64}", status=404)


async def test_the_goal_completes_a_session(client: Client, tmp_path: Path) -> None:
    session = await waiting_session(client)
    (tmp_path / f"reached-{session}").touch()
    await until_state(client, session, "completed")
    assert (await get_json(client, f"{SESSIONS}/{session}"))["processRate"] == 100.0


async def test_a_failure_of_the_checkpointer_is_told(client: Client) -> None:
    session = await create_session(client, "broken")
    await post_json(client, f"{SESSIONS}/{session}/start")
    await until_state(client, session, "failed")
    assert "check data_path" in (await get_json(client, f"{SESSIONS}/{session}"))["errorMsg"]


async def test_cancel_releases_and_delete_removes(client: Client, tmp_path: Path) -> None:
    session = await waiting_session(client)
    async with client.delete(f"{SESSIONS}/{session}") as response:
        assert response.status == 409
        assert (await response.json(content_type=None))["possible"] == ["pause", "stop", "cancel"]
    await post_json(client, f"{SESSIONS}/{session}/cancel")
    await until(lambda: ("release", session) in commands(tmp_path))
    async with client.delete(f"{SESSIONS}/{session}") as response:
        assert response.status == 204
    await get_json(client, f"{SESSIONS}/{session}", status=404)
    assert not SharedPaths(tmp_path).generated_config(session).exists()


async def test_an_illegal_change_of_state_names_what_is_possible(client: Client) -> None:
    session = await create_session(client)
    problem = await post_json(client, f"{SESSIONS}/{session}/pause", status=409)
    assert (problem["code"], problem["state"], problem["possible"]) == (
        "conflict",
        "draft",
        ["start", "cancel"],
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"name": ', ""),
        ("[]", ""),
        ('{"name": "x", "training": {"learningRate": NaN}}', "training.learningRate"),
        ('{"name": "x", "training": {"batchSize": "32"}}', "training.batchSize"),
        ('{"name": "x", "training": {"batchSize": -1}}', "training.batchSize"),
        ('{"name": "x", "training": {"batchsize": 3}}', "training.batchsize"),
        ('{"name": "x", "model": {"type": "secret-word"}}', "model.type"),
        ("[" * 5000, ""),
    ],
)
async def test_wrong_bodies_are_explained_and_not_echoed(client: Client, body: str, field: str) -> None:
    headers = {"Content-Type": "application/json"}
    async with client.post(SESSIONS, data=body, headers=headers) as response:
        problem = await response.json(content_type=None)
        assert response.status == 422
        assert response.content_type == "application/problem+json"
        assert response.headers["X-Request-Id"] == problem["requestId"]
    assert problem["field"] == field
    assert problem["detail"]
    assert problem["errors"][0]["field"] == field
    assert "secret-word" not in str(problem)


async def test_sections_that_contradict_each_other_are_refused(client: Client) -> None:
    problem = await post_json(client, SESSIONS, {"name": "x", "distributed": {"nodes": 1, "minPeers": 2}}, status=422)
    assert "no round could ever close" in problem["detail"]


@BOTH
@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("POST", SESSIONS, {"data": "{}", "headers": {"Content-Type": "text/plain"}}, 415),
        ("POST", SESSIONS, {"json": {"name": "x" * 70_000}}, 413),
        ("PUT", SESSIONS, {}, 405),
        ("GET", f"{SESSIONS}/none", {}, 404),
        ("GET", "/nowhere", {}, 404),
        ("GET", f"{SESSIONS}?limit=0", {}, 422),
        ("GET", f"{SESSIONS}?limit=many", {}, 422),
        ("GET", f"{SESSIONS}?cursor=%00", {}, 422),
        ("GET", f"{SESSIONS}?cursor={encode_cursor([0.0, chr(0)])}", {}, 422),
        ("GET", f"/api/v1/catalog/models?cursor={encode_cursor(chr(0))}", {}, 422),
        ("GET", f"{SESSIONS}/%00", {}, 404),
        ("DELETE", f"{SESSIONS}/a/participants/%00", {}, 404),
        ("POST", "/api/v1/auth/login", {"json": {"nonce": chr(0), "signature": "0x"}}, 422),
        ("POST", f"{SESSIONS}/none/start", {"headers": {"Origin": "http://evil.test"}}, 403),
        ("GET", "/s/none", {}, 404),
    ],
)
async def test_wrong_requests_get_a_problem(
    client: Client, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    async with client.request(method, path, **options) as response:
        problem = await response.json(content_type=None)
        assert response.status == status, problem
        assert problem["status"] == status
        assert problem["requestId"]
        assert (status == 405) == ("Allow" in response.headers)


@pytest.mark.parametrize("number", [2**63, 10**400, -1])
async def test_a_cursor_beyond_what_a_database_holds_is_none(client: Client, number: int) -> None:
    session = await create_session(client)
    path = f"{SESSIONS}/{session}/logs?cursor={encode_cursor(number)}"
    assert (await get_json(client, path, status=422))["field"] == "cursor"


async def test_bytes_that_are_no_text_name_nothing(client: Client) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(b"GET /api/v1/sessions/\xff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert answer.split(b" ")[1] in (b"400", b"404"), answer[:200]


async def test_a_fault_of_ours_shows_no_trace(client: Client, tmp_path: Path) -> None:
    (tmp_path / "configs" / "generated").rename(tmp_path / "configs" / "away")
    problem = await post_json(client, SESSIONS, {"name": "x"}, status=500)
    assert problem["code"] == "internal"
    assert "Traceback" not in str(problem)
    assert str(tmp_path) not in str(problem)


async def test_pages_and_health(client: Client) -> None:
    assert (await get_json(client, "/healthz"))["status"] == "ok"
    assert (await get_json(client, "/readyz"))["checkpointer"] is True
    session = await create_session(client)
    async with client.get(f"/s/{session}", allow_redirects=False) as response:
        assert response.headers["Location"] == f"/#/s/{session}"
    for path in ("/", "/static/app.js", "/static/css/base.css", "/static/i18n/fa.json"):
        async with client.get(path) as response:
            assert response.status == 200
            assert "'unsafe-inline'" not in response.headers["Content-Security-Policy"]
            assert "script-src 'self'" in response.headers["Content-Security-Policy"]


async def test_registration(client: Client) -> None:
    session = await create_session(client)
    body = registration(session)
    path = f"{SESSIONS}/{session}/participants"
    assert (await post_json(client, path, body, status=409))["state"] == "draft"
    await post_json(client, f"{SESSIONS}/{session}/start")
    await until_state(client, session, "waiting")
    first, second = await register(client, session), await register(client, session)
    assert first["participant"] == second["participant"]
    assert first["token"] != second["token"]
    assert first["initialPeers"][0].startswith("/ip4/127.0.0.1/tcp/")
    assert tomllib.loads(first["config"])["session"]["id"] == session
    stale = {"Authorization": f"Bearer {first['token']}"}
    async with client.delete(f"{path}/{first['participant']}", headers=stale) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
    for expected in (204, 401):  # leaving ends the token
        headers = {"Authorization": f"Bearer {second['token']}"}
        async with client.delete(f"{path}/{first['participant']}", headers=headers) as response:
            assert response.status == expected
    problem = await post_json(client, path, {**body, "protocol": 99, "news": 1}, status=426)
    assert "pip install --upgrade cotrain" in problem["hint"]
    assert problem["code"] == "protocol"


async def test_registration_waits_for_the_checkpointer(client: Client) -> None:
    session = await waiting_session(client)
    services(client).checkpointer.ready = None
    path = f"{SESSIONS}/{session}/participants"
    async with client.post(path, json=registration(session)) as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == "2"


def test_the_application_loads_neither_torch_nor_hivemind() -> None:
    code = (
        "import sys, coordinator.app, coordinator.serve;"
        "import cotrain.learn.language, cotrain.learn.redaction;"  # which the chat log loads when it is needed
        "print([name for name in ('torch', 'hivemind', 'transformers', 'numpy', 'web3') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert result.stdout.strip() == "[]"
