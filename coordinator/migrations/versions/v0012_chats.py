"""Chats to learn from, and which version of a model answers them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, and the column. Of the models that there are, none has been promoted."""
    op.create_table(
        "chats",
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("account", sa.String(128), nullable=False),
        sa.Column("consent", sa.String(16), nullable=False),
        sa.Column("model_id", sa.String(63), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("language", sa.String(16), nullable=False),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("rating", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_chats_account", "chats", ["account", "position"])
    op.add_column("models", sa.Column("promoted_version", sa.Integer))


def downgrade() -> None:
    """Drop both, with all they hold."""
    with op.batch_alter_table("models") as batch:
        batch.drop_column("promoted_version")
    op.drop_table("chats")
