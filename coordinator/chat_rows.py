"""The table of chats that are kept to be learnt from; tables of everything else: `models.py`, `model_rows.py`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from coordinator.models import Base


class ChatRow(Base):
    """A question and its answer, with the consent of whoever asked; without personal data."""

    __tablename__ = "chats"
    # a position that was used must not come again: what has been learnt from is cleared up to one
    __table_args__ = (Index("ix_chats_account", "account", "position"), {"sqlite_autoincrement": True})

    # SQLite numbers rows by itself only in a column of exactly this type
    position: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    """Rises: the oldest one is the lowest."""
    id: Mapped[str] = mapped_column(String(64), unique=True)
    """As the answer had it; whoever has it can rate the exchange, and delete it."""
    account: Mapped[str] = mapped_column(String(128), default="")
    """CAIP-10; empty for somebody who had not signed in."""
    consent: Mapped[str] = mapped_column(String(16))
    """How it was given: `request`, `header`, `import`."""
    model_id: Mapped[str] = mapped_column(String(63), default="")
    """Empty for one that was imported."""
    version: Mapped[int] = mapped_column(Integer, default=0)
    language: Mapped[str] = mapped_column(String(16))
    question: Mapped[str] = mapped_column(Text)
    answer: Mapped[str] = mapped_column(Text)
    rating: Mapped[int] = mapped_column(Integer, default=0)
    """1, 0 or -1."""
    created_at: Mapped[float]
