"""Accounts, challenges, sign-ins and certificates; owners of sessions and of participants."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ACCOUNT = sa.String(128)


def upgrade() -> None:
    """Make the tables. What was there before belongs to nobody: only operators may steer it."""
    op.add_column("sessions", sa.Column("owner", _ACCOUNT, nullable=False, server_default=""))
    op.add_column("participants", sa.Column("account", _ACCOUNT, nullable=False, server_default=""))
    op.add_column("participants", sa.Column("role", sa.String(16), nullable=False, server_default="reduce"))
    op.add_column("participants", sa.Column("bond_expires_at", sa.Double, nullable=False, server_default="0"))
    op.add_column("participants", sa.Column("removed_at", sa.Double))
    op.create_index("ix_participants_account", "participants", ["session_id", "account"])
    _make_sign_in()
    _make_certificates()


def downgrade() -> None:
    """Drop the tables and columns, with all they hold."""
    for table in ("certificates", "bonds", "sign_ins", "challenges", "accounts"):
        op.drop_table(table)
    op.drop_index("ix_participants_account", "participants")
    for table, columns in (
        ("participants", ("removed_at", "bond_expires_at", "role", "account")),
        ("sessions", ("owner",)),
    ):
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.drop_column(column)


def _make_sign_in() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", _ACCOUNT, primary_key=True),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("last_seen_at", sa.Double, nullable=False),
    )
    op.create_table(
        "challenges",
        sa.Column("nonce", sa.String(64), primary_key=True),
        sa.Column("account", _ACCOUNT, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("used_at", sa.Double),
    )
    op.create_index("ix_challenges_expires", "challenges", ["expires_at"])
    op.create_table(
        "sign_ins",
        sa.Column("token_sha256", sa.String(64), primary_key=True),
        sa.Column("account", _ACCOUNT, sa.ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("revoked_at", sa.Double),
    )
    op.create_index("ix_sign_ins_expires", "sign_ins", ["expires_at"])


def _make_certificates() -> None:
    op.create_table(
        "bonds",
        sa.Column("nonce", sa.String(64), primary_key=True),
        sa.Column("expires_at", sa.Double, nullable=False),
    )
    op.create_index("ix_bonds_expires", "bonds", ["expires_at"])
    op.create_table(
        "certificates",
        sa.Column("serial", sa.String(32), primary_key=True),
        sa.Column("session_id", sa.String(63), sa.ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
        sa.Column("participant_id", sa.String(32), nullable=False),
        sa.Column("issued_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("revoked_at", sa.Double),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
    )
    op.create_index("ix_certificates_participant", "certificates", ["participant_id"])
    op.create_index("ix_certificates_session", "certificates", ["session_id", "revoked_at"])
