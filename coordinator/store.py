"""The database: one writer at a time, events published only once they are on disk, migrations at start."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.database import (
    URL_VARIABLE,
    DatabaseError,
    check_durability,
    check_file,
    check_foreign_keys,
    database_failures,
    open_database,
)
from coordinator.models import Base, EventRow, SessionRow
from coordinator.schema import Migrated, upgrade_schema
from cotrain.protocol import Event, EventType
from cotrain.status import now

Publish = Callable[[str, Sequence[Event]], None]
"""Is given a session and those of its events that one commit has stored, in order."""
Written = Callable[[float], None]
"""Is told how many seconds a transaction took."""

_PROGRESS_KEPT = 2048
_PRUNE_EVERY = 256


class Transaction:
    """One write: rows through `rows`, events through `emit`; both or neither."""

    def __init__(self, rows: AsyncSession):
        self.rows = rows
        self.events: defaultdict[str, list[Event]] = defaultdict(list)
        self._appended: defaultdict[type[Base], list[dict[str, Any]]] = defaultdict(list)
        self._stored_seq: dict[str, int] = {}
        """The newest event of each session before this transaction."""

    async def emit(self, session: str, kind: EventType, data: dict[str, Any]) -> Event:
        """Append to the session's event log; listeners hear of it after the commit."""
        if session not in self._stored_seq:
            await self.expect_events([session])
        listed = self.events[session]
        entry = Event(seq=self._stored_seq.get(session, 0) + len(listed) + 1, time=now(), type=kind, data=data)
        listed.append(entry)
        values = {"session_id": session, "seq": entry.seq, "time": entry.time, "type": entry.type, "data": entry.data}
        self.append(EventRow, values)
        return entry

    async def expect_events(self, sessions: Collection[str]) -> None:
        """Look up once where the logs of these sessions end, so that `emit` need not for each."""
        newest = select(func.max(EventRow.seq)).where(EventRow.session_id == SessionRow.id).scalar_subquery()
        query = select(SessionRow.id, newest).where(SessionRow.id.in_(set(sessions) - self._stored_seq.keys()))
        with self.rows.no_autoflush:  # events are not among what could be flushed
            found = await self.rows.execute(query)
        self._stored_seq |= {session: seq or 0 for session, seq in found}

    def append(self, kind: type[Base], values: dict[str, Any]) -> None:
        """Add a row that nothing in this transaction reads: it is written with all others of its kind at the end.

        What it refers to must be stored or flushed.
        """
        self._appended[kind].append(values)

    async def finish(self) -> None:
        """Write what was appended; the commit follows."""
        with self.rows.no_autoflush:  # what is deleted in the same transaction is still there to be referred to
            for kind, rows in self._appended.items():
                # by the table: as mapped objects they would take four times as long
                await self.rows.execute(insert(kind.metadata.tables[kind.__tablename__]), rows)
            for session, events in self.events.items():
                await self._prune(session, events[0].seq - 1, events[-1].seq)

    async def _prune(self, session: str, before: int, newest: int) -> None:
        """Old progress says nothing that a newer one does not; states and logs are kept for good."""
        pruned = before - before % _PRUNE_EVERY
        if newest < pruned + _PRUNE_EVERY:
            return
        # what is older was looked at when event `pruned` was written, so that a long log costs no more than a short one
        await self.rows.execute(
            delete(EventRow).where(
                EventRow.session_id == session, EventRow.seq >= pruned - _PROGRESS_KEPT,
                EventRow.seq < newest - _PROGRESS_KEPT, EventRow.type == "training.progress",
            )
        )  # fmt: skip


class Store:
    """An open database. Reads run side by side, writes one after another."""

    def __init__(self, url: str, publish: Publish, on_written: Written = lambda _seconds: None):
        self._publish = publish
        self._on_written = on_written
        self._database = open_database(url)
        self._writer = asyncio.Lock()
        self.commits = 0
        """Of this program, since it was opened: what was read before the last one may hold no longer."""

    async def migrate(self) -> Migrated:
        """Bring the schema up to date. Raises DatabaseError if that cannot be; the store is closed then."""
        try:
            check_file(self._database.migrating.url)
            async with self._database.migrating.begin() as connection:
                migrated = await connection.run_sync(_migrate)
        except DatabaseError:
            await self.close()
            raise
        except database_failures() as error:
            await self.close()
            raise DatabaseError(f"cannot be opened: {_first_line(error)}", field=URL_VARIABLE) from error
        # with them goes what migrations need and nothing else may have
        await self._database.migrating.dispose()
        return migrated

    async def close(self) -> None:
        """Let go of every connection, after a write that is under way."""
        async with self._writer:
            await self._database.reading.dispose()

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """One consistent view."""
        async with AsyncSession(self._database.reading, expire_on_commit=False) as rows:
            yield rows

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        """One transaction, committed when the block ends and rolled back when it raises."""
        async with self._writer:
            started = time.perf_counter()
            async with AsyncSession(self._database.writing, expire_on_commit=False) as rows, rows.begin():
                transaction = Transaction(rows)
                yield transaction
                await transaction.finish()
            self.commits += 1
            self._on_written(time.perf_counter() - started)
            # still under the lock: listeners hear events in the order of their numbers
            for session, events in transaction.events.items():
                self._publish(session, events)


async def migrate_database(url: str) -> Migrated:
    """Bring a database up to date that nothing else is done with. Raises DatabaseError, ConfigError."""
    store = Store(url, lambda _session, _event: None)
    migrated = await store.migrate()
    await store.close()
    return migrated


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


def _migrate(connection: Connection) -> Migrated:
    check_durability(connection)
    migrated = upgrade_schema(connection)
    check_foreign_keys(connection)
    return migrated


def _first_line(error: Exception) -> str:
    """The driver's own words, without the statement that SQLAlchemy adds."""
    cause = getattr(error, "orig", None) or error
    return str(cause).partition("\n")[0] or type(cause).__name__
