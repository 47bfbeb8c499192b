"""The database: one writer at a time, events published only once they are on disk, migrations at start."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.appender import Appender
from coordinator.database import (
    URL_VARIABLE,
    DatabaseError,
    check_durability,
    check_file,
    check_foreign_keys,
    database_failures,
    open_database,
)
from coordinator.models import EventRow
from coordinator.schema import Migrated, upgrade_schema
from cotrain.protocol import Event, EventType

Publish = Callable[[str, Sequence[Event]], None]
"""Is given a session and those of its events that one commit has stored, in order."""
Written = Callable[[float], None]
"""Is told how many seconds a transaction took."""

ResultT = TypeVar("ResultT")


class Transaction:
    """One write of coroutines: rows through `rows`, events through `emit`; both or neither."""

    def __init__(self, rows: AsyncSession):
        self.rows = rows
        self.appender = Appender()
        """For events of sessions that are expected."""

    async def emit(self, session: str, kind: EventType, data: dict[str, Any]) -> Event:
        """Append to the session's event log; listeners hear of it after the commit."""
        if not self.appender.expects(session):
            await self.expect_events([session])
        return self.appender.emit(session, kind, data)

    async def expect_events(self, sessions: Collection[str]) -> None:
        """Look up once where the logs of these sessions end, so that `emit` need not for each."""
        unknown = [session for session in sessions if not self.appender.expects(session)]
        if unknown:  # by the connection: events are not among what is yet to be flushed
            await self.rows.run_sync(lambda rows: self.appender.expect_events(rows.connection(), unknown))

    async def finish(self) -> None:
        """Write what was appended; the commit follows."""
        # by the connection, unflushed: what is deleted in the same transaction is still there to be referred to
        if not self.appender.is_empty:
            await self.rows.run_sync(lambda rows: self.appender.finish(rows.connection()))


class Store:
    """An open database. Reads run side by side, writes one after another."""

    def __init__(self, url: str, publish: Publish, on_written: Written = lambda _seconds: None):
        self._publish = publish
        self._on_written = on_written
        self._database = open_database(url)
        self._writer = asyncio.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
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
            if self._database.direct is not None:
                self._database.direct.dispose()
            self._thread.shutdown(wait=False)

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
            self._committed(transaction.appender.events, time.perf_counter() - started)

    async def apply(self, work: Callable[[Connection, Appender], ResultT]) -> ResultT:
        """One transaction of work that waits for nothing but the database; returns, after the commit, what it returns.

        For what is written often: SQLite does it with one change of threads, where coroutines take some for each
        statement. The work runs in another thread then, so it may not touch what the event loop's thread changes.
        """
        # whoever gives up waiting must not let others write before this is over
        return await asyncio.shield(self._apply(work))

    async def _apply(self, work: Callable[[Connection, Appender], ResultT]) -> ResultT:
        appender = Appender()

        def run(connection: Connection) -> ResultT:
            result = work(connection, appender)
            appender.finish(connection)
            return result

        async with self._writer:
            started = time.perf_counter()
            if (direct := self._database.direct) is not None:
                result = await asyncio.get_running_loop().run_in_executor(self._thread, _in_transaction, direct, run)
            else:
                async with self._database.writing.begin() as connection:
                    result = await connection.run_sync(run)
            self._committed(appender.events, time.perf_counter() - started)
        return result

    def _committed(self, events: Mapping[str, Sequence[Event]], seconds: float) -> None:
        """Still under the lock: listeners hear events in the order of their numbers."""
        self.commits += 1
        self._on_written(seconds)
        for session, listed in events.items():
            self._publish(session, listed)


def _in_transaction(engine: Engine, run: Callable[[Connection], ResultT]) -> ResultT:
    with engine.begin() as connection:
        return run(connection)


async def migrate_database(url: str) -> Migrated:
    """Bring a database up to date that nothing else is done with. Raises DatabaseError, ConfigError."""
    store = Store(url, lambda _session, _event: None)
    migrated = await store.migrate()
    await store.close()
    return migrated


@contextlib.asynccontextmanager
async def open_store(url: str) -> AsyncIterator[Store]:
    """The coordinator's database for a command; a coordinator may have it open as well."""
    store = Store(url, lambda _session, _event: None)
    await store.migrate()
    try:
        yield store
    finally:
        await store.close()


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
