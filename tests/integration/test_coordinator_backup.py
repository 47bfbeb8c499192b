"""`cotrain coordinator backup` and `migrate`, as an operator uses them."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from coordinator.backup import back_up
from coordinator.database import URL_VARIABLE, DatabaseError
from coordinator.models import SessionRow
from coordinator.schema import revisions, upgrade_schema
from coordinator.store import Store
from cotrain.cli import execute
from cotrain.errors import InvalidRequestError, NotFoundError
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import until
from tests.unit.test_coordinator_schema import on
from tests.unit.test_coordinator_store import session_row


async def filled_store(url: str) -> Store:
    store = Store(url, lambda _session, _event: None)
    await store.migrate()
    async with store.write() as transaction:
        transaction.rows.add(session_row())
    return store


async def test_a_backup_is_of_one_moment_while_others_write(tmp_path: Path, database_url: str) -> None:
    store = await filled_store(database_url)
    written, ended, target = 0, asyncio.Event(), tmp_path / "copy.sqlite3"

    async def write() -> None:
        nonlocal written
        while not ended.is_set():
            async with store.write() as transaction:
                row = await transaction.rows.get_one(SessionRow, "s")
                event = await transaction.emit("s", "training.log", {})
                row.memory_bytes = event.seq
            written = event.seq

    writer = asyncio.create_task(write())
    await until(lambda: written >= 5)
    before = written
    size_bytes = await asyncio.to_thread(back_up, database_url, target)
    await until(lambda: written > before)
    ended.set()
    await writer
    await store.close()
    assert size_bytes == target.stat().st_size
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with closing(sqlite3.connect(target)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (newest,) = copy.execute("SELECT memory_bytes FROM sessions").fetchone()
        numbers = [number for (number,) in copy.execute("SELECT seq FROM events ORDER BY seq")]
    assert newest >= before
    assert numbers == list(range(1, newest + 1))
    assert [name for name in os.listdir(tmp_path) if name.startswith("copy")] == ["copy.sqlite3"]


async def test_a_coordinator_opens_a_backup(tmp_path: Path, database_url: str) -> None:
    store = await filled_store(database_url)
    back_up(database_url, tmp_path / "copy")
    await store.close()
    restored = Store(f"sqlite:///{tmp_path / 'copy'}", lambda _session, _event: None)
    await restored.migrate()
    async with restored.read() as rows:
        assert (await rows.get_one(SessionRow, "s")).name == "n"
    await restored.close()


async def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path, database_url: str) -> None:
    store = await filled_store(database_url)
    await store.close()
    target = tmp_path / "precious"
    target.write_text("mine")
    with pytest.raises(InvalidRequestError, match="is there already"):
        back_up(database_url, target)
    assert target.read_text() == "mine"


def test_what_cannot_be_copied_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"no database at all" * 100)
    with pytest.raises(DatabaseError, match="cannot be copied"):
        back_up(f"sqlite:///{tmp_path / 'broken'}", tmp_path / "copy")
    with pytest.raises(NotFoundError):
        back_up(f"sqlite:///{tmp_path / 'none'}", tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_postgresqls_own_program_is_named_without_the_password(tmp_path: Path) -> None:
    url = "postgresql+asyncpg://me:secret@db.example:5433/cotrain?password=secret&ssl=require"
    with pytest.raises(InvalidRequestError) as raised:
        back_up(url, tmp_path / "copy")
    assert raised.value.hint == (
        f"pg_dump --format=custom --file={tmp_path / 'copy'} "
        "--dbname='postgresql://me@db.example:5433/cotrain?ssl=require'"
    )


def test_the_backup_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COTRAIN_SHARED", str(tmp_path))
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    assert execute(["coordinator", "backup", str(tmp_path / "copy")]) == 66
    assert execute(["coordinator", "migrate"]) == 0
    assert execute(["coordinator", "backup", str(tmp_path / "copy")]) == 0
    assert f"{tmp_path / 'copy'}: {(tmp_path / 'copy').stat().st_size} bytes" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_migrate_command_says_from_where_to_where(
    kind: str, new_database_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    url, newest = new_database_url(kind), revisions()[-1]
    monkeypatch.setenv(URL_VARIABLE, url)

    def said(code: int = 0) -> str:
        assert execute(["coordinator", "migrate"]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    assert said() == f"the database has gone from nothing to revision {newest}\n"
    assert said() == f"the database is at revision {newest} already\n"
    older = new_database_url(kind) if kind == "postgresql" else f"{url}-older"
    monkeypatch.setenv(URL_VARIABLE, older)
    asyncio.run(on(older, lambda connection: upgrade_schema(connection, "0001")))
    assert said() == f"the database has gone from 0001 to revision {newest}\n"

    def make_newer(connection: Connection) -> None:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    asyncio.run(on(older, make_newer))
    told = said(78)
    assert f"the database is at revision 9999, this version of cotrain knows revisions up to {newest}" in told
    assert "hint: upgrade the coordinator" in told


def test_serving_on_a_database_that_is_not_there_ends_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COTRAIN_SHARED", str(tmp_path))
    monkeypatch.setenv(URL_VARIABLE, "postgresql://me:secret@/none?host=/nowhere")
    assert execute(["coordinator", "serve", "--port", "0"]) == 69
    told = capsys.readouterr().err
    assert f"error: {URL_VARIABLE}: cannot be opened" in told
    assert "secret" not in told
    assert "Traceback" not in told


@BOTH
async def test_two_programs_that_migrate_at_once_do_it_once(database_url: str) -> None:
    stores = [Store(database_url, lambda _session, _event: None) for _ in range(4)]
    done = await asyncio.gather(*(store.migrate() for store in stores))
    assert sorted(migrated.before or "" for migrated in done) == ["", *[revisions()[-1]] * 3]
    for store in stores:
        await store.close()
