"""When each participant last took an outer step."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("participants", sa.Column("last_sync_at", sa.Double))


def downgrade() -> None:
    """Drop the column, with all it holds."""
    with op.batch_alter_table("participants") as batch:
        batch.drop_column("last_sync_at")
