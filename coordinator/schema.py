"""Brings a database's schema up to this program's; a newer one is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, inspect, text

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
    """All that this program knows, oldest first: `vNNNN_what.py` holds revision NNNN."""
    return sorted(path.name[1:5] for path in (_MIGRATIONS / "versions").glob("v[0-9][0-9][0-9][0-9]_*.py"))


def upgrade_schema(connection: Connection, to: str = "head") -> Migrated:
    """Run the migrations that this database has not seen yet.

    Args:
        to: revision to stop at; tests make old databases with it.

    Raises:
        NewerDatabaseError: with nothing changed.
    """
    known = revisions()
    before = _revision_of(connection)
    if before is not None and before not in known:
        raise NewerDatabaseError(
            f"the database is at revision {before}, this version of cotrain knows revisions up to {known[-1]}",
            hint="upgrade the coordinator: pip install --upgrade cotrain; or restore a backup from before",
        )
    wanted = known[-1] if to == "head" else to
    if before != wanted:
        _run_migrations(connection, wanted)
    return Migrated(before, wanted)


def _revision_of(connection: Connection) -> str | None:
    """None of an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def _run_migrations(connection: Connection, to: str) -> None:
    # a quarter of a second of loading, which a start with nothing to migrate does without
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, to)
