"""Brings a database's schema up to this program's; a newer one is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from coordinator.database import DatabaseError

_MIGRATIONS = Path(__file__).resolve().parent / "migrations"


class NewerDatabaseError(DatabaseError):
    """A later version of cotrain has changed the database."""

    code = "database-newer"
    exit_code = 78


@dataclass(frozen=True)
class Migrated:
    """What a migration did; equal revisions: nothing."""

    before: str | None
    """Revision; None: the database was empty."""
    after: str


def revisions() -> list[str]:
    """All that this program knows, oldest first."""
    return [found.revision for found in ScriptDirectory(str(_MIGRATIONS)).walk_revisions()][::-1]


def upgrade_schema(connection: Connection, to: str = "head") -> Migrated:
    """Run the migrations that this database has not seen yet.

    Args:
        to: revision to stop at; tests make old databases with it.

    Raises:
        NewerDatabaseError: with nothing changed.
    """
    known = revisions()
    before = MigrationContext.configure(connection).get_current_revision()
    if before is not None and before not in known:
        raise NewerDatabaseError(
            f"the database is at revision {before}, this version of cotrain knows revisions up to {known[-1]}",
            hint="upgrade the coordinator: pip install --upgrade cotrain; or restore a backup from before",
        )
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, to)
    return Migrated(before, known[-1] if to == "head" else to)
