"""The learning rate of each round."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column. Of rounds before, nobody knows it."""
    op.add_column("metrics", sa.Column("learning_rate", sa.Double))


def downgrade() -> None:
    """Drop the column, with all it holds."""
    with op.batch_alter_table("metrics") as batch:
        batch.drop_column("learning_rate")
