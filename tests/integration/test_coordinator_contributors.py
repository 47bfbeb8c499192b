"""Who gave how much, over real HTTP: summed up by wallet over the sessions that the reader may see."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from coordinator.contributors import SessionShare, totals
from coordinator.models import ContributionRow, ParticipantRow, SessionRow
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import Client, client, create_session, get_json, services

__all__ = ["client"]

CONTRIBUTORS = "/api/v1/contributors"


async def give(client: Client, session: str, participant: str, account: str, samples: int, **more: Any) -> None:
    """A participant of this wallet with credit for so many samples, in two rounds."""
    async with services(client).store.write() as transaction:
        transaction.rows.add(
            ParticipantRow(
                id=participant, session_id=session, peer_id=f"peer-{participant}", account=account,
                name=more.pop("name", ""), hardware={}, token_sha256="", state="offline", created_at=1.0, **more,
            )
        )  # fmt: skip
        await transaction.rows.flush()
        transaction.rows.add(
            ContributionRow(participant_id=participant, session_id=session, samples=samples, rounds=2)
        )  # fmt: skip


async def listed(client: Client, query: str = "") -> list[tuple[str, int, int | None]]:
    items = (await get_json(client, f"{CONTRIBUTORS}{query}"))["items"]
    return [(one["account"], one["samples"], one["tokens"]) for one in items]


@BOTH
async def test_what_wallets_gave_is_added_up_over_their_peers_and_sessions(client: Client) -> None:
    tales = await create_session(client, "Tales", data={"seqLength": 10})
    answers = await create_session(
        client,
        "Answers",
        model={"type": "bert"},
        training={"task": "text-classification"},
        data={"dataset": "farstail"},
    )
    await give(client, tales, "p1", "eip155:1:0xa", 5, name="Ada")
    await give(client, tales, "p2", "eip155:1:0xa", 6, name="Ada")
    await give(client, answers, "p3", "eip155:1:0xa", 7, name="attic")
    await give(client, tales, "p4", "eip155:1:0xb", 100)
    await give(client, tales, "p5", "eip155:1:0xc", 1000, removed_at=5.0)
    (first, second) = (await get_json(client, CONTRIBUTORS))["items"]
    assert (first["account"], first["samples"], first["tokens"]) == ("eip155:1:0xb", 100, 1000)
    assert {key: second[key] for key in ("names", "samples", "rounds", "tokens", "sessionCount")} == {
        "names": ["Ada", "attic"], "samples": 18, "rounds": 6, "tokens": 110, "sessionCount": 2,
    }  # fmt: skip
    assert second["sessions"] == [
        {"id": tales, "name": "Tales", "samples": 11, "rounds": 4, "tokens": 110},
        {"id": answers, "name": "Answers", "samples": 7, "rounds": 2, "tokens": None},
    ]
    assert await listed(client, f"?session={answers}") == [("eip155:1:0xa", 7, None)]


@BOTH
async def test_pages_go_on_where_the_one_before_ended(client: Client) -> None:
    session = await create_session(client)
    for number, samples in enumerate((30, 20, 20, 10)):
        await give(client, session, f"p{number}", f"eip155:1:0x{number}", samples)
    first = await get_json(client, f"{CONTRIBUTORS}?limit=2")
    assert [one["account"][-1] for one in first["items"]] == ["0", "1"]
    second = await get_json(client, f"{CONTRIBUTORS}?limit=2&cursor={first['nextCursor']}")
    assert [one["account"][-1] for one in second["items"]] == ["2", "3"]
    assert second["nextCursor"] is None


async def test_a_private_session_counts_for_those_who_may_see_it(client: Client) -> None:
    session = await create_session(client)
    await give(client, session, "p1", "eip155:1:0xa", 5)
    async with services(client).store.write() as transaction:
        await transaction.rows.execute(
            update(SessionRow).where(SessionRow.id == session).values(visibility="private", owner="eip155:1:0xd")
        )
    assert await listed(client) == []
    hidden = await get_json(client, f"{CONTRIBUTORS}?session={session}", status=404)
    unknown = await get_json(client, f"{CONTRIBUTORS}?session=nobody-knows-it", status=404)
    assert hidden["detail"] == unknown["detail"]


@pytest.mark.parametrize("query", ["?limit=0", "?cursor=x", "?session=A%20B"])
async def test_wrong_parameters_are_named(client: Client, query: str) -> None:
    problem = await get_json(client, f"{CONTRIBUTORS}{query}", status=422)
    assert problem["field"] == query[1:].partition("=")[0]


def test_of_many_sessions_those_with_the_most_are_listed_and_all_are_counted() -> None:
    shares = [SessionShare(id=f"s{n:03}", name="", samples=n, rounds=1, tokens=n * 2) for n in range(60)]
    found = totals("eip155:1:0xa", ["Ben", "", "Ada", "Ben"], shares)
    assert (found.session_count, len(found.sessions), found.sessions[0].id) == (60, 50, "s059")
    assert (found.samples, found.tokens, found.names) == (sum(range(60)), 2 * sum(range(60)), ["Ada", "Ben"])
