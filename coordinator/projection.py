"""A session's progress, projected from what its peers last said. Pure.

What the swarm has reached (round, samples, validation loss) is taken from the checkpointer alone: a
participant could claim anything. What the machines are doing (loss, speed) is taken from the connected
participants.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import Field

from cotrain.protocol import Progress, ProgressMetrics
from cotrain.request import CamelModel
from cotrain.status import Phase, State, Status, process_rate

_PHASES: dict[State, Phase] = {"pending": "starting", "waiting": "joining", "completed": "done"}


class Projection(CamelModel):
    """How far a session is. Losses are nats per token; `processRate` is percent."""

    process_rate: float = 0.0
    round: int = 0
    samples_committed: int = 0
    samples_wanted: int = 0
    loss: float | None = None
    validation_loss: float | None = None
    accuracy: float | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    tokens_per_second: float | None = None
    compute_fraction: float | None = None
    peers: int = 0
    digest: str = ""
    parameters: int = 0
    baselines: dict[str, float] = Field(default_factory=dict)
    """Losses of trivial predictors on the same validation text, by name."""
    last_train_at: str | None = None


def project(
    state: State,
    checkpointer: Status | None,
    participants: Sequence[Status],
    *,
    connected: int,
    previous: Projection,
) -> Projection:
    """The progress now.

    Args:
        state: the session's state.
        checkpointer: the checkpointer's newest snapshot.
        participants: the newest snapshots of the connected participants.
        connected: participants connected, those without a snapshot too.
        previous: the projection before; its values stay where nobody says anything newer.
    """
    reached = checkpointer or _EMPTY
    newest_train = max((s.last_train_at for s in participants if s.last_train_at), default=None)
    return Projection(
        process_rate=session_rate(state, reached.samples_committed, reached.samples_wanted),
        round=reached.round,
        samples_committed=reached.samples_committed,
        samples_wanted=reached.samples_wanted,
        loss=_first(mean(s.loss for s in participants), previous.loss),
        validation_loss=_first(reached.validation_loss, previous.validation_loss),
        accuracy=_first(reached.accuracy, previous.accuracy),
        learning_rate=_first(mean(s.learning_rate for s in participants), previous.learning_rate),
        batch_size=next((s.batch_size for s in participants if s.batch_size), previous.batch_size),
        tokens_per_second=total_speed(participants),
        compute_fraction=compute_fraction(participants),
        peers=connected,
        digest=reached.digest,
        parameters=reached.parameters,
        baselines=reached.baselines,
        last_train_at=max(filter(None, (newest_train, previous.last_train_at)), default=None),
    )


def session_rate(state: State, samples: int, wanted: int) -> float:
    """Percent done, 0 to 100: rises with the samples; a session that ends early stays where it was."""
    if state == "draft" or (samples == 0 and state not in ("training", "completed", "pending", "waiting")):
        return 0.0
    # a session that waits again after a pause keeps what it has reached
    phase = "training" if samples > 0 and state != "completed" else _PHASES.get(state, "training")
    return process_rate(phase, samples, wanted)


def progress_event(session: str, projection: Projection) -> Progress:
    """The data of `training.progress`, in the seed's form."""
    shared = set(ProgressMetrics.model_fields) & set(Projection.model_fields)
    return Progress(
        session_id=session,
        progress=projection.process_rate,
        loss=projection.loss,
        participants=projection.peers,
        metrics=ProgressMetrics(**projection.model_dump(include=shared)),
    )


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there, None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def total_speed(participants: Sequence[Status]) -> float | None:
    """Tokens per second of all participants that are training, None if nobody says."""
    known = [s.tokens_per_second for s in participants if s.tokens_per_second is not None and s.status == "training"]
    return sum(known) if known else None


def compute_fraction(participants: Sequence[Status]) -> float | None:
    """Share of their wall time that the participants spent in inner steps, None before the first step."""
    wall = sum(s.wall_seconds for s in participants)
    return min(1.0, sum(s.compute_seconds for s in participants) / wall) if wall > 0 else None


def _first(value: float | None, otherwise: float | None) -> float | None:
    return otherwise if value is None else value


_EMPTY = Status(session="", peer="checkpointer", run="", sequence=0, updated_at=0.0, status="pending", phase="starting")
