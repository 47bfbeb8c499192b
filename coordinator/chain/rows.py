"""The tables of what goes to the chain. Nothing in them refers to a session's row: records outlive their sessions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from coordinator.chain.machine import EntryState, Kind
from coordinator.models import Base
from cotrain.request import Visibility

_NUMBERED = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only in a column of exactly this type."""


class ChainEntryRow(Base):
    """The opening of a session, or its end, as it is to stand on the chain. Hashes are 64 hexadecimal digits."""

    __tablename__ = "chain_records"
    __table_args__ = (UniqueConstraint("session_id", "kind"), Index("ix_chain_records_state", "state", "id"))

    id: Mapped[int] = mapped_column(_NUMBERED, primary_key=True, autoincrement=True)
    """In the order in which they go to the chain."""
    session_id: Mapped[str] = mapped_column(String(63))
    visibility: Mapped[Visibility] = mapped_column(String(16))
    """Of the session: whoever may not see it may not see this."""
    kind: Mapped[Kind] = mapped_column(String(8))
    chain: Mapped[str] = mapped_column(String(32))
    """CAIP-2."""
    contract: Mapped[str] = mapped_column(String(42))
    opener: Mapped[str] = mapped_column(String(42))
    """Address that signs."""
    config_hash: Mapped[str] = mapped_column(String(64))
    final_digest: Mapped[str] = mapped_column(String(64), default="")
    contributions_root: Mapped[str] = mapped_column(String(64), default="")
    total_samples: Mapped[int] = mapped_column(BigInteger, default=0)
    shares: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    """Of an end: `{"account", "samples"}` of each account, from which the root is made."""
    state: Mapped[EntryState] = mapped_column(String(16), default="waiting")
    nonce: Mapped[int | None] = mapped_column(BigInteger, default=None)
    tx_hash: Mapped[str] = mapped_column(String(66), default="")
    """Of the transaction that is mined, else of the newest that was signed."""
    block_number: Mapped[int | None] = mapped_column(BigInteger, default=None)
    block_hash: Mapped[str] = mapped_column(String(66), default="")
    message: Mapped[str] = mapped_column(Text, default="")
    """Why it waits, or has failed, for people."""
    created_at: Mapped[float]
    updated_at: Mapped[float]
    transactions: Mapped[list[ChainTransactionRow]] = relationship(
        order_by="ChainTransactionRow.id", cascade="all, delete-orphan", lazy="selectin"
    )


class ChainTransactionRow(Base):
    """A signed transaction. It is here before anybody is sent it."""

    __tablename__ = "chain_transactions"
    __table_args__ = (Index("ix_chain_transactions_record", "record_id"),)

    id: Mapped[int] = mapped_column(_NUMBERED, primary_key=True, autoincrement=True)
    record_id: Mapped[int] = mapped_column(_NUMBERED, ForeignKey("chain_records.id", ondelete="CASCADE"))
    tx_hash: Mapped[str] = mapped_column(String(66), unique=True)
    nonce: Mapped[int] = mapped_column(BigInteger)
    raw: Mapped[str] = mapped_column(Text)
    """The bytes that are sent, 0x-hex."""
    gas: Mapped[int] = mapped_column(BigInteger)
    most_fee_wei: Mapped[int] = mapped_column(BigInteger)
    tip_wei: Mapped[int] = mapped_column(BigInteger)
    signed_at: Mapped[float]
    sent_at: Mapped[float | None] = mapped_column(default=None)
