"""Migrations, on both databases: they make the models' tables, lose nothing, and leave newer databases alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text

from coordinator import schema
from coordinator.database import DatabaseError, check_foreign_keys, open_database
from coordinator.models import Base
from coordinator.schema import Migrated, NewerDatabaseError, revisions, upgrade_schema
from coordinator.store import Store
from tests.databases import BOTH

_OLD_ROWS: dict[str, list[dict[str, Any]]] = {
    "sessions": [
        {
            "id": "s", "name": "n", "description": "متن", "state": "training", "error_msg": "", "model_path": "",
            "config": "schema_version = 1", "assets": [{"name": "a"}], "asset_folder": "", "progress": {"round": 3},
            "created_at": 1.5, "updated_at": 2.5,
        }
    ],
    "participants": [
        {
            "id": "p", "session_id": "s", "peer_id": "12D3", "name": "v", "hardware": {"device": "cpu"},
            "token_sha256": "ab", "state": "online", "created_at": 1.5,
        }
    ],
    "runs": [
        {"session_id": "s", "source": "p", "run": "r", "applied_seq": 2**40, "last_record": 7, "updated_at": 1.0}
    ],
    "events": [{"session_id": "s", "seq": 1, "time": 1.0, "type": "session.state", "data": {"status": "draft"}}],
    "training_logs": [
        {
            "id": 1, "session_id": "s", "source": "p", "run": "r", "number": 1, "time": 1.0, "kind": "log",
            "level": "info", "message": "m", "data": {},
        }
    ],
    "metrics": [{"session_id": "s", "round": 1, "time": 1.0, "samples": 2**40, "loss": 2.5}],
    "accounts": [{"id": "eip155:1:0xab", "created_at": 1.0, "last_seen_at": 2.0}],
    "challenges": [
        {"nonce": "n", "account": "eip155:1:0xab", "message": "m", "created_at": 1.0, "expires_at": 2.0}
    ],
    "sign_ins": [{"token_sha256": "cd", "account": "eip155:1:0xab", "created_at": 1.0, "expires_at": 2.0}],
    "bonds": [{"nonce": "n", "expires_at": 2.0}],
    "certificates": [
        {"serial": "c", "session_id": "s", "participant_id": "p", "issued_at": 1.0, "expires_at": 2.0}
    ],
}  # fmt: skip
"""Rows with the columns that the first revision with their table has."""


async def on(url: str, work: Callable[[Connection], Any]) -> Any:
    """Do something in one transaction, as migrations are done."""
    database = open_database(url)
    try:
        async with database.migrating.begin() as connection:
            return await connection.run_sync(work)
    finally:
        await database.migrating.dispose()


def tables(connection: Connection) -> MetaData:
    """What is in the database, whatever the models say."""
    found = MetaData()
    found.reflect(connection)
    return found


def everything(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    return {
        table.name: [dict(row._mapping) for row in connection.execute(table.select())]
        for table in tables(connection).sorted_tables
        if table.name != "alembic_version"
    }


def fill(connection: Connection) -> None:
    for table in tables(connection).sorted_tables:
        if table.name in _OLD_ROWS:
            connection.execute(table.insert(), _OLD_ROWS[table.name])


def downgrade(connection: Connection, to: str) -> None:
    config = Config()
    config.set_main_option("script_location", "coordinator:migrations")
    config.attributes["connection"] = connection
    command.downgrade(config, to)
    check_foreign_keys(connection)


def test_the_files_are_named_after_their_revisions() -> None:
    folder = Path(schema.__file__).parent / "migrations"
    assert revisions() == [found.revision for found in ScriptDirectory(str(folder)).walk_revisions()][::-1]


@BOTH
async def test_the_migrations_make_exactly_the_tables(database_url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        upgrade_schema(connection)
        return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))

    assert await on(database_url, differences) == []


@BOTH
@pytest.mark.parametrize("revision", revisions()[:-1])
async def test_an_old_database_is_brought_up_without_loss(database_url: str, revision: str) -> None:
    await on(database_url, lambda connection: upgrade_schema(connection, revision))
    await on(database_url, fill)
    before = await on(database_url, everything)
    assert sum(map(len, before.values())) >= 6
    store = Store(database_url, lambda _session, _event: None)
    assert await store.migrate() == Migrated(revision, revisions()[-1])
    assert await store.migrate() == Migrated(revisions()[-1], revisions()[-1])
    await store.close()
    after = await on(database_url, everything)
    for table, rows in before.items():
        assert [{key: new[key] for key in old} for old, new in zip(rows, after[table], strict=True)] == rows


@BOTH
async def test_versions_from_before_are_as_private_as_their_sessions(database_url: str) -> None:
    def fill_private(connection: Connection) -> None:
        upgrade_schema(connection, "0006")
        found, (session,) = tables(connection).tables, _OLD_ROWS["sessions"]
        for name, visibility in (("open", "public"), ("closed", "private")):
            more = {"id": name, "owner": "a", "dataset": "", "visibility": visibility}
            connection.execute(found["sessions"].insert(), session | more)
        connection.execute(found["models"].insert(), {"id": "m", "name": "m", "owner": "a", "created_at": 1.0})
        for number, made_by in enumerate(("open", "closed", None), 1):
            version = {"model_id": "m", "version": number, "session_id": made_by, "config": "", "path": ""}
            rest = {"contributors": [], "data_fingerprint": "", "size_bytes": 0, "created_at": 1.0}
            connection.execute(found["model_versions"].insert(), version | rest)
        upgrade_schema(connection)

    await on(database_url, fill_private)
    kept = (await on(database_url, everything))["model_versions"]
    assert {row["version"]: row["visibility"] for row in kept} == {1: "public", 2: "private", 3: "public"}


@BOTH
async def test_a_newer_database_is_refused_and_left_alone(database_url: str) -> None:
    def make_newer(connection: Connection) -> None:
        upgrade_schema(connection)
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    await on(database_url, make_newer)
    store = Store(database_url, lambda _session, _event: None)
    with pytest.raises(NewerDatabaseError, match="at revision 9999") as raised:
        await store.migrate()
    assert revisions()[-1] in raised.value.message
    assert "upgrade the coordinator" in raised.value.hint
    version = await on(database_url, lambda c: c.scalar(text("SELECT version_num FROM alembic_version")))
    assert version == "9999"


@BOTH
async def test_rebuilding_a_table_deletes_nothing_that_refers_to_it(database_url: str) -> None:
    await on(database_url, upgrade_schema)
    await on(database_url, fill)
    await on(database_url, lambda connection: downgrade(connection, revisions()[0]))
    left = await on(database_url, everything)
    assert {name: len(rows) for name, rows in left.items()} == dict.fromkeys(
        ("sessions", "participants", "runs", "events", "training_logs", "metrics"), 1
    )


async def test_a_migration_that_leaves_rows_of_nothing_is_undone(database_url: str) -> None:
    await on(database_url, upgrade_schema)

    def lose_a_session(connection: Connection) -> None:
        fill(connection)
        connection.execute(text("DELETE FROM sessions"))
        check_foreign_keys(connection)

    with pytest.raises(DatabaseError, match="rows without what they belong to"):
        await on(database_url, lose_a_session)
    assert (await on(database_url, everything))["sessions"] == []


@pytest.mark.parametrize("existing", [True, False])
async def test_foreign_keys_hold_after_a_migration(database_url: str, existing: bool) -> None:
    store = Store(database_url, lambda _session, _event: None)
    await store.migrate()
    if existing:
        await store.migrate()
    async with store.write() as transaction:
        assert await transaction.rows.scalar(text("PRAGMA foreign_keys")) == 1
    await store.close()
