"""What arrives from many uplinks at once: committed together, acknowledged after the commit, each judged alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event, select

from coordinator.models import EventRow, LogRow, ParticipantRow, RunRow
from coordinator.store import events_after
from coordinator.uplinks import Uplink
from cotrain.errors import NotFoundError
from cotrain.protocol import StatusMessage
from cotrain.status import Record, now
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import (
    LIMIT_S,
    Client,
    client,
    coordinator_client,
    create_session,
    get_json,
    post_json,
    services,
    settings_for,
    state_of,
    status_of,
    until,
    waiting_session,
)

__all__ = ["client"]

SESSIONS = "/api/v1/sessions"
UPLINKS = 40


async def uplinks_of(client: Client, session: str, count: int) -> list[Uplink]:
    """Connected participants, without their sockets."""
    async with services(client).store.write() as transaction:
        for number in range(count):
            transaction.rows.add(
                ParticipantRow(
                    id=f"{session}-{number}", session_id=session, peer_id=f"peer-{number}", name="", hardware={},
                    token_sha256="", state="joining", created_at=now(),
                )
            )  # fmt: skip
    links = [Uplink(f"{session}-{number}") for number in range(count)]
    for link in links:
        services(client).uplinks.connect(session, link)
    return links


def message(session: str, seq: int, *, records: int = 0, first: int = 1) -> StatusMessage:
    listed = [
        Record(number=number, time=now(), kind="log", message=f"record {number}")
        for number in range(first, first + records)
    ]
    status = status_of(session, "peer", sequence=seq, records=listed, loss=float(seq))
    return StatusMessage(run=status.run, seq=seq, status=status)


@contextlib.contextmanager
def counted_commits(client: Client) -> Iterator[list[object]]:
    """One entry for each commit of a write."""
    found: list[object] = []
    note, engine = found.append, services(client).store._database.writing.sync_engine
    event.listen(engine, "commit", note)
    try:
        yield found
    finally:
        event.remove(engine, "commit", note)


async def applied(client: Client, uplink: Uplink) -> int:
    async with services(client).store.read() as rows:
        found = await rows.scalar(select(RunRow.applied_seq).where(RunRow.source == uplink.participant))
    return found or 0


@BOTH
async def test_many_uplinks_share_commits_and_each_is_answered_after_its_own(client: Client) -> None:
    session = await waiting_session(client)
    links = await uplinks_of(client, session, UPLINKS)
    ingest = services(client).ingest

    async def send(link: Uplink) -> None:
        for seq in (1, 2, 3):
            answer = await ingest.participant_messages(session, link, [message(session, seq, records=2, first=2 * seq)])
            assert answer == {"run-1": seq}
            assert await applied(client, link) >= seq  # another connection sees it: it is committed

    with counted_commits(client) as commits:
        await asyncio.gather(*(send(link) for link in links))
    assert len(commits) < 3 * UPLINKS / 2
    assert await state_of(client, session) == "training"
    async with services(client).store.read() as rows:
        stored = await events_after(rows, session, 0, 1000)
        logs = list(await rows.scalars(select(LogRow).where(LogRow.session_id == session).order_by(LogRow.id)))
    assert [entry.seq for entry in stored] == list(range(1, len(stored) + 1))
    for link in links:
        assert [row.number for row in logs if row.source == link.participant] == [2, 3, 4, 5, 6, 7]
        told = [e.data["number"] for e in stored if e.type == "training.log" and e.data["source"] == link.participant]
        assert told == [2, 3, 4, 5, 6, 7]
        assert link.status is not None
        assert link.status.loss == 3.0
    page = await get_json(client, f"{SESSIONS}/{session}/participants?limit=200")
    assert {item["state"] for item in page["items"]} == {"online"}


@BOTH
async def test_what_cannot_be_stored_fails_alone(client: Client) -> None:
    session, gone = await waiting_session(client), await create_session(client)
    links = await uplinks_of(client, session, 3)
    ghost = Uplink("ghost")
    async with client.delete(f"{SESSIONS}/{gone}") as response:
        assert response.status == 204
    ingest = services(client).ingest
    unstorable = message(session, 1).model_copy(update={"seq": 2**63})  # what checks every message would refuse it
    results = await asyncio.gather(
        ingest.participant_messages(session, links[0], [message(session, 1)]),
        ingest.participant_messages(session, links[1], [unstorable]),
        ingest.participant_messages(gone, ghost, [message(gone, 1)]),
        ingest.participant_messages(session, links[2], [message(session, 5), message(session, 4)]),
        return_exceptions=True,
    )
    assert results[0] == {"run-1": 1}
    assert isinstance(results[1], Exception)
    assert isinstance(results[2], NotFoundError)
    assert results[3] == {"run-1": 5}
    assert [await applied(client, link) for link in links] == [1, 0, 5]


async def test_who_gives_up_waiting_harms_nobody(client: Client) -> None:
    session = await waiting_session(client)
    links = await uplinks_of(client, session, 2)
    ingest = services(client).ingest
    tasks = [asyncio.create_task(ingest.participant_messages(session, link, [message(session, 1)])) for link in links]
    await asyncio.sleep(0)
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert await tasks[1] == {"run-1": 1}


async def test_the_progress_of_many_sessions_shares_commits(client: Client) -> None:
    sessions = [await create_session(client, f"S {number}") for number in range(12)]
    pump = services(client).pump

    async def told() -> bool:
        query = select(EventRow.session_id).where(EventRow.type == "training.progress").distinct()
        async with services(client).store.read() as rows:
            return set(await rows.scalars(query)) == set(sessions)

    with counted_commits(client) as commits:
        for session in sessions:
            pump.mark(session)
        await until(told)
    assert len(commits) <= 3


async def test_progress_of_a_deleted_session_stops_nobody_elses(tmp_path: Path) -> None:
    async with coordinator_client(settings_for(tmp_path, progress_interval_s=0.05)) as client:
        gone, other = await create_session(client), await waiting_session(client)
        (await client.delete(f"{SESSIONS}/{gone}")).close()
        services(client).pump.mark(gone)
        services(client).pump.mark(other)
        async with client.ws_connect(f"{SESSIONS}/{other}/events?after=0") as socket:
            kinds = []
            while "training.progress" not in kinds:
                kinds.append((await socket.receive_json(timeout=LIMIT_S))["type"])
        assert await post_json(client, f"{SESSIONS}/{other}/pause")
