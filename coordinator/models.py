"""The tables. Times are Unix seconds; JSON columns hold what pydantic models dumped in camelCase."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from cotrain.status import State


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own name and form
        dict[str, Any]: JSON(none_as_null=True),
        list[dict[str, Any]]: JSON(none_as_null=True),
        float: Double(),  # a Unix time does not fit into single precision
    }


def _session_key(**options: Any) -> Mapped[str]:
    return mapped_column(String(63), ForeignKey("sessions.id", ondelete="CASCADE"), **options)


class SessionRow(Base):
    """One collaborative training."""

    __tablename__ = "sessions"
    __table_args__ = (Index("ix_sessions_created", "created_at", "id"),)

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    description: Mapped[str] = mapped_column(Text)
    state: Mapped[State] = mapped_column(String(16))
    error_msg: Mapped[str] = mapped_column(Text, default="")
    model_path: Mapped[str] = mapped_column(Text, default="")
    config: Mapped[str] = mapped_column(Text)
    """The session's TOML; the file under `configs/generated` is a copy of it."""
    assets: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    asset_folder: Mapped[str] = mapped_column(Text, default="")
    progress: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    """The last projection, kept for the values that nobody sends any more."""
    checkpointer_status: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    created_at: Mapped[float]
    updated_at: Mapped[float]


class ParticipantRow(Base):
    """A registered volunteer."""

    __tablename__ = "participants"
    __table_args__ = (UniqueConstraint("session_id", "peer_id"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    session_id: Mapped[str] = _session_key()
    peer_id: Mapped[str] = mapped_column(String(128))
    name: Mapped[str] = mapped_column(String(80))
    hardware: Mapped[dict[str, Any]]
    token_sha256: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    """The last `participant.state` that was announced."""
    status: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    created_at: Mapped[float]
    last_seen_at: Mapped[float | None] = mapped_column(default=None)


class RunRow(Base):
    """How far one run of a participant (or of the checkpointer) has been applied."""

    __tablename__ = "runs"

    session_id: Mapped[str] = _session_key(primary_key=True)
    source: Mapped[str] = mapped_column(String(32), primary_key=True)
    """Participant id, or `checkpointer`."""
    run: Mapped[str] = mapped_column(String(64), primary_key=True)
    applied_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    last_record: Mapped[int] = mapped_column(BigInteger, default=0)
    updated_at: Mapped[float]


class EventRow(Base):
    """The session's event log; `seq` rises by one."""

    __tablename__ = "events"

    session_id: Mapped[str] = _session_key(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    time: Mapped[float]
    type: Mapped[str] = mapped_column(String(32))
    data: Mapped[dict[str, Any]]


class LogRow(Base):
    """One record of somebody's training log."""

    __tablename__ = "training_logs"
    __table_args__ = (
        UniqueConstraint("session_id", "source", "run", "number"),
        Index("ix_training_logs_session", "session_id", "id"),
    )

    # SQLite numbers rows by itself only in a column of exactly this type
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    session_id: Mapped[str] = _session_key()
    source: Mapped[str] = mapped_column(String(32))
    run: Mapped[str] = mapped_column(String(64))
    number: Mapped[int] = mapped_column(BigInteger)
    time: Mapped[float]
    kind: Mapped[str] = mapped_column(String(16))
    level: Mapped[str] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]]


class MetricRow(Base):
    """One point of the session's curves: a round."""

    __tablename__ = "metrics"

    session_id: Mapped[str] = _session_key(primary_key=True)
    round: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    time: Mapped[float]
    samples: Mapped[int] = mapped_column(BigInteger)
    loss: Mapped[float | None]
    validation_loss: Mapped[float | None]
    tokens_per_second: Mapped[float | None]
