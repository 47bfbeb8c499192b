"""The table of learning cycles: the enhancement log, and how far the cycle that runs has come."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import BigInteger, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from coordinator.models import Base

Trigger = Literal["hand", "timer", "request"]
"""Who began a cycle: somebody at a shell, the clock, a request to the API."""
Stage = Literal["collecting", "switching", "training", "evaluating", "promoting", "reporting", "ended"]
"""What is done next."""
Outcome = Literal["promoted", "kept", "not-significant", "failed"]
"""Of a cycle: a better version is served; the old one was as good or better; too little was new to train for; no
session came to an end."""


class LearningCycleRow(Base):
    """One cycle. Each stage is committed before the next one begins, and may be done again after a crash."""

    __tablename__ = "learning_cycles"
    __table_args__ = (
        Index("ix_learning_cycles_created", "created_at", "id"),
        Index("ix_learning_cycles_stage", "stage"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    model_id: Mapped[str] = mapped_column(String(63))
    trigger: Mapped[Trigger] = mapped_column(String(16))
    stage: Mapped[Stage] = mapped_column(String(16))
    outcome: Mapped[Outcome | None] = mapped_column(String(24), default=None)
    dataset_version: Mapped[int | None] = mapped_column(Integer, default=None)
    """That it has made."""
    chats_until: Mapped[int] = mapped_column(BigInteger, default=0)
    """Position in the chat log up to which it has learnt."""
    figures: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What became of the data, as `CycleFigures`."""
    base_version: Mapped[int | None] = mapped_column(Integer, default=None)
    """Of the model, from which the session starts."""
    session_id: Mapped[str | None] = mapped_column(String(63), default=None)
    new_version: Mapped[int | None] = mapped_column(Integer, default=None)
    old_loss: Mapped[float | None] = mapped_column(default=None)
    """Validation loss on the held-out samples, in nats per target: of the base version."""
    new_loss: Mapped[float | None] = mapped_column(default=None)
    """Of the new one."""
    message: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[float]
    updated_at: Mapped[float]
