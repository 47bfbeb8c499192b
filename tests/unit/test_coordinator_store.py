"""The store, on both databases: schema, durability, order and atomicity of events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Connection, text, update
from sqlalchemy.exc import DBAPIError

from coordinator.appender import Appender
from coordinator.database import DatabaseError, open_database, parse_url
from coordinator.models import SessionRow
from coordinator.store import Store, events_after, last_seq
from cotrain.errors import ConfigError
from cotrain.protocol import Event
from tests.databases import BOTH, PostgresServer
from tests.integration.coordinator_fixtures import until


class Opened:
    """A store with one session, and what it has published."""

    def __init__(self, url: str):
        self.published: list[Event] = []
        self.store = Store(url, lambda _session, events: self.published.extend(events))


def session_row() -> SessionRow:
    texts = dict.fromkeys(("description", "config", "error_msg", "model_path", "asset_folder"), "")
    return SessionRow(id="s", name="n", state="draft", assets=[], created_at=0.0, updated_at=0.0, **texts)


@pytest.fixture
async def opened(database_url: str) -> AsyncIterator[Opened]:
    opened = Opened(database_url)
    await opened.store.migrate()
    async with opened.store.write() as transaction:
        transaction.rows.add(session_row())
    yield opened
    await opened.store.close()


@BOTH
async def test_migrating_twice_changes_nothing(opened: Opened) -> None:
    await opened.store.migrate()
    async with opened.store.read() as rows:
        assert await rows.get(SessionRow, "s") is not None


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 5000)],
)
async def test_pragmas(opened: Opened, pragma: str, value: object) -> None:
    async with opened.store.read() as rows:
        assert await rows.scalar(text(f"PRAGMA {pragma}")) == value


@BOTH
async def test_concurrent_writers_number_events_without_gaps_and_publish_in_order(opened: Opened) -> None:
    async def write(number: int) -> None:
        async with opened.store.write() as transaction:
            await transaction.emit("s", "training.log", {"number": number})

    await asyncio.gather(*(write(number) for number in range(20)))
    assert [event.seq for event in opened.published] == list(range(1, 21))
    async with opened.store.read() as rows:
        assert await events_after(rows, "s", 15, 3) == opened.published[15:18]
        assert await last_seq(rows, "s") == 20


@BOTH
async def test_what_fails_is_neither_stored_nor_published(opened: Opened) -> None:
    async def fail() -> None:
        async with opened.store.write() as transaction:
            await transaction.emit("s", "training.log", {})
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        await fail()
    assert opened.published == []
    async with opened.store.read() as rows:
        assert await last_seq(rows, "s") == 0


@BOTH
async def test_old_progress_is_pruned_and_nothing_else(opened: Opened) -> None:
    async with opened.store.write() as transaction:
        await transaction.emit("s", "session.state", {})
        for _ in range(2303):
            await transaction.emit("s", "training.progress", {})
    async with opened.store.read() as rows:
        kept = await events_after(rows, "s", 0, 5000)
    assert kept[0].type == "session.state"
    assert [event.seq for event in kept[1:]] == list(range(2304 - 2048, 2305))


@BOTH
async def test_progress_is_pruned_whatever_the_size_of_the_commits(opened: Opened) -> None:
    for commit in (1, 254, 2, 700, 1, 1500, 300, 255, 1, 90):
        async with opened.store.write() as transaction:
            for _ in range(commit):
                await transaction.emit("s", "training.progress", {})
    async with opened.store.read() as rows:
        newest = await last_seq(rows, "s")
        kept = [event.seq for event in await events_after(rows, "s", 0, 5000)]
    assert newest == 3104
    # no more than one commit and one pruning ago
    assert 2048 <= len(kept) <= 2048 + 256 + 90
    assert kept == list(range(kept[0], newest + 1))


@BOTH
async def test_one_commit_is_published_at_once(database_url: str) -> None:
    published: list[tuple[str, list[int]]] = []
    store = Store(database_url, lambda session, events: published.append((session, [e.seq for e in events])))
    await store.migrate()
    async with store.write() as transaction:
        transaction.rows.add(session_row())
        await transaction.rows.flush()
        await transaction.expect_events(["s", "nobody's"])
        for number in range(3):
            await transaction.emit("s", "training.log", {"number": number})
        assert published == []
    assert published == [("s", [1, 2, 3])]
    await store.close()


def log_in_one_go(connection: Connection, appender: Appender) -> int:
    """Work for `apply`: two events after all there are."""
    appender.expect_events(connection, ["s"])
    appender.emit("s", "training.log", {})
    return appender.emit("s", "training.log", {}).seq


@BOTH
async def test_what_is_applied_is_numbered_and_published_in_line_with_all_else(opened: Opened) -> None:
    async def write() -> None:
        async with opened.store.write() as transaction:
            await transaction.emit("s", "training.log", {})

    before = opened.store.commits
    newest = await asyncio.gather(*(opened.store.apply(log_in_one_go) for _ in range(8)), *(write() for _ in range(8)))
    assert opened.store.commits == before + 16
    assert [event.seq for event in opened.published] == list(range(1, 25))
    assert max(filter(None, newest)) <= 24
    async with opened.store.read() as rows:
        assert await events_after(rows, "s", 0, 100) == opened.published


@BOTH
async def test_what_cannot_be_applied_is_neither_stored_nor_published(opened: Opened) -> None:
    def fail(connection: Connection, appender: Appender) -> None:
        log_in_one_go(connection, appender)
        connection.execute(update(SessionRow).values(name="changed"))
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        await opened.store.apply(fail)
    assert opened.published == []
    async with opened.store.read() as rows:
        assert await last_seq(rows, "s") == 0
        assert (await rows.get_one(SessionRow, "s")).name == "n"
    assert await opened.store.apply(log_in_one_go) == 2  # it goes on


@BOTH
async def test_a_reader_sees_one_state_and_changes_nothing(opened: Opened) -> None:
    async with opened.store.read() as rows:
        before = await last_seq(rows, "s")
        async with opened.store.write() as transaction:
            await transaction.emit("s", "training.log", {})
        assert await last_seq(rows, "s") == before
    async with opened.store.read() as rows:
        assert await last_seq(rows, "s") == before + 1


@BOTH
async def test_writers_of_two_programs_take_turns(opened: Opened, database_url: str) -> None:
    other = Opened(database_url)

    async def write(store: Store) -> None:
        async with store.write() as transaction:
            await transaction.emit("s", "training.log", {})

    await asyncio.gather(*(write(store) for _ in range(10) for store in (opened.store, other.store)))
    async with opened.store.read() as rows:
        assert await last_seq(rows, "s") == 20
    await other.store.close()


@BOTH
async def test_what_belongs_to_a_session_goes_with_it_and_nothing_comes_without_one(opened: Opened) -> None:
    async with opened.store.write() as transaction:
        await transaction.emit("s", "training.log", {})
        await transaction.rows.flush()
        await transaction.rows.delete(await transaction.rows.get_one(SessionRow, "s"))
    async with opened.store.read() as rows:
        assert await last_seq(rows, "s") == 0
    with pytest.raises(DBAPIError, match=r"(?i)foreign key"):
        async with opened.store.write() as transaction:
            await transaction.emit("nobody's", "training.log", {})


@BOTH
async def test_any_text_can_be_stored_and_looked_for(opened: Opened) -> None:
    async with opened.store.write() as transaction:
        row = await transaction.rows.get_one(SessionRow, "s")
        row.name, row.description = "a\x00b", "متن 😀"
        row.progress = {"text": "a\x00b"}
    async with opened.store.read() as rows:
        row = await rows.get_one(SessionRow, "s")
        assert row.name in ("a\x00b", "a\ufffdb")  # PostgreSQL's text has no NUL
        assert (row.description, row.progress) == ("متن 😀", {"text": "a\x00b"})
        assert await rows.get(SessionRow, "s\x00") is None


@BOTH
async def test_the_greatest_numbers_and_finest_times_come_back(opened: Opened) -> None:
    async with opened.store.write() as transaction:
        row = await transaction.rows.get_one(SessionRow, "s")
        row.memory_bytes, row.created_at = 2**62, 1_790_000_000.123456
    async with opened.store.read() as rows:
        row = await rows.get_one(SessionRow, "s")
        assert (row.memory_bytes, row.created_at) == (2**62, 1_790_000_000.123456)


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
async def test_a_server_that_answers_before_it_has_written_is_refused(
    postgres_server: PostgresServer, setting: str
) -> None:
    url = postgres_server.new_database()
    postgres_server.configure(f"ALTER SYSTEM SET {setting} = off")
    postgres_server.configure("SELECT pg_reload_conf()")

    async def is_refused() -> bool:
        store = Opened(url).store
        with contextlib.suppress(DatabaseError):
            await store.migrate()
            await store.close()
            return False
        return True

    try:
        # the server reads its settings again when it comes to it
        await until(is_refused)
        with pytest.raises(DatabaseError, match=f"{setting} = off"):
            await Opened(url).store.migrate()
    finally:
        postgres_server.configure(f"ALTER SYSTEM RESET {setting}")
        postgres_server.configure("SELECT pg_reload_conf()")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("nonsense:secret", "is no URL"),
        ("mysql://u:secret@h/d", "is no database that cotrain knows"),
        ("sqlite://", "names no file"),
        ("sqlite+aiosqlite:///:memory:", "names no file"),
    ],
)
def test_urls_that_cannot_be_used_are_explained_without_their_password(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as raised:
        open_database(url)
    assert "secret" not in str(raised.value)


def test_a_plain_url_gets_its_driver() -> None:
    assert parse_url("postgres://u@h/d").drivername == "postgresql+asyncpg"
    assert parse_url("sqlite:////tmp/x").drivername == "sqlite+aiosqlite"


@pytest.mark.parametrize("url", ["postgresql://nobody@/none?host=/nowhere", "sqlite:////nowhere/at/all.sqlite3"])
async def test_a_database_that_is_not_there_is_told(url: str) -> None:
    with pytest.raises(DatabaseError, match="cannot be opened") as raised:
        await Opened(url).store.migrate()
    assert raised.value.field == "COTRAIN_DATABASE_URL"
    assert "\n" not in str(raised.value)


async def test_a_database_that_does_not_let_in_is_told(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database().replace("cotrain@", "stranger@")
    with pytest.raises(DatabaseError, match='role "stranger" does not exist'):
        await Opened(url).store.migrate()


async def test_what_is_committed_outlives_a_crash_of_the_server_and_the_store_goes_on(
    postgres_server: PostgresServer,
) -> None:
    opened = Opened(postgres_server.new_database())
    await opened.store.migrate()
    async with opened.store.write() as transaction:
        transaction.rows.add(session_row())
        await transaction.rows.flush()
        await transaction.emit("s", "training.log", {"number": 1})
    postgres_server.crash()
    postgres_server.start()
    async with opened.store.write() as transaction:
        await transaction.emit("s", "training.log", {"number": 2})
    async with opened.store.read() as rows:
        assert [event.data["number"] for event in await events_after(rows, "s", 0, 10)] == [1, 2]
    await opened.store.close()
