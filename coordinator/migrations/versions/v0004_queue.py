"""What the queue keeps of each session, and an index for the newest participants."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Sessions that are there already have the priority of those that ask for none."""
    op.add_column("sessions", sa.Column("priority", sa.Integer, nullable=False, server_default="5"))
    op.add_column("jobs", sa.Column("wait_code", sa.String(16), nullable=False, server_default=""))
    op.create_index("ix_participants_newest", "participants", ["created_at"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_participants_newest", "participants")
    for table, column in (("jobs", "wait_code"), ("sessions", "priority")):
        with op.batch_alter_table(table) as batch:
            batch.drop_column(column)
