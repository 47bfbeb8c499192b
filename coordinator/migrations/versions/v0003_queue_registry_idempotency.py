"""What the queue, the registry, the catalog, assets and repeated requests need."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ACCOUNT = sa.String(128)
_TABLES = ("idempotency_keys", "catalog_entries", "model_versions", "models", "datasets", "assets", "jobs")


def upgrade() -> None:
    """Make the tables. Of sessions that are there already, neither data nor memory are known."""
    op.add_column("sessions", sa.Column("dataset", sa.String(128), nullable=False, server_default=""))
    op.add_column("sessions", sa.Column("shares_dataset", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("sessions", sa.Column("memory_bytes", sa.BigInteger, nullable=False, server_default="0"))
    op.create_index("ix_participants_created", "participants", ["session_id", "created_at", "id"])
    _make_jobs()
    _make_assets()
    _make_registry()
    _make_idempotency_keys()


def downgrade() -> None:
    """Drop the tables and columns, with all they hold."""
    for table in _TABLES:
        op.drop_table(table)
    op.drop_index("ix_participants_created", "participants")
    with op.batch_alter_table("sessions") as batch:
        for column in ("memory_bytes", "shares_dataset", "dataset"):
            batch.drop_column(column)


def _make_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("session_id", sa.String(63), sa.ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("wait_reason", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("error_msg", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
    )
    op.create_index("ix_jobs_session_id", "jobs", ["session_id"])
    op.create_index("ix_jobs_queue", "jobs", ["state", "priority", "created_at"])


def _make_assets() -> None:
    op.create_table(
        "assets",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("last_used_at", sa.Double, nullable=False),
    )
    op.create_index("ix_assets_last_used_at", "assets", ["last_used_at"])
    op.create_table(
        "datasets",
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("samples", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )


def _make_registry() -> None:
    op.create_table(
        "models",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("name", sa.String(120), nullable=False, unique=True),
        sa.Column("owner", _ACCOUNT, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "model_versions",
        sa.Column("model_id", sa.String(63), sa.ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("session_id", sa.String(63), sa.ForeignKey("sessions.id", ondelete="SET NULL")),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("data_fingerprint", sa.String(64), nullable=False),
        sa.Column("contributors", sa.JSON, nullable=False),
        sa.Column("evaluation", sa.JSON),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_index("ix_model_versions_session_id", "model_versions", ["session_id"])
    op.create_table(
        "catalog_entries",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("owner", _ACCOUNT, nullable=False),
        sa.Column("entry", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )


def _make_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("account", _ACCOUNT, primary_key=True),
        sa.Column("key", sa.String(200), primary_key=True),
        sa.Column("request_sha256", sa.String(64), nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_index("ix_idempotency_keys_created", "idempotency_keys", ["created_at"])
