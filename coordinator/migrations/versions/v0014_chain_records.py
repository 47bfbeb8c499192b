"""Records of sessions on a chain, and the transactions that bring them there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_NUMBERED = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the two tables; sessions from before have no records."""
    op.create_table(
        "chain_records",
        sa.Column("id", _NUMBERED, primary_key=True, autoincrement=True),
        sa.Column("session_id", sa.String(63), nullable=False),
        sa.Column("visibility", sa.String(16), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("chain", sa.String(32), nullable=False),
        sa.Column("contract", sa.String(42), nullable=False),
        sa.Column("opener", sa.String(42), nullable=False),
        sa.Column("config_hash", sa.String(64), nullable=False),
        sa.Column("final_digest", sa.String(64), nullable=False),
        sa.Column("contributions_root", sa.String(64), nullable=False),
        sa.Column("total_samples", sa.BigInteger, nullable=False),
        sa.Column("shares", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("nonce", sa.BigInteger),
        sa.Column("tx_hash", sa.String(66), nullable=False),
        sa.Column("block_number", sa.BigInteger),
        sa.Column("block_hash", sa.String(66), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.UniqueConstraint("session_id", "kind"),
    )
    op.create_index("ix_chain_records_state", "chain_records", ["state", "id"])
    op.create_table(
        "chain_transactions",
        sa.Column("id", _NUMBERED, primary_key=True, autoincrement=True),
        sa.Column("record_id", _NUMBERED, sa.ForeignKey("chain_records.id", ondelete="CASCADE"), nullable=False),
        sa.Column("tx_hash", sa.String(66), nullable=False, unique=True),
        sa.Column("nonce", sa.BigInteger, nullable=False),
        sa.Column("raw", sa.Text, nullable=False),
        sa.Column("gas", sa.BigInteger, nullable=False),
        sa.Column("most_fee_wei", sa.BigInteger, nullable=False),
        sa.Column("tip_wei", sa.BigInteger, nullable=False),
        sa.Column("signed_at", sa.Double, nullable=False),
        sa.Column("sent_at", sa.Double),
    )
    op.create_index("ix_chain_transactions_record", "chain_transactions", ["record_id"])


def downgrade() -> None:
    """Drop the tables, with all they hold; what stands on the chain stays there."""
    op.drop_table("chain_transactions")
    op.drop_table("chain_records")
