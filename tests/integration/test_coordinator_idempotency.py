"""`Idempotency-Key` over real HTTP, on both databases: done once, answered again, also when two come at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from coordinator.idempotency import KEPT_S
from coordinator.models import CertificateRow, EventRow, IdempotencyRow, SessionRow
from cotrain.status import now
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import (
    PEER_ID,
    STRANGER,
    WALLET,
    Client,
    acting_as,
    client,
    coordinator_client,
    create_session,
    get_json,
    make_peer,
    post_json,
    registration,
    services,
    settings_for,
    sign_in,
    until_state,
    uplink,
    waiting_session,
    welcomed,
)

__all__ = ["client"]

SESSIONS = "/api/v1/sessions"
Answered = tuple[int, dict[str, Any]]


async def post(client: Client, path: str, body: Any = None, *, key: str) -> Answered:
    async with client.post(path, json=body, headers={"Idempotency-Key": key}) as response:
        return response.status, await response.json()


async def count(client: Client, table: Any) -> int:
    async with services(client).store.read() as rows:
        return await rows.scalar(select(func.count()).select_from(table)) or 0


@BOTH
async def test_the_same_request_is_done_once_also_when_many_come_at_once(client: Client) -> None:
    body = {"name": "once", "training": {"batchSize": 4}}
    answers = await asyncio.gather(*(post(client, SESSIONS, body, key="k") for _ in range(8)))
    assert answers == [answers[0]] * 8
    assert answers[0][0] == 201
    assert await post(client, SESSIONS, body, key="k") == answers[0]
    assert await count(client, SessionRow) == await count(client, EventRow) == await count(client, IdempotencyRow) == 1
    async with client.post(SESSIONS, json=body, headers={"Idempotency-Key": "k"}) as response:
        assert response.headers["Location"] == f"{SESSIONS}/{answers[0][1]['id']}"


@BOTH
async def test_two_coordinators_on_one_database_do_it_once(client: Client, database_url: str, tmp_path: Path) -> None:
    async with coordinator_client(settings_for(tmp_path / "other", database_url=database_url)) as other:
        answers = await asyncio.gather(*(post(c, SESSIONS, {"name": "x"}, key="k") for c in (client, other) * 4))
    assert answers == [answers[0]] * 8
    assert await count(client, SessionRow) == 1


@BOTH
async def test_an_action_is_done_once_and_its_answer_stays(client: Client) -> None:
    session = await create_session(client)
    path = f"{SESSIONS}/{session}/start"
    answers = await asyncio.gather(*(post(client, path, key="k") for _ in range(5)))
    assert answers == [answers[0]] * 5
    assert (answers[0][0], answers[0][1]["status"]) == (200, "pending")
    await until_state(client, session, "waiting")
    assert await post(client, path, key="k") == answers[0]
    status, problem = await post(client, path, key="another")
    assert (status, problem["code"]) == (409, "conflict")


@BOTH
async def test_a_registration_is_done_once_and_its_token_is_not_in_the_database(client: Client) -> None:
    session = await waiting_session(client)
    path, body = f"{SESSIONS}/{session}/participants", registration(session)
    answers = await asyncio.gather(*(post(client, path, body, key="k") for _ in range(5)))
    assert answers == [answers[0]] * 5
    status, answer = answers[0]
    assert status == 201
    assert await count(client, CertificateRow) == 1
    page = await get_json(client, path)
    assert [item["peerId"] for item in page["items"]] == [PEER_ID]
    async with uplink(client, answer) as socket:
        await welcomed(socket)
    async with services(client).store.read() as rows:
        kept = (await rows.scalars(select(IdempotencyRow.answer))).one()
    assert answer["token"] not in kept
    assert session not in kept
    with acting_as(client, await sign_in(client, WALLET)):
        status, problem = await post(client, path, body, key="k")
    assert (status, problem["code"], problem["field"]) == (409, "conflict", "Idempotency-Key")
    assert answer["token"] not in str(problem)


async def test_a_key_is_for_one_request(client: Client) -> None:
    status, _ = await post(client, SESSIONS, {"name": "x"}, key="k")
    assert status == 201
    for path, body in ((SESSIONS, {"name": "y"}), (f"{SESSIONS}/{await create_session(client)}/start", {"name": "x"})):
        status, problem = await post(client, path, body, key="k")
        assert (status, problem["code"], problem["field"]) == (422, "invalid-request", "Idempotency-Key")
        assert "key of its own" in problem["hint"]


async def test_a_key_is_its_accounts_own(client: Client) -> None:
    _, mine = await post(client, SESSIONS, {"name": "x"}, key="k")
    with acting_as(client, await sign_in(client, STRANGER)):
        status, theirs = await post(client, SESSIONS, {"name": "x"}, key="k")
        assert status == 201
        assert theirs["id"] != mine["id"]
        path = f"{SESSIONS}/{mine['id']}/start"
        assert (await post(client, path, key="new"))[0] == 403
    assert (await post(client, path, key="new"))[0] == 200


async def test_another_sign_in_of_the_account_is_answered_too(client: Client) -> None:
    first = await post(client, SESSIONS, {"name": "x"}, key="k")
    with acting_as(client, await sign_in(client, WALLET)):
        assert await post(client, SESSIONS, {"name": "x"}, key="k") == first


async def test_an_error_is_not_kept(client: Client) -> None:
    session = await create_session(client)
    path = f"{SESSIONS}/{session}/pause"
    assert (await post(client, path, key="k"))[0] == 409
    assert await count(client, IdempotencyRow) == 0
    await post_json(client, f"{SESSIONS}/{session}/start")
    await until_state(client, session, "waiting")
    assert (await post(client, path, key="k"))[0] == 200


async def test_an_answer_is_kept_for_a_day(client: Client) -> None:
    async def grow_older(seconds: float) -> None:
        async with services(client).store.write() as transaction:
            await transaction.rows.execute(
                update(IdempotencyRow).values(created_at=IdempotencyRow.created_at - seconds)
            )

    first = await post(client, SESSIONS, {"name": "x"}, key="k")
    await grow_older(KEPT_S - 60.0)
    assert await post(client, SESSIONS, {"name": "x"}, key="k") == first
    await grow_older(60.0)
    status, second = await post(client, SESSIONS, {"name": "x"}, key="k")
    assert status == 201
    assert second["id"] != first[1]["id"]
    async with services(client).store.read() as rows:
        (kept,) = (await rows.scalars(select(IdempotencyRow.created_at))).all()
    assert kept > now() - 60.0


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 201])
async def test_a_key_that_is_none_is_refused(client: Client, key: str) -> None:
    status, problem = await post(client, SESSIONS, {"name": "x"}, key=key)
    assert (status, problem["field"]) == (422, "Idempotency-Key")
    assert await count(client, SessionRow) == 0


@BOTH
async def test_participants_are_listed_in_pages(client: Client) -> None:
    session = await waiting_session(client)
    path = f"{SESSIONS}/{session}/participants"
    peers = [make_peer(f"page-{number}") for number in range(3)]
    for peer in peers:
        await post_json(client, path, registration(session, peer=peer), status=201)
    listed: list[str] = []
    cursor = ""
    while True:
        page = await get_json(client, f"{path}?limit=2{cursor}")
        listed += [item["peerId"] for item in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert listed == [peer.peer_id for peer in peers]
