"""The learning cycles."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "learning_cycles",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("model_id", sa.String(63), nullable=False),
        sa.Column("trigger", sa.String(16), nullable=False),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("outcome", sa.String(24)),
        sa.Column("dataset_version", sa.Integer),
        sa.Column("chats_until", sa.BigInteger, nullable=False),
        sa.Column("figures", sa.JSON, nullable=False),
        sa.Column("base_version", sa.Integer),
        sa.Column("session_id", sa.String(63)),
        sa.Column("new_version", sa.Integer),
        sa.Column("old_loss", sa.Double),
        sa.Column("new_loss", sa.Double),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
    )
    op.create_index("ix_learning_cycles_created", "learning_cycles", ["created_at", "id"])
    op.create_index("ix_learning_cycles_stage", "learning_cycles", ["stage"])


def downgrade() -> None:
    """Drop the table, with all it holds."""
    op.drop_table("learning_cycles")
