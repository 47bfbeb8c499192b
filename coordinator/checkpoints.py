"""The checkpoints of a session as the checkpointer has left them on disk; read without torch."""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import BaseModel, ValidationError

from coordinator.views import iso_time
from cotrain.paths import CHECKPOINT_MANIFEST, CHECKPOINT_NAME
from cotrain.request import CamelModel
from cotrain.status import read_json_object

_logger = logging.getLogger(__name__)


class CheckpointView(CamelModel):
    """One checkpoint."""

    number: int
    """Rises with every checkpoint of the session."""
    round: int
    samples: int
    """That the outer state has taken in."""
    digest: str
    """SHA-256 of the outer state, hexadecimal."""
    validation_loss: float | None
    """Nats per target; null where this round was not evaluated."""
    size_bytes: int
    saved_at: str


class _Outer(BaseModel):
    round: int
    samples: int


class _Metadata(BaseModel):
    outer: _Outer
    digest: str = ""


class _Manifest(BaseModel):
    size_bytes: int
    validation_loss: float | None = None
    metadata: _Metadata


def read_checkpoints(folder: Path) -> list[CheckpointView]:
    """Those in a session's folder, newest first; one that cannot be read is passed over, and that is logged."""
    if not folder.is_dir():
        return []
    found = [view for path in folder.iterdir() if (view := _read(path)) is not None]
    return sorted(found, key=lambda view: view.number, reverse=True)


def _read(path: Path) -> CheckpointView | None:
    match = CHECKPOINT_NAME.fullmatch(path.name)
    if match is None:
        return None
    file = path / CHECKPOINT_MANIFEST
    try:
        manifest = _Manifest.model_validate(read_json_object(file))
        saved_at = file.stat().st_mtime
    except FileNotFoundError:  # a newer one has taken its place
        return None
    except (OSError, ValueError, ValidationError) as error:
        _logger.warning("%s cannot be read: %s", file, error)
        return None
    outer = manifest.metadata.outer
    return CheckpointView(
        number=int(match[1]), round=outer.round, samples=outer.samples, digest=manifest.metadata.digest,
        validation_loss=manifest.validation_loss, size_bytes=manifest.size_bytes, saved_at=iso_time(saved_at),
    )  # fmt: skip
