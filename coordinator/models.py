"""The tables. Times are Unix seconds; JSON columns hold what pydantic models dumped in camelCase."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from cotrain.membership.certificate import Role
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
    owner: Mapped[str] = mapped_column(String(128), default="")
    """The account that opened it; empty for one from before there were owners."""
    created_at: Mapped[float]
    updated_at: Mapped[float]


class ParticipantRow(Base):
    """A registered volunteer."""

    __tablename__ = "participants"
    __table_args__ = (
        UniqueConstraint("session_id", "peer_id"),
        Index("ix_participants_account", "session_id", "account"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    session_id: Mapped[str] = _session_key()
    peer_id: Mapped[str] = mapped_column(String(128))
    account: Mapped[str] = mapped_column(String(128), default="")
    """The wallet that has bound this peer to itself."""
    role: Mapped[Role] = mapped_column(String(16), default="reduce")
    bond_expires_at: Mapped[float] = mapped_column(default=0.0)
    removed_at: Mapped[float | None] = mapped_column(default=None)
    """When the owner removed it; it is not let in again."""
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


class AccountRow(Base):
    """A wallet that has signed in."""

    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    """CAIP-10."""
    created_at: Mapped[float]
    last_seen_at: Mapped[float]


class ChallengeRow(Base):
    """A text that a wallet has been asked to sign; answered once at most."""

    __tablename__ = "challenges"
    __table_args__ = (Index("ix_challenges_expires", "expires_at"),)

    nonce: Mapped[str] = mapped_column(String(64), primary_key=True)
    account: Mapped[str] = mapped_column(String(128))
    message: Mapped[str] = mapped_column(Text)
    """The exact text: what is verified is the signature over these bytes."""
    created_at: Mapped[float]
    expires_at: Mapped[float]
    used_at: Mapped[float | None] = mapped_column(default=None)


class SignInRow(Base):
    """A token that an account holds. Only its hash is kept."""

    __tablename__ = "sign_ins"
    __table_args__ = (Index("ix_sign_ins_expires", "expires_at"),)

    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    account: Mapped[str] = mapped_column(String(128), ForeignKey("accounts.id", ondelete="CASCADE"))
    created_at: Mapped[float]
    expires_at: Mapped[float]
    revoked_at: Mapped[float | None] = mapped_column(default=None)


class BondRow(Base):
    """The nonce of a wallet's statement for a peer, so that none serves twice."""

    __tablename__ = "bonds"
    __table_args__ = (Index("ix_bonds_expires", "expires_at"),)

    nonce: Mapped[str] = mapped_column(String(64), primary_key=True)
    expires_at: Mapped[float]


class CertificateRow(Base):
    """A membership certificate that was issued."""

    __tablename__ = "certificates"
    __table_args__ = (
        Index("ix_certificates_participant", "participant_id"),
        Index("ix_certificates_session", "session_id", "revoked_at"),
    )

    serial: Mapped[str] = mapped_column(String(32), primary_key=True)
    session_id: Mapped[str] = _session_key()
    participant_id: Mapped[str] = mapped_column(String(32))
    issued_at: Mapped[float]
    expires_at: Mapped[float]
    revoked_at: Mapped[float | None] = mapped_column(default=None)
    reason: Mapped[str] = mapped_column(Text, default="")
