"""A copy of the coordinator's records while it runs: SQLite's online backup, to a new file."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import URL

from coordinator.database import DatabaseError, parse_url
from cotrain.errors import InvalidRequestError, NotFoundError


def back_up(url: str, target: Path) -> int:
    """Copy the database of this URL; returns the bytes of the copy, which is on disk and has been checked.

    The coordinator goes on writing meanwhile: the copy is of one moment.

    Raises:
        NotFoundError: there is no database yet.
        InvalidRequestError: the file is there already, or the database is PostgreSQL's, with the command to use.
        DatabaseError: it cannot be read or written; no file is left then.
    """
    parsed = parse_url(url)
    if not parsed.drivername.startswith("sqlite"):
        query = {key: value for key, value in parsed.query.items() if key != "password"}
        plain = URL.create(
            "postgresql", parsed.username, None, parsed.host, parsed.port, parsed.database, query=query
        )  # fmt: skip
        raise InvalidRequestError(
            "the database is PostgreSQL's, which has a program for this",
            hint=f"pg_dump --format=custom --file={target} --dbname='{plain.render_as_string()}'",
        )
    assert parsed.database is not None
    source = Path(parsed.database)
    if not source.is_file():
        raise NotFoundError("there is no database here yet", field=str(source), hint="COTRAIN_SHARED says where it is")
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise InvalidRequestError(
            "is there already and stays as it is", field=str(target), hint="name a new file"
        ) from None
    try:
        _copy(source, target)
        _flush(target)
    except sqlite3.Error as error:
        target.unlink()
        raise DatabaseError(f"cannot be copied: {error}", field=str(source)) from error
    except BaseException:
        target.unlink()
        raise
    return target.stat().st_size


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as database, closing(sqlite3.connect(target)) as copy:
        database.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file holds it all
        (found,) = copy.execute("PRAGMA quick_check").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(f"the copy is damaged: {found}")


def _flush(target: Path) -> None:
    """Put the file and its name on disk."""
    for path in (target, target.resolve().parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
