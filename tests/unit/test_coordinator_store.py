"""The store: schema, durability settings, order and atomicity of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from coordinator.models import Base, SessionRow
from coordinator.store import Store, events_after, last_seq, upgrade_schema
from cotrain.protocol import Event


class Opened:
    """A store with one session, and what it has published."""

    def __init__(self, path: Path):
        self.published: list[Event] = []
        self.store = Store(f"sqlite+aiosqlite:///{path}", lambda _session, event: self.published.append(event))


def session_row() -> SessionRow:
    texts = dict.fromkeys(("description", "config", "error_msg", "model_path", "asset_folder"), "")
    return SessionRow(id="s", name="n", state="draft", assets=[], created_at=0.0, updated_at=0.0, **texts)


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    opened = Opened(tmp_path / "db.sqlite3")
    await opened.store.migrate()
    async with opened.store.write() as transaction:
        transaction.rows.add(session_row())
    yield opened
    await opened.store.close()


async def test_the_migrations_make_exactly_the_tables(tmp_path: Path) -> None:
    def differences(connection: Connection) -> list[object]:
        upgrade_schema(connection)
        return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))

    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'db.sqlite3'}")
    async with engine.begin() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


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


async def test_concurrent_writers_number_events_without_gaps_and_publish_in_order(opened: Opened) -> None:
    async def write(number: int) -> None:
        async with opened.store.write() as transaction:
            await transaction.emit("s", "training.log", {"number": number})

    await asyncio.gather(*(write(number) for number in range(20)))
    assert [event.seq for event in opened.published] == list(range(1, 21))
    async with opened.store.read() as rows:
        assert await events_after(rows, "s", 15, 3) == opened.published[15:18]
        assert await last_seq(rows, "s") == 20


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


async def test_old_progress_is_pruned_and_nothing_else(opened: Opened) -> None:
    async with opened.store.write() as transaction:
        await transaction.emit("s", "session.state", {})
        for _ in range(2303):
            await transaction.emit("s", "training.progress", {})
    async with opened.store.read() as rows:
        kept = await events_after(rows, "s", 0, 5000)
    assert kept[0].type == "session.state"
    assert [event.seq for event in kept[1:]] == list(range(2304 - 2048, 2305))
