"""The queue over real HTTP, on both databases: who starts when, why the others wait, and which sessions suit a node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from coordinator.config import CoordinatorConfig, QueueSection
from coordinator.database import URL_VARIABLE
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import (
    LIMIT_S,
    STRANGER,
    WALLET,
    Client,
    acting_as,
    bearer,
    commands,
    coordinator_client,
    create_session,
    get_json,
    make_peer,
    post_json,
    register,
    registration,
    settings_for,
    sign_in,
    state_of,
    until,
    until_state,
    uplink,
    waiting_session,
    welcomed,
)
from tests.integration.test_coordinator_restart import SESSIONS, serving

GIB = 2**30
BOOK = {"data": {"dataPath": "book.txt"}}
SHARED_BOOK = BOOK | {"schedule": {"allowSameDataset": True}}
GIANT = {"model": {"type": "llama3", "size": "70B"}}


@pytest.fixture
async def narrow(request: pytest.FixtureRequest, tmp_path: Path, database_url: str) -> AsyncIterator[Client]:
    """A coordinator with room for as many sessions as the test's parameter says: in all, of one account."""
    in_all, of_one = getattr(request, "param", (64, 64))
    queue = QueueSection(under_way=in_all, under_way_per_account=of_one, highest_priority=9)
    settings = settings_for(tmp_path, database_url=database_url, config=CoordinatorConfig(queue=queue))
    async with coordinator_client(settings) as client:
        yield client


def room(in_all: int, of_one: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("narrow", [(in_all, of_one)], indirect=True)


async def started(client: Client, name: str, **fields: Any) -> str:
    """A session whose start has been asked for."""
    session = await create_session(client, name, **fields)
    await act(client, session, "start")
    return session


async def act(client: Client, session: str, action: str) -> dict[str, Any]:
    return await post_json(client, f"{SESSIONS}/{session}/{action}")


async def waits_for(client: Client, session: str) -> str | None:
    """The code of what it waits for."""
    found = (await get_json(client, f"{SESSIONS}/{session}"))["waitingFor"]
    return found and str(found["code"])


def followed(root: Path) -> list[str]:
    """Sessions in the order in which the checkpointer was told to follow them."""
    return [session for operation, session in commands(root) if operation == "follow"]


# ---------------------------------------------------------------------------------------------- the queue
@BOTH
@room(1, 1)
async def test_the_next_one_starts_when_a_session_ends(narrow: Client, tmp_path: Path) -> None:
    first = await waiting_session(narrow, "first")
    second = await create_session(narrow, "second")
    answer = await act(narrow, second, "start")
    assert answer["status"] == "pending"
    assert answer["waitingFor"]["code"] == "owner-limit"
    assert "may have 1" in answer["waitingFor"]["message"]
    listed = (await get_json(narrow, SESSIONS))["items"]
    assert {item["id"]: item["waitingFor"]["code"] for item in listed} == {first: "peers", second: "owner-limit"}
    assert followed(tmp_path) == [first]
    body = registration(second)
    refusal = await post_json(narrow, f"{SESSIONS}/{second}/participants", body, status=503)
    assert "waits in the queue: its owner has 1 session" in refusal["detail"]

    await act(narrow, first, "cancel")
    await until_state(narrow, second, "waiting")
    assert await waits_for(narrow, second) == "peers"
    assert await waits_for(narrow, first) is None
    assert followed(tmp_path) == [first, second]


@BOTH
@room(1, 64)
async def test_a_finished_and_a_failed_session_let_the_next_one_start(narrow: Client, tmp_path: Path) -> None:
    first = await waiting_session(narrow, "first")
    broken, last = await started(narrow, "broken"), await started(narrow, "last")
    assert [await waits_for(narrow, session) for session in (broken, last)] == ["limit", "limit"]
    (tmp_path / f"reached-{first}").touch()
    await until_state(narrow, first, "completed")
    await until_state(narrow, broken, "failed")
    await until_state(narrow, last, "waiting")
    assert followed(tmp_path) == [first, broken, last]


@BOTH
@room(1, 64)
async def test_priority_goes_before_age(narrow: Client, tmp_path: Path) -> None:
    first = await waiting_session(narrow, "first")
    plain, urgent = await started(narrow, "plain"), await started(narrow, "urgent", schedule={"priority": 9})
    assert (await get_json(narrow, f"{SESSIONS}/{urgent}"))["priority"] == 9
    await act(narrow, first, "cancel")
    await until_state(narrow, urgent, "waiting")
    assert await state_of(narrow, plain) == "pending"
    await act(narrow, urgent, "stop")
    await until_state(narrow, plain, "waiting")
    assert followed(tmp_path) == [first, urgent, plain]


@BOTH
@room(2, 64)
async def test_an_owner_with_fewer_sessions_goes_before_one_who_asked_earlier(narrow: Client, tmp_path: Path) -> None:
    one, two = await waiting_session(narrow, "one"), await waiting_session(narrow, "two")
    mine = await started(narrow, "mine")
    with acting_as(narrow, await sign_in(narrow, STRANGER)):
        theirs = await started(narrow, "theirs")
    await act(narrow, one, "cancel")
    await until_state(narrow, theirs, "waiting")
    assert (await state_of(narrow, mine), await waits_for(narrow, mine)) == ("pending", "limit")
    assert followed(tmp_path) == [one, two, theirs]


@BOTH
async def test_one_session_at_a_time_on_a_dataset_unless_all_allow_it(narrow: Client, tmp_path: Path) -> None:
    first = await started(narrow, "first", **BOOK)
    second = await started(narrow, "second", **BOOK)
    found = await get_json(narrow, f"{SESSIONS}/{second}")
    assert (found["status"], found["waitingFor"]["code"]) == ("pending", "dataset")
    assert f"session {first} trains on the same data" in found["waitingFor"]["message"]
    third, fourth = [await started(narrow, name, **SHARED_BOOK) for name in ("third", "fourth")]
    other = await started(narrow, "other", data={"dataPath": "other.txt"})
    await until_state(narrow, other, "waiting")
    await until_state(narrow, first, "waiting")
    await act(narrow, first, "cancel")
    await until_state(narrow, second, "waiting")
    assert [await waits_for(narrow, session) for session in (third, fourth)] == ["dataset", "dataset"]
    await act(narrow, second, "cancel")
    for session in (third, fourth):
        await until_state(narrow, session, "waiting")
    assert followed(tmp_path) == [first, other, second, third, fourth]


@BOTH
@room(1, 64)
async def test_who_gives_up_in_the_queue_was_never_there_for_the_checkpointer(narrow: Client, tmp_path: Path) -> None:
    first = await waiting_session(narrow, "first")
    quitter, last = await started(narrow, "quitter"), await started(narrow, "last")
    assert (await act(narrow, quitter, "cancel"))["waitingFor"] is None
    async with narrow.delete(f"{SESSIONS}/{quitter}") as response:
        assert response.status == 204
    await act(narrow, first, "cancel")
    await until_state(narrow, last, "waiting")
    assert commands(tmp_path) == [("follow", first), ("release", first), ("follow", last)]


@BOTH
@room(1, 64)
async def test_a_wider_limit_counts_from_the_next_start_of_the_coordinator(
    narrow: Client, tmp_path: Path, database_url: str
) -> None:
    first, second = await waiting_session(narrow, "first"), await started(narrow, "second")
    await narrow.close()
    async with coordinator_client(settings_for(tmp_path, database_url=database_url)) as wide:
        await until_state(wide, second, "waiting")
        assert followed(tmp_path) == [first, first, second]


@BOTH
async def test_the_queue_outlives_a_kill_in_its_order(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, database_url)
    token, names = "", ("first", "plain", "urgent", "last")
    for kill in (True, False):
        with serving(tmp_path) as (process, url):
            async with aiohttp.ClientSession(url) as http:
                token = token or await sign_in(http, WALLET)
                http.headers["Authorization"] = bearer(token)
                if kill:
                    for name in names:
                        await _start(http, name, 9 if name == "urgent" else 5)
                    await _until_status(http, "first", "waiting")
                    process.kill()
                    process.wait(LIMIT_S)
                    continue
                ids = {item["name"]: item["id"] for item in await _listed(http)}
                codes = {item["name"]: item["waitingFor"]["code"] for item in await _listed(http)}
                assert {codes[name] for name in names[1:]} == {"dataset"}
                for ending, beginning in (("first", "urgent"), ("urgent", "plain"), ("plain", "last")):
                    async with http.post(f"{SESSIONS}/{ids[ending]}/cancel") as response:
                        assert response.status == 200, await response.text()
                    await _until_status(http, beginning, "waiting")
    assert followed(tmp_path) == [ids[name] for name in ("first", "first", "urgent", "plain", "last")]


async def _start(http: aiohttp.ClientSession, name: str, priority: int) -> None:
    body = {"name": name, "schedule": {"priority": priority}, **BOOK}
    async with http.post(SESSIONS, json=body) as response:
        assert response.status == 201, await response.text()
        session = (await response.json())["id"]
    async with http.post(f"{SESSIONS}/{session}/start") as response:
        assert response.status == 200, await response.text()


async def _listed(http: aiohttp.ClientSession) -> list[dict[str, Any]]:
    async with http.get(SESSIONS) as response:
        return list((await response.json())["items"])


async def _until_status(http: aiohttp.ClientSession, name: str, status: str) -> None:
    async def reached() -> bool:
        return any((item["name"], item["status"]) == (name, status) for item in await _listed(http))

    await until(reached)


# ---------------------------------------------------------------------------------------------- sessions and nodes
async def offered(client: Client, query: str = "") -> list[tuple[str, int]]:
    """Name and missing peers of the open sessions, in order."""
    items = (await get_json(client, f"{SESSIONS}/open{query}"))["items"]
    return [(item["name"], item["missingPeers"]) for item in items]


@BOTH
async def test_open_sessions_are_offered_to_nodes_that_are_large_enough_the_best_first(narrow: Client) -> None:
    draft = await create_session(narrow, "draft")
    two = {"distributed": {"nodes": 2, "minPeers": 2}}
    ids = {
        name: await started(narrow, name, **fields)
        for name, fields in {"pair": two, "single": {}, "giant": GIANT, "urgent": {"schedule": {"priority": 6}}}.items()
    }
    for session in ids.values():
        await until_state(narrow, session, "waiting")
    assert await offered(narrow) == [("urgent", 1), ("single", 1), ("giant", 1), ("pair", 2)]
    assert await offered(narrow, f"?memoryBytes={8 * GIB}") == [("urgent", 1), ("single", 1), ("pair", 2)]
    assert await offered(narrow, f"?memoryBytes={8 * GIB}&limit=1") == [("urgent", 1)]
    assert await offered(narrow, "?memoryBytes=1") == []
    await get_json(narrow, f"{SESSIONS}/open?memoryBytes=many", status=422)

    answer = await register(narrow, ids["urgent"])
    async with uplink(narrow, answer) as socket:
        await welcomed(socket)
        assert (await offered(narrow, f"?memoryBytes={8 * GIB}"))[-1] == ("urgent", 0)
        assert await waits_for(narrow, ids["urgent"]) == "joining"
    pair = await get_json(narrow, f"{SESSIONS}/{ids['pair']}")
    assert pair["waitingFor"] == {"code": "peers", "message": "2 nodes are needed, 0 are here"}
    assert 0 < pair["memoryBytes"] < 8 * GIB
    assert await waits_for(narrow, draft) is None
    await act(narrow, ids["single"], "pause")
    assert "single" not in dict(await offered(narrow))


@BOTH
async def test_a_node_that_is_too_small_is_told_how_much_it_needs(narrow: Client) -> None:
    session = await started(narrow, "giant", **GIANT)
    await until_state(narrow, session, "waiting")
    body = registration(session)
    body["hardware"]["memoryBytes"] = 8 * GIB
    path = f"{SESSIONS}/{session}/participants"
    refusal = await post_json(narrow, path, body, status=409)
    assert (refusal["code"], refusal["field"]) == ("conflict", "hardware")
    assert "one of 8.0 GiB can give 7.2 GiB" in refusal["detail"]
    assert f"/api/v1/sessions/open?memoryBytes={8 * GIB}" in refusal["hint"]
    assert (await get_json(narrow, path))["items"] == []
    # the wallet's statement has not been used up
    body["hardware"]["memoryBytes"] = 2**46
    await post_json(narrow, path, body, status=201)
    for wrong in (-1, 2**63, 1.5, "8 GB"):
        body["hardware"]["memoryBytes"] = wrong
        await post_json(narrow, path, body, status=422)


@BOTH
async def test_whoever_asks_for_more_than_any_node_has_is_told_so_before(narrow: Client) -> None:
    session = await waiting_session(narrow)
    for number in range(2):
        body = registration(session, peer=make_peer(f"queue-{number}"))
        body["hardware"]["memoryBytes"] = 8 * GIB
        await post_json(narrow, f"{SESSIONS}/{session}/participants", body, status=201)
    giant = {"name": "giant", **GIANT}
    previewed = await post_json(narrow, "/api/v1/configs/preview", giant)
    opened = await post_json(narrow, SESSIONS, giant, status=201)
    for answer in (previewed, opened):
        (advice,) = [item for item in answer["advice"] if "no node that has been here" in item["message"]]
        assert "one of 8.0 GiB" in advice["message"]
        assert advice["field"] == "model"
    small = await post_json(narrow, "/api/v1/configs/preview", {"name": "small"})
    assert not [item for item in small["advice"] if "no node" in item["message"]]


@pytest.mark.parametrize(
    ("schedule", "field"),
    [({"priority": 10}, "schedule.priority"), ({"priority": -1}, "schedule.priority"),
     ({"allowSameDataset": "yes"}, "schedule.allowSameDataset"), ({"minPeers": 2}, "schedule.minPeers")],
)  # fmt: skip
async def test_a_wrong_schedule_is_named(narrow: Client, schedule: dict[str, Any], field: str) -> None:
    answer = await post_json(narrow, SESSIONS, {"name": "n", "schedule": schedule}, status=422)
    assert answer["field"] == field


@BOTH
@room(2, 64)
async def test_many_starts_at_once_exceed_no_limit(narrow: Client, tmp_path: Path) -> None:
    sessions = [await create_session(narrow, f"n{number}") for number in range(6)]
    await asyncio.gather(*(act(narrow, session, "start") for session in sessions))
    await until(lambda: len(followed(tmp_path)) == 2)
    codes = [await waits_for(narrow, session) for session in sessions]
    assert sorted(filter(None, codes)).count("limit") == 4
