"""Status: one snapshot of a run, replaced atomically and read tolerantly; Control: the wish sent back.

The training process (and the checkpointer) writes `status.json`; whoever supervises it writes `control.json`
beside it. Both are whole files: a reader sees the old or the new one, never half of either.
"""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from cotrain.request import CamelModel
from cotrain.sections import LARGEST_INTEGER, Count, PositiveInt

MAX_STATUS_BYTES = 256 * 1024
MAX_RECORDS = 32
MAX_RECORDS_BYTES = 192 * 1024
"""Of JSON: a record of a round has a line for each member."""
LOCAL_PEER = "local"
"""What stands for the peer id in a run without a swarm."""

State = Literal[
    "draft",
    "pending",
    "waiting",
    "training",
    "paused",
    "stopping",
    "stopped",
    "completed",
    "failed",
    "cancelled",
]
FINAL_STATES: frozenset[str] = frozenset({"stopped", "completed", "failed", "cancelled"})
Phase = Literal["starting", "joining", "downloading", "training", "averaging", "finishing", "done"]
WishName = Literal["run", "pause", "stop", "cancel"]
RecordKind = Literal["phase", "round", "evaluation", "log"]

PHASE_PERCENT: dict[str, tuple[float, float]] = {
    "starting": (0.0, 1.0),
    "joining": (1.0, 2.0),
    "downloading": (2.0, 5.0),
    "training": (5.0, 98.0),
    "averaging": (5.0, 98.0),
    "finishing": (98.0, 100.0),
    "done": (100.0, 100.0),
}
"""The published range of `processRate` in each phase, in percent."""

_Integer = Annotated[int, Field(ge=-LARGEST_INTEGER, le=LARGEST_INTEGER)]


class TrainingStopped(Exception):
    """Raised at an inner step when a person wants the run interrupted; `wish` says how."""

    def __init__(self, wish: WishName):
        super().__init__(wish)
        self.wish = wish


class Record(CamelModel):
    """One entry of a run's training log. Numbered from 1 within a run, so that a merge of snapshots loses none."""

    number: PositiveInt
    time: float
    """Unix time, seconds."""
    kind: RecordKind
    message: Annotated[str, Field(max_length=1000)]
    level: Literal["info", "warning", "error"] = "info"
    data: dict[str, str | _Integer | float | bool | list[str] | None] = Field(default_factory=dict)


class Status(CamelModel):
    """One snapshot of a run (R4.3 and R3.8)."""

    session: str
    peer: str
    """libp2p peer id, or `checkpointer`."""
    run: str
    """Identifier of this process lifetime; a new process has a new one."""
    sequence: Count
    """Number of the snapshot within the run, rising by one."""
    updated_at: float
    """Unix time, seconds."""
    status: State
    phase: Phase
    process_rate: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    error_msg: str = ""
    error_code: str = ""
    last_train_at: str | None = None
    """When the run last trained, ISO 8601 UTC."""

    step: Count = 0
    """Inner steps of this run."""
    round: Count = 0
    """Rounds whose outer step has been taken by the swarm."""
    loss: float | None = None
    """Training loss, nats per token, smoothed over recent inner steps."""
    validation_loss: float | None = None
    """Loss of the outer parameters on the validation split, nats per token."""
    validation_round: Count | None = None
    learning_rate: float | None = None
    accuracy: float | None = None
    """Share of next tokens predicted right, over the last evaluation."""
    batch_size: Count | None = None
    samples_committed: Count = 0
    """Samples that the swarm's outer state has taken in."""
    samples_pending: Count = 0
    """Samples this run has trained on since, which no round has committed yet."""
    samples_wanted: Count = 0
    tokens: Count = 0
    """Tokens this run has trained on."""
    tokens_per_second: float | None = None
    """Over the life of this run, averaging included."""
    compute_seconds: float = 0.0
    """Wall time spent in inner steps."""
    wall_seconds: float = 0.0
    """Wall time since the first inner step began."""
    peers: Count = 0
    """Peers in the swarm, this one included, the checkpointer not."""
    digest: str = ""
    """SHA-256 of the outer state, hexadecimal."""
    bytes_sent: Count = 0
    bytes_received: Count = 0
    parameters: Count = 0
    device: str = ""
    model_path: str = ""
    addresses: list[str] = Field(default_factory=list)
    """libp2p addresses of the peer."""
    baselines: dict[str, float] = Field(default_factory=dict)
    """Losses of trivial predictors on the same validation text (unigrams, bigrams), nats per target."""
    waiting_for: str = ""
    """What the run waits for now, empty if for nothing: it may train meanwhile."""
    waiting_since: float | None = None
    """Unix time, seconds."""
    records: list[Record] = Field(default_factory=list)
    """The newest records, at most 32, oldest first."""


class Control(CamelModel):
    """The wish of a person, on its way to the training process."""

    wish: WishName = "run"
    reason: str = ""


def read_status(path: Path) -> Status:
    """Read a snapshot. Raises OSError if there is none, ValueError if it is not one (partial, huge, NaN, a link)."""
    return Status.model_validate(read_json_object(path))


def read_json_object(path: Path, *, limit_bytes: int = MAX_STATUS_BYTES) -> dict[str, Any]:
    """A JSON object from a regular file of at most `limit_bytes`; links are not followed. OSError or ValueError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        raw = file.read(limit_bytes + 1)
    if len(raw) > limit_bytes:
        raise ValueError(f"{path} has more than {limit_bytes} bytes")

    def refuse(name: str) -> float:
        raise ValueError(f"{path} holds {name}")

    try:
        value = json.loads(raw, parse_constant=refuse)
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return value


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step: a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def write_status(path: Path, status: Status) -> None:
    """Replace `status.json` atomically."""
    replace_file(path, status.model_dump_json(by_alias=True).encode())


def write_control(path: Path, control: Control) -> None:
    """Replace `control.json` atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, control.model_dump_json(by_alias=True).encode())


def read_control(path: Path) -> Control:
    """The present wish: `run` if there is no file, or none that can be read."""
    try:
        return Control.model_validate(read_json_object(path))
    except (OSError, ValueError, ValidationError):
        return Control()


def iso_now() -> str:
    """The present time, ISO 8601 in UTC with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def process_rate(phase: Phase, samples: int, wanted: int) -> float:
    """Percent done: the phase's published range, filled by the share of wanted samples."""
    low, high = PHASE_PERCENT[phase]
    share = min(1.0, samples / wanted) if wanted > 0 else 0.0
    return round(low + (high - low) * share, 3)


def now() -> float:
    """Unix time in seconds: the one clock of everything that is written for others to read."""
    return time.time()
