"""Saving and evaluating models as jobs, and what a version's newest evaluation job has found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table and the column; nothing was asked for before."""
    op.create_table(
        "model_jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("account", sa.String(128), nullable=False),
        sa.Column("session_id", sa.String(63), sa.ForeignKey("sessions.id", ondelete="SET NULL")),
        sa.Column("model_id", sa.String(63), sa.ForeignKey("models.id", ondelete="CASCADE")),
        sa.Column("version", sa.Integer),
        sa.Column("asked", sa.JSON, nullable=False),
        sa.Column("result", sa.JSON),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("hint", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
    )
    op.create_index("ix_model_jobs_account", "model_jobs", ["account", "created_at", "id"])
    op.create_index("ix_model_jobs_session", "model_jobs", ["session_id", "created_at", "id"])
    op.create_index("ix_model_jobs_open", "model_jobs", ["state", "kind", "created_at"])
    op.add_column("model_versions", sa.Column("last_evaluation", sa.JSON))


def downgrade() -> None:
    """Drop the table and the column, with all they hold."""
    with op.batch_alter_table("model_versions") as batch:
        batch.drop_column("last_evaluation")
    op.drop_table("model_jobs")
