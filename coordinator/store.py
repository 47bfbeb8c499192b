"""The database: one writer at a time, events published only once they are on disk, migrations at start."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, delete, event, func, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from coordinator.models import EventRow
from cotrain.protocol import Event, EventType
from cotrain.status import now

Publish = Callable[[str, Event], None]

_MIGRATIONS = Path(__file__).resolve().parent / "migrations"
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # an acknowledged write must outlive a power cut
    "PRAGMA busy_timeout=5000",
    "PRAGMA foreign_keys=ON",
)
_IMMEDIATE = "begin_immediate"
_PROGRESS_KEPT = 2048
_PRUNE_EVERY = 256


class Transaction:
    """One write: rows through `rows`, events through `emit`; both or neither."""

    def __init__(self, rows: AsyncSession):
        self.rows = rows
        self.events: list[tuple[str, Event]] = []

    async def emit(self, session: str, kind: EventType, data: dict[str, Any]) -> Event:
        """Append to the session's event log; listeners hear of it after the commit."""
        entry = Event(seq=await last_seq(self.rows, session) + 1, time=now(), type=kind, data=data)
        self.rows.add(EventRow(session_id=session, seq=entry.seq, time=entry.time, type=entry.type, data=entry.data))
        if entry.seq % _PRUNE_EVERY == 0:
            await self._prune(session, entry.seq)
        self.events.append((session, entry))
        return entry

    async def _prune(self, session: str, newest: int) -> None:
        """Old progress says nothing that a newer one does not; states and logs are kept for good."""
        await self.rows.execute(
            delete(EventRow).where(
                EventRow.session_id == session, EventRow.seq < newest - _PROGRESS_KEPT,
                EventRow.type == "training.progress",
            )
        )  # fmt: skip


class Store:
    """An open database. Reads run side by side, writes one after another."""

    def __init__(self, url: str, publish: Publish):
        self._publish = publish
        self._engine = create_async_engine(url)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self._engine.sync_engine, "begin", _begin_sqlite)
        self._writing = self._engine.execution_options(**{_IMMEDIATE: True})
        self._writer = asyncio.Lock()

    async def migrate(self) -> None:
        """Bring the schema up to date."""
        async with self._writing.begin() as connection:
            await connection.run_sync(upgrade_schema)

    async def close(self) -> None:
        """Let go of every connection, after a write that is under way."""
        async with self._writer:
            await self._engine.dispose()

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """One consistent view."""
        async with AsyncSession(self._engine, expire_on_commit=False) as rows:
            yield rows

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        """One transaction, committed when the block ends and rolled back when it raises."""
        async with self._writer:
            async with AsyncSession(self._writing, expire_on_commit=False) as rows, rows.begin():
                transaction = Transaction(rows)
                yield transaction
            # still under the lock: listeners hear events in the order of their numbers
            for session, entry in transaction.events:
                self._publish(session, entry)


async def last_seq(rows: AsyncSession, session: str) -> int:
    """Number of the newest event of the session, 0 if there is none."""
    newest = await rows.scalar(select(func.max(EventRow.seq)).where(EventRow.session_id == session))
    return newest or 0


async def events_after(rows: AsyncSession, session: str, after: int, limit: int) -> list[Event]:
    """At most `limit` stored events with a number above `after`, in order."""
    found = await rows.scalars(
        select(EventRow).where(EventRow.session_id == session, EventRow.seq > after)
        .order_by(EventRow.seq).limit(limit)
    )  # fmt: skip
    return [
        Event.model_validate({"seq": row.seq, "time": row.time, "type": row.type, "data": row.data}) for row in found
    ]


def upgrade_schema(connection: Connection) -> None:
    """Run the migrations that this database has not seen yet."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _prepare_sqlite(connection: Any, _entry: ConnectionPoolEntry) -> None:
    # sqlite3 would open transactions by itself, and late; `_begin_sqlite` does it instead
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get(_IMMEDIATE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
