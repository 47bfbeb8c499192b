"""Private sessions and the invitations to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table. Sessions that are there already are public."""
    op.add_column("sessions", sa.Column("visibility", sa.String(16), nullable=False, server_default="public"))
    op.create_index("ix_participants_token", "participants", ["token_sha256"])
    op.create_table(
        "invitations",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("session_id", sa.String(63), sa.ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
        sa.Column("wallet", sa.String(128)),
        sa.Column("token_sha256", sa.String(64), unique=True),
        sa.Column("uses", sa.Integer, nullable=False),
        sa.Column("used", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.UniqueConstraint("session_id", "wallet"),
    )
    op.create_index("ix_invitations_created", "invitations", ["session_id", "created_at", "id"])


def downgrade() -> None:
    """Drop the table and the column, with all they hold."""
    op.drop_table("invitations")
    op.drop_index("ix_participants_token", "participants")
    with op.batch_alter_table("sessions") as batch:
        batch.drop_column("visibility")
