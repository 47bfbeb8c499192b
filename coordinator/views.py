"""What the API answers: the shapes, and the pure functions that make them from rows."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import Field

from coordinator.credits import Credit
from coordinator.lifecycle import UserAction, possible_actions
from coordinator.models import LogRow, MetricRow, ParticipantRow, SessionRow
from coordinator.projection import Projection
from coordinator.scheduler import Reason, WaitCode
from cotrain.catalog import DatasetEntry, ModelEntry
from cotrain.estimate import Estimate
from cotrain.protocol import Hardware
from cotrain.reachability import Connection, connection_of
from cotrain.request import DEFAULT_PRIORITY, CamelModel, Visibility
from cotrain.sections import ModelType, Normalization, TaskName
from cotrain.status import Phase, State, Status

ItemT = TypeVar("ItemT", bound=CamelModel)
ParticipantState = Literal["online", "joining", "unreachable", "offline"]

SILENT_AFTER_S = 30.0
"""A participant that is connected but has sent no status for this long counts as unreachable."""


class Page(CamelModel, Generic[ItemT]):
    """A part of a list; `nextCursor` leads to the next part, null at the end."""

    items: list[ItemT]
    next_cursor: str | None = None


class WaitingForView(CamelModel):
    """Why a session does not train yet.

    In the queue: `limit`, `owner-limit`, `dataset`; let out of it: `preparing`; open: `peers` (too few nodes), `memory`
    (too few that are large enough), `joining` (enough, which have not begun).
    """

    code: WaitCode
    message: str
    """For people."""


class SessionView(CamelModel):
    """A session as people see it."""

    id: str
    name: str
    description: str
    owner: str
    """CAIP-10 account that opened it; empty for a session from before there were owners."""
    visibility: Visibility
    status: State
    process_rate: float
    error_msg: str
    last_train_at: str | None
    created_at: str
    updated_at: str
    url: str
    join_command: str
    round: int
    peers: int
    samples_committed: int
    samples_wanted: int
    loss: float | None
    validation_loss: float | None
    model_path: str
    possible_actions: list[UserAction]
    priority: int = DEFAULT_PRIORITY
    """In the queue, greater ones come first."""
    memory_bytes: int = 0
    """Memory that one node needs, about; 0 where nobody knows."""
    waiting_for: WaitingForView | None = None
    """Why it does not train yet; null if it waits for nothing."""


class OfferView(SessionView):
    """A session that a node could join."""

    missing_peers: int
    """Nodes that it lacks to begin; 0 if there are enough."""


class MemoryView(CamelModel):
    """Memory that one node needs at most, bytes. With GPUs, the first four are each GPU's."""

    total_bytes: int
    """Of the machine's own memory."""
    gpu_bytes: int
    """Of each GPU; 0 if the session trains on processors."""
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    outer_state_bytes: int
    """In shared memory (/dev/shm)."""
    averaging_bytes: int
    rounds_bytes: int
    program_bytes: int


class TrafficView(CamelModel):
    """What one node sends and receives in a round, bytes, when all nominal nodes take part."""

    sent_bytes: int
    received_bytes: int
    averaging_bytes: int
    """Of both: the averaging alone."""
    join_bytes: int
    """Received once: the outer state. Data and models come on top."""
    round_steps: int
    """Inner steps in a round."""


class EstimateView(CamelModel):
    """What a session asks of each node."""

    parameters: int
    memory: MemoryView
    traffic: TrafficView


class AdviceView(CamelModel):
    """Something to know about a request that is no mistake."""

    field: str
    """Path in the request; may be empty."""
    message: str
    hint: str = ""


class OutlookView(CamelModel):
    """What is known of a session before it runs."""

    estimate: EstimateView | None
    """null for a model that nobody knows the size of yet; `advice` says why."""
    advice: list[AdviceView]


class PreviewView(OutlookView):
    """A request, worked out; nothing has been stored."""

    config: str
    """The TOML that it would make."""
    shortage: str
    """Why a node of `memoryBytes` could not take part; empty if it could, or if nothing was asked."""


class OpenedView(SessionView, OutlookView):
    """A session that has just been opened."""


class ModelEntryView(CamelModel):
    """A model of the catalog."""

    id: str
    """For `model.source`."""
    name: str
    type: ModelType
    hugging_face_id: str | None
    path: str | None
    """In the coordinator's folder of models, where it has no `huggingFaceId`."""
    licence: str
    verified: bool
    """Whether id and licence were checked against its page."""
    language: str
    owner: str
    """CAIP-10 account that has added it; empty: it came with cotrain."""
    size_bytes: int
    """Of the download, about."""


class DatasetEntryView(CamelModel):
    """A dataset of the catalog."""

    id: str
    """For `data.dataset`."""
    name: str
    task: TaskName
    """What it is made for."""
    hugging_face_id: str | None
    path: str | None
    """In the coordinator's folder of datasets, where it has no `huggingFaceId`."""
    licence: str
    verified: bool
    """Whether id and licence were checked against its page."""
    language: str
    owner: str
    """CAIP-10 account that has added it; empty: it came with cotrain."""
    size: str
    files: str
    normalization: Normalization
    fields: dict[str, str]
    """What its columns are called."""


class ProgressView(Projection):
    """How far a session is."""

    session_id: str
    status: State
    error_msg: str
    model_path: str
    updated_at: str


class LogView(CamelModel):
    """One record of the training log; `source` is a participant's id, `checkpointer` or `coordinator`."""

    source: str
    run: str
    number: int
    time: float
    kind: str
    level: str
    message: str
    data: dict[str, Any]


class MetricView(CamelModel):
    """One point of the curves."""

    time: float
    round: int
    samples: int
    loss: float | None
    validation_loss: float | None
    tokens_per_second: float | None
    learning_rate: float | None
    """Of the inner optimizers, their mean; None for rounds of before it was kept."""


class PeerView(CamelModel):
    """The newest snapshot of a peer, as far as others need it."""

    status: State | None = None
    phase: Phase | None = None
    round: int = 0
    step: int = 0
    loss: float | None = None
    tokens: int = 0
    tokens_per_second: float | None = None
    compute_seconds: float = 0.0
    wall_seconds: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0
    digest: str = ""
    error_msg: str = ""
    waiting_for: str = ""
    waiting_since: float | None = None
    """Unix time, seconds."""
    last_train_at: str | None = None


class CreditView(CamelModel):
    """What a participant is credited for: not what it says, but what the rounds' decisions bear out."""

    samples: int
    """By which its contributions counted in the averages."""
    rounds: int
    """That it gave something to."""


class ParticipantView(PeerView):
    """A registered volunteer with its newest snapshot."""

    id: str
    peer_id: str
    account: str
    """The wallet that the peer acts for, CAIP-10."""
    name: str
    state: ParticipantState
    device: str
    hardware: Hardware
    credit: CreditView
    created_at: str
    last_seen_at: str | None
    last_sync_at: str | None
    """When it last took an outer step, as it says itself."""
    connection: Connection | None
    """How other peers connect to it; None: it has not said yet."""


class ParticipantsPage(Page[ParticipantView]):
    """The participants, and the coordinator's own peer beside them."""

    checkpointer: PeerView = Field(default_factory=PeerView)


def session_url(session: str, public_url: str) -> str:
    """A session's address, for people and for `cotrain node join`."""
    return f"{public_url}/s/{session}"


def session_view(row: SessionRow, progress: Projection, public_url: str, waits: Reason | None) -> SessionView:
    """A session with its present progress, and what it waits for."""
    url = session_url(row.id, public_url)
    shared = progress.model_dump(include=set(SessionView.model_fields) & set(Projection.model_fields))
    return SessionView(
        id=row.id, name=row.name, description=row.description, owner=row.owner, visibility=row.visibility,
        status=row.state,
        error_msg=row.error_msg, created_at=iso_time(row.created_at), updated_at=iso_time(row.updated_at), url=url,
        join_command=f"cotrain node join {url}", model_path=row.model_path,
        possible_actions=possible_actions(row.state), priority=row.priority, memory_bytes=row.memory_bytes,
        waiting_for=None if waits is None else WaitingForView(code=waits.code, message=waits.message), **shared,
    )  # fmt: skip


def offer_view(view: SessionView, missing_peers: int) -> OfferView:
    """A session as it is offered to nodes."""
    return OfferView(**view.model_dump(), missing_peers=missing_peers)


def estimate_view(found: Estimate) -> EstimateView:
    """An estimate as people see it."""
    memory = asdict(found.memory) | {"total_bytes": found.memory.total_bytes, "gpu_bytes": found.memory.gpu_bytes}
    return EstimateView(
        parameters=found.parameters,
        memory=MemoryView(**{name: memory[name] for name in MemoryView.model_fields}),
        traffic=TrafficView(**asdict(found.traffic)),
    )


def model_entry_view(entry: ModelEntry) -> ModelEntryView:
    """An entry of the catalog."""
    return ModelEntryView(**entry.model_dump())


def dataset_entry_view(entry: DatasetEntry) -> DatasetEntryView:
    """An entry of the catalog."""
    fields = entry.fields.model_dump(exclude_none=True)
    return DatasetEntryView(**entry.model_dump(exclude={"fields"}), fields=fields)


def progress_view(row: SessionRow, progress: Projection) -> ProgressView:
    """A session's progress in full."""
    return ProgressView(
        session_id=row.id, status=row.state, error_msg=row.error_msg, model_path=row.model_path,
        updated_at=iso_time(row.updated_at), **progress.model_dump(),
    )  # fmt: skip


def log_view(row: LogRow) -> LogView:
    """A stored record."""
    return LogView(**{name: getattr(row, name) for name in LogView.model_fields})


def metric_view(row: MetricRow) -> MetricView:
    """A stored point."""
    return MetricView(**{name: getattr(row, name) for name in MetricView.model_fields})


def peer_view(status: Status | None) -> PeerView:
    """A snapshot as far as others need it; an empty one for a peer that has sent none."""
    if status is None:
        return PeerView()
    return PeerView(**status.model_dump(include=set(PeerView.model_fields)))


def participant_view(row: ParticipantRow, credit: Credit, *, connected: bool, clock: float) -> ParticipantView:
    """A participant as it is at `clock` (Unix seconds)."""
    status = Status.model_validate(row.status) if row.status else None
    hardware = Hardware.model_validate(row.hardware)
    return ParticipantView(
        id=row.id, peer_id=row.peer_id, account=row.account, name=row.name, hardware=hardware,
        device=(status.device if status else "") or hardware.device,
        state=participant_state(status, row.last_seen_at, connected=connected, clock=clock),
        credit=CreditView(samples=credit.samples, rounds=credit.rounds), created_at=iso_time(row.created_at),
        last_seen_at=None if row.last_seen_at is None else iso_time(row.last_seen_at),
        last_sync_at=None if row.last_sync_at is None else iso_time(row.last_sync_at),
        connection=None if status is None else connection_of(row.role, status.addresses),
        **peer_view(status).model_dump(),
    )  # fmt: skip


def participant_state(
    status: Status | None, last_seen_at: float | None, *, connected: bool, clock: float
) -> ParticipantState:
    """One of the four honest states: what the coordinator knows, not what it hopes."""
    if not connected:
        return "offline"
    if last_seen_at is not None and clock - last_seen_at > SILENT_AFTER_S:
        return "unreachable"
    if status is None or status.phase in ("starting", "joining", "downloading"):
        return "joining"
    return "online"


def iso_time(seconds: float) -> str:
    """Unix seconds -> ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
