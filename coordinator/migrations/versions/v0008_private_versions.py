"""Versions of models are public or private, as the sessions that made them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column. What a session made that is no longer there stays public: nobody knows what it was."""
    op.add_column("model_versions", sa.Column("visibility", sa.String(16), nullable=False, server_default="public"))
    op.execute(
        "UPDATE model_versions SET visibility = 'private' "
        "WHERE session_id IN (SELECT id FROM sessions WHERE visibility = 'private')"
    )


def downgrade() -> None:
    """Drop the column."""
    with op.batch_alter_table("model_versions") as batch:
        batch.drop_column("visibility")
