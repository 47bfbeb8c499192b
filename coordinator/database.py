"""Opens the database that a URL names: SQLite, or PostgreSQL through asyncpg. What is committed is on disk."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, create_engine, event, make_url, text
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from cotrain.errors import ConfigError, CotrainError

URL_VARIABLE = "COTRAIN_DATABASE_URL"

_SQLITE, _POSTGRESQL = "sqlite+aiosqlite", "postgresql+asyncpg"
_DRIVERS = {
    "sqlite": _SQLITE, _SQLITE: _SQLITE, "postgres": _POSTGRESQL, "postgresql": _POSTGRESQL, _POSTGRESQL: _POSTGRESQL,
}  # fmt: skip
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # an acknowledged write must outlive a power cut
    "PRAGMA busy_timeout=5000",
    "PRAGMA foreign_keys=ON",
)
_DURABILITY = ("fsync", "full_page_writes", "synchronous_commit")
_WORK = "cotrain_work"
_WRITERS_LOCK = 0x636F747261696E  # "cotrain": the advisory lock that makes writers take turns


class DatabaseError(CotrainError):
    """The database cannot be opened or used."""

    code = "database"
    http_status = 503
    exit_code = 69


@dataclass(frozen=True)
class Database:
    """One database, as its kinds of work see it; the first three share their connections."""

    reading: AsyncEngine
    """Each transaction sees one state of the data and can change nothing."""
    writing: AsyncEngine
    """Transactions take turns, over all processes: what is read in one still holds when it is committed."""
    migrating: AsyncEngine
    """As `writing`; SQLite checks foreign keys at the end alone, since it rebuilds tables to change them."""
    direct: Engine | None
    """SQLite's for `writing` without a coroutine for each statement; None where the driver has coroutines itself."""


def parse_url(url: str) -> URL:
    """The URL with its asyncio driver. Raises ConfigError, which never holds the URL: there may be a password in it."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError(
            "is no URL of a database", field=URL_VARIABLE, hint="it looks like postgresql://user@host/name"
        ) from None
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise ConfigError(
            f"{parsed.drivername} is no database that cotrain knows", field=URL_VARIABLE,
            hint="allowed: postgresql://user@host/name, sqlite:////path/of/a/file",
        )  # fmt: skip
    if driver == _SQLITE and parsed.database in (None, "", ":memory:"):
        raise ConfigError(
            "names no file: nothing would outlive the program", field=URL_VARIABLE, hint="sqlite:////path/of/a/file"
        )
    return parsed.set(drivername=driver)


def open_database(url: str) -> Database:
    """Engines for a URL; nothing is connected yet. Raises ConfigError."""
    parsed = parse_url(url)
    try:
        # a server may have been restarted since a connection was used last; no error may quote what is written
        engine = create_async_engine(parsed, pool_pre_ping=parsed.drivername == _POSTGRESQL, hide_parameters=True)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"PostgreSQL needs the package {error.name}", field=URL_VARIABLE, hint="pip install 'cotrain[postgres]'"
        ) from error
    if parsed.drivername == _SQLITE:
        reading, direct = engine, create_engine(parsed.set(drivername="sqlite"), hide_parameters=True)
        for one in (engine.sync_engine, direct):
            event.listen(one, "connect", _prepare_sqlite)
            event.listen(one, "begin", _begin_sqlite)
    else:
        event.listen(engine.sync_engine, "begin", _begin_postgresql)
        event.listen(engine.sync_engine, "before_cursor_execute", _without_nul, retval=True)
        reading = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        direct = None
    return Database(
        reading=reading, writing=engine.execution_options(**{_WORK: "write"}),
        migrating=engine.execution_options(**{_WORK: "migrate"}),
        direct=None if direct is None else direct.execution_options(**{_WORK: "write"}),
    )  # fmt: skip


def check_durability(connection: Connection) -> None:
    """Raises DatabaseError where a PostgreSQL server would answer before a commit is on disk."""
    if connection.dialect.name == "sqlite":
        return
    for name in _DURABILITY:
        if connection.scalar(text("SELECT current_setting(:name)"), {"name": name}) == "off":
            raise DatabaseError(
                f"the server has {name} = off: what it has acknowledged can be lost", field=URL_VARIABLE,
                hint=f"set it: ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();",
            )  # fmt: skip


def check_foreign_keys(connection: Connection) -> None:
    """Raises DatabaseError where a migration of SQLite left a row that refers to nothing."""
    if connection.dialect.name == "sqlite" and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all()):
        raise DatabaseError(
            f"a migration would have left {len(broken)} rows without what they belong to", field=broken[0][0],
            hint="nothing was changed; this is a fault of cotrain",
        )  # fmt: skip


def check_file(url: URL) -> None:
    """Raises sqlite3.Error where SQLite's file cannot be opened or made: aiosqlite's thread would not end well."""
    if url.drivername == _SQLITE:
        assert url.database is not None
        sqlite3.connect(url.database).close()


def database_failures() -> tuple[type[Exception], ...]:
    """What any use of the database may raise where it is not there."""
    failures: tuple[type[Exception], ...] = (SQLAlchemyError, OSError, sqlite3.Error)
    # an extra that takes a tenth of a second to load: what has not been loaded has raised nothing
    if (asyncpg := sys.modules.get("asyncpg")) is not None:
        failures += (asyncpg.PostgresError, asyncpg.InterfaceError)
    return failures


def _prepare_sqlite(connection: Any, _entry: ConnectionPoolEntry) -> None:
    # sqlite3 would open transactions by itself, and late; `_begin_sqlite` does it instead
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    work = connection.get_execution_options().get(_WORK)
    if work == "migrate":  # dropping a table to rebuild it would delete all that refers to it
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if work else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    if connection.get_execution_options().get(_WORK):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS_LOCK})")


def _without_nul(
    _connection: Connection, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool
) -> tuple[str, Any]:
    """PostgreSQL's text cannot hold U+0000, which JSON and URLs can."""
    # rows of one statement with many VALUES come as one flat row, though they are many
    nested = many and all(isinstance(row, tuple | list) for row in parameters)
    return statement, [_cleaned(row) for row in parameters] if nested else _cleaned(parameters)


def _cleaned(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(value.replace("\x00", "\ufffd") if isinstance(value, str) else value for value in values)
