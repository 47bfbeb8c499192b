"""What the API answers about auto-learning."""

from __future__ import annotations

from pydantic import Field

from coordinator.learning.rows import LearningCycleRow, Outcome, Stage, Trigger
from coordinator.views import iso_time
from cotrain.request import CamelModel


class CycleFigures(CamelModel):
    """What a cycle made of the chats that it found (R2.7)."""

    chats: int = 0
    """That it looked at."""
    original_size: int = 0
    """Samples for training before; and after."""
    final_size: int = 0
    held_out: int = 0
    """Samples that are kept for evaluation, besides."""
    growth_samples: int = 0
    growth_percent: float = 0.0
    """Of the original size; 100 where that was 0."""
    good: int = 0
    """Chats that were taken."""
    variations: int = 0
    """That were made of them and taken."""
    duplicates: int = 0
    """That were left out because a better sample says the same."""
    left: int = 0
    """Samples with the lowest scores that had to leave, since there is room for so many only."""
    seq_length: int | None = None
    """Tokens of a sample, in its training and its evaluations; null where the data are too short for any."""
    refused: dict[str, int] = Field(default_factory=dict)
    """Chats that were not taken, by the reason."""


class CycleView(CycleFigures):
    """A cycle."""

    id: str
    model: str
    trigger: Trigger
    stage: Stage
    """What it does at the moment."""
    outcome: Outcome | None
    """null until it has ended."""
    dataset_version: int | None
    base_version: int | None
    """Of the model: from which its session started."""
    session_id: str | None
    new_version: int | None
    old_loss: float | None
    """On the held-out samples, in nats per target: of the base version."""
    new_loss: float | None
    """Of the new one."""
    message: str
    started_at: str
    updated_at: str


class LearningView(CamelModel):
    """How auto-learning stands."""

    model: str | None
    """That learns; null if none does."""
    promoted_version: int | None
    """Of it, that is served."""
    automatic: bool
    """Whether cycles begin by themselves."""
    running: bool
    """Whether a cycle runs now, or goes on when its process is started again."""
    next_at: str | None
    """When the next one begins by itself."""
    chats: int
    """In the log, not yet learnt from."""
    min_chats: int
    """That a cycle needs."""
    max_size: int
    threshold: float
    dataset_version: int | None
    dataset_size: int
    """Samples for training in it."""
    held_out: int
    """Samples in it for evaluation."""
    last: CycleView | None


def cycle_view(row: LearningCycleRow) -> CycleView:
    """A cycle as people see it."""
    figures = CycleFigures.model_validate(row.figures)
    return CycleView(
        **figures.model_dump(), id=row.id, model=row.model_id, trigger=row.trigger, stage=row.stage,
        outcome=row.outcome, dataset_version=row.dataset_version, base_version=row.base_version,
        session_id=row.session_id, new_version=row.new_version, old_loss=row.old_loss, new_loss=row.new_loss,
        message=row.message, started_at=iso_time(row.created_at), updated_at=iso_time(row.updated_at),
    )  # fmt: skip
