"""What a version of a model says of itself, and which prepared data a session trains on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_VERSION = ("pinned", "round", "parameters")


def upgrade() -> None:
    """Add the columns; of what is there already none of it is known."""
    op.add_column("model_versions", sa.Column("parameters", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("model_versions", sa.Column("round", sa.BigInteger))
    op.add_column("model_versions", sa.Column("pinned", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("sessions", sa.Column("data_key", sa.String(64), nullable=False, server_default=""))


def downgrade() -> None:
    """Drop the columns, with all they hold."""
    with op.batch_alter_table("sessions") as batch:
        batch.drop_column("data_key")
    with op.batch_alter_table("model_versions") as batch:
        for column in _VERSION:
            batch.drop_column(column)
