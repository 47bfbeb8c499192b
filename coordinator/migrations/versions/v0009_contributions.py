"""What participants are credited for, and the rounds that were counted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables. Of rounds before, nobody knows what to credit."""
    op.create_table(
        "contributions",
        sa.Column(
            "participant_id", sa.String(32), sa.ForeignKey("participants.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("session_id", sa.String(63), sa.ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
        sa.Column("rounds", sa.BigInteger, nullable=False),
        sa.Column("samples", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_contributions_session_id", "contributions", ["session_id"])
    op.create_table(
        "credited_rounds",
        sa.Column("session_id", sa.String(63), sa.ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("round", sa.BigInteger, primary_key=True, autoincrement=False),
    )
    op.add_column("model_versions", sa.Column("uncredited_rounds", sa.BigInteger))


def downgrade() -> None:
    """Drop the tables and the column, with all they hold."""
    with op.batch_alter_table("model_versions") as batch:
        batch.drop_column("uncredited_rounds")
    op.drop_table("credited_rounds")
    op.drop_table("contributions")
