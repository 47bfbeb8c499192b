"""The tables. Times are Unix seconds; JSON columns hold what pydantic models dumped in camelCase."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Double, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from cotrain.membership.certificate import Role
from cotrain.request import DEFAULT_PRIORITY, Visibility
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
    data_key: Mapped[str] = mapped_column(String(64), default="")
    """Of its prepared data: the same key, the same samples. Empty before they are prepared, and where not known."""
    progress: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    """The last projection, kept for the values that nobody sends any more."""
    checkpointer_status: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    owner: Mapped[str] = mapped_column(String(128), default="")
    """The account that opened it; empty for one from before there were owners."""
    dataset: Mapped[str] = mapped_column(String(128), default="")
    """What it trains on, by a key that is the same for the same data; empty where that is not known."""
    shares_dataset: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether others may train on the same data at the same time."""
    memory_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    """What a peer needs, as estimated; 0 where that is not known."""
    priority: Mapped[int] = mapped_column(Integer, default=DEFAULT_PRIORITY)
    """In the queue, greater ones come first."""
    visibility: Mapped[Visibility] = mapped_column(String(16), default="public")
    """Never changes."""
    created_at: Mapped[float]
    updated_at: Mapped[float]


class ParticipantRow(Base):
    """A registered volunteer."""

    __tablename__ = "participants"
    __table_args__ = (
        UniqueConstraint("session_id", "peer_id"),
        Index("ix_participants_account", "session_id", "account"),
        Index("ix_participants_created", "session_id", "created_at", "id"),
        Index("ix_participants_newest", "created_at"),
        Index("ix_participants_token", "token_sha256"),
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
    last_sync_at: Mapped[float | None] = mapped_column(default=None)
    """When it last took an outer step, as it says itself."""


class InvitationRow(Base):
    """Who may see and join a private session: whoever has a token, or a wallet."""

    __tablename__ = "invitations"
    __table_args__ = (
        UniqueConstraint("session_id", "wallet"),
        Index("ix_invitations_created", "session_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    session_id: Mapped[str] = _session_key()
    wallet: Mapped[str | None] = mapped_column(String(128), default=None)
    """CAIP-10 account; without one there is a token."""
    token_sha256: Mapped[str | None] = mapped_column(String(64), unique=True, default=None)
    uses: Mapped[int] = mapped_column(Integer, default=0)
    """How many accounts the token lets in."""
    used: Mapped[int] = mapped_column(Integer, default=0)
    """How many it has let in."""
    expires_at: Mapped[float | None] = mapped_column(default=None)
    created_at: Mapped[float]


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
    learning_rate: Mapped[float | None] = mapped_column(default=None)


class ContributionRow(Base):
    """What a participant is credited for, over all rounds that were counted."""

    __tablename__ = "contributions"

    participant_id: Mapped[str] = mapped_column(
        String(32), ForeignKey("participants.id", ondelete="CASCADE"), primary_key=True
    )
    session_id: Mapped[str] = _session_key(index=True)
    rounds: Mapped[int] = mapped_column(BigInteger)
    samples: Mapped[int] = mapped_column(BigInteger)


class CreditedRoundRow(Base):
    """A round that was counted in `contributions`: none is counted twice."""

    __tablename__ = "credited_rounds"

    session_id: Mapped[str] = _session_key(primary_key=True)
    round: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


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


class JobRow(Base):
    """A session's training in the queue."""

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_queue", "state", "priority", "created_at"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    session_id: Mapped[str] = _session_key(index=True)
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    """`queued`, `running`, `done`, `failed` or `cancelled`."""
    priority: Mapped[int] = mapped_column(Integer, default=0)
    """Greater ones come first."""
    wait_reason: Mapped[str] = mapped_column(Text, default="")
    """Why it is still queued, for people."""
    wait_code: Mapped[str] = mapped_column(String(16), default="")
    """The same for programs."""
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    error_msg: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[float]
    started_at: Mapped[float | None] = mapped_column(default=None)
    ended_at: Mapped[float | None] = mapped_column(default=None)


class AssetRow(Base):
    """A file in the data folder, by content; sessions name theirs in their manifest."""

    __tablename__ = "assets"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    """What it is for; any word, so that other kinds can be kept as well."""
    name: Mapped[str] = mapped_column(String(255))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    path: Mapped[str] = mapped_column(Text)
    """Relative to the data folder."""
    source: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[float]
    last_used_at: Mapped[float] = mapped_column(index=True)
    """Clean-up takes those that nobody has used for longest."""


class DatasetRow(Base):
    """Data that sessions have trained on."""

    __tablename__ = "datasets"

    fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 of the prepared samples."""
    name: Mapped[str] = mapped_column(String(200))
    source: Mapped[str] = mapped_column(Text)
    task: Mapped[str] = mapped_column(String(64), default="")
    samples: Mapped[int] = mapped_column(BigInteger, default=0)
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[float]


class CatalogEntryRow(Base):
    """A model or a dataset that somebody has added to the catalog."""

    __tablename__ = "catalog_entries"

    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    """`model` or `dataset`."""
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    owner: Mapped[str] = mapped_column(String(128))
    entry: Mapped[dict[str, Any]]
    created_at: Mapped[float]


class IdempotencyRow(Base):
    """What a request with an `Idempotency-Key` was answered."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("ix_idempotency_keys_created", "created_at"),)

    account: Mapped[str] = mapped_column(String(128), primary_key=True)
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(String(64))
    """Of method, path and body."""
    answer: Mapped[str] = mapped_column(Text)
    """The model as JSON, sealed where it holds a secret."""
    created_at: Mapped[float]
