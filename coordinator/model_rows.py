"""The tables of models, their versions, and the jobs that are done to them; those of everything else: `models.py`."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from coordinator.models import Base
from cotrain.request import Visibility

JobKind = Literal["save", "evaluate"]
JobState = Literal["queued", "running", "completed", "failed"]


class ModelRow(Base):
    """A named model; what was trained are its versions."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    name: Mapped[str] = mapped_column(String(120), unique=True)
    owner: Mapped[str] = mapped_column(String(128))
    promoted_version: Mapped[int | None] = mapped_column(Integer, default=None)
    """The version that answers chats; None: the newest one that can."""
    created_at: Mapped[float]


class ModelVersionRow(Base):
    """What one session made of a model. It outlives the session."""

    __tablename__ = "model_versions"

    model_id: Mapped[str] = mapped_column(String(63), ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    session_id: Mapped[str | None] = mapped_column(
        String(63), ForeignKey("sessions.id", ondelete="SET NULL"), index=True
    )
    config: Mapped[str] = mapped_column(Text)
    """The TOML that it was trained from."""
    data_fingerprint: Mapped[str] = mapped_column(String(64), default="")
    """The session's `data_key`; empty where that is not known."""
    contributors: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    uncredited_rounds: Mapped[int | None] = mapped_column(BigInteger, default=None)
    """Of its session: rounds of which it is not known who gave what; None where not even their number is known."""
    evaluation: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    last_evaluation: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    """What the newest evaluation that somebody asked for has found."""
    path: Mapped[str] = mapped_column(Text)
    """Relative to the data folder; empty once its files have been removed."""
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    parameters: Mapped[int] = mapped_column(BigInteger, default=0)
    """0 where that is not known."""
    round: Mapped[int | None] = mapped_column(BigInteger, default=None)
    """Whose outer parameters it has."""
    pinned: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether its files stay, however many newer versions there are."""
    visibility: Mapped[Visibility] = mapped_column(String(16), default="public")
    """Its session's; what is private stays so without the session, and then the model's owner alone sees it."""
    created_at: Mapped[float]


class ModelJobRow(Base):
    """What somebody asked to be done to a model beside its training: saved, or evaluated."""

    __tablename__ = "model_jobs"
    __table_args__ = (
        Index("ix_model_jobs_account", "account", "created_at", "id"),
        Index("ix_model_jobs_session", "session_id", "created_at", "id"),
        Index("ix_model_jobs_open", "state", "kind", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[JobKind] = mapped_column(String(16))
    state: Mapped[JobState] = mapped_column(String(16))
    account: Mapped[str] = mapped_column(String(128))
    session_id: Mapped[str | None] = mapped_column(String(63), ForeignKey("sessions.id", ondelete="SET NULL"))
    model_id: Mapped[str | None] = mapped_column(String(63), ForeignKey("models.id", ondelete="CASCADE"))
    version: Mapped[int | None] = mapped_column(Integer)
    asked: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    message: Mapped[str] = mapped_column(Text, default="")
    hint: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[float]
    updated_at: Mapped[float]
