"""The first tables: sessions, participants, runs, events, training logs, metrics."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _session_key(**options: Any) -> sa.Column[str]:
    return sa.Column(
        "session_id",
        sa.String(63),
        sa.ForeignKey("sessions.id", ondelete="CASCADE"),
        nullable=False,
        **options,
    )


def upgrade() -> None:
    """Make the tables."""
    _make_sessions()
    _make_participants()
    _make_logs()
    op.create_table(
        "metrics",
        _session_key(primary_key=True),
        sa.Column("round", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("samples", sa.BigInteger, nullable=False),
        sa.Column("loss", sa.Double),
        sa.Column("validation_loss", sa.Double),
        sa.Column("tokens_per_second", sa.Double),
    )


def downgrade() -> None:
    """Drop the tables, with all they hold."""
    for table in ("metrics", "training_logs", "events", "runs", "participants", "sessions"):
        op.drop_table(table)


def _make_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("error_msg", sa.Text, nullable=False),
        sa.Column("model_path", sa.Text, nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("assets", sa.JSON, nullable=False),
        sa.Column("asset_folder", sa.Text, nullable=False),
        sa.Column("progress", sa.JSON),
        sa.Column("checkpointer_status", sa.JSON),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
    )
    op.create_index("ix_sessions_created", "sessions", ["created_at", "id"])


def _make_participants() -> None:
    op.create_table(
        "participants",
        sa.Column("id", sa.String(32), primary_key=True),
        _session_key(),
        sa.Column("peer_id", sa.String(128), nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("hardware", sa.JSON, nullable=False),
        sa.Column("token_sha256", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("status", sa.JSON),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("last_seen_at", sa.Double),
        sa.UniqueConstraint("session_id", "peer_id"),
    )
    op.create_table(
        "runs",
        _session_key(primary_key=True),
        sa.Column("source", sa.String(32), primary_key=True),
        sa.Column("run", sa.String(64), primary_key=True),
        sa.Column("applied_seq", sa.BigInteger, nullable=False),
        sa.Column("last_record", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
    )


def _make_logs() -> None:
    op.create_table(
        "events",
        _session_key(primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
    )
    op.create_table(
        "training_logs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        _session_key(),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("run", sa.String(64), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.UniqueConstraint("session_id", "source", "run", "number"),
    )
    op.create_index("ix_training_logs_session", "training_logs", ["session_id", "id"])
