"""What a run keeps on disk: checkpoints it can go on from, and the model that comes out. No pickle anywhere."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from cotrain.errors import DivergedError, IntegrityError
from cotrain.folders import replacing_folder
from cotrain.paths import CHECKPOINT_MANIFEST, CHECKPOINT_NAME
from cotrain.status import read_json_object
from cotrain.train.diloco import OuterState

STATE_FILE = "state.safetensors"
_FORMAT = 2
_OUTER = ("outer.parameters", "outer.momentum")

T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: tensors on the CPU, all of them finite, and a JSON object of everything else."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    path: Path


class CheckpointStore:
    """The checkpoints of one run in a folder: the newest ones, and the one with the lowest validation loss.

    One process at a time may write to a folder.
    """

    def __init__(self, folder: Path, *, keep: int = 2):
        """`keep` newest ones stay. Raises ValueError if that is none."""
        if keep < 1:
            raise ValueError(f"keep is {keep}, expected 1 or more")
        self.folder, self._keep = folder, keep

    def save(
        self, tensors: dict[str, Tensor], metadata: dict[str, Any], *, validation_loss: float | None = None
    ) -> Path:
        """Add a checkpoint, then remove those that are no longer needed; returns the new one's folder.

        Raises DivergedError if a value is not finite, StorageError if the disk does not take it; the older
        checkpoints are then still there.
        """
        if broken := [name for name, tensor in tensors.items() if not _is_finite(tensor)]:
            raise DivergedError(
                f"{broken[0]} is not finite, so no checkpoint was saved", field=str(self.folder),
                hint="go on from the newest checkpoint with a smaller learning rate",
            )  # fmt: skip
        existing = _numbered(self.folder)
        number = existing[-1][0] + 1 if existing else 1
        target = self.folder / f"checkpoint-{number:08d}"
        with replacing_folder(target) as temporary:
            state = temporary / STATE_FILE
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, state)
            manifest = {
                "format": _FORMAT, "size_bytes": state.stat().st_size, "sha256": _sha256(state),
                "validation_loss": validation_loss, "metadata": metadata,
            }  # fmt: skip
            (temporary / CHECKPOINT_MANIFEST).write_text(json.dumps(manifest, allow_nan=False), encoding="utf-8")
        for path in self._superfluous():
            shutil.rmtree(path, ignore_errors=True)
        return target

    def newest(self, read: Callable[[Checkpoint], T]) -> T | None:
        """The newest checkpoint that is whole and that `read` accepts, as read; None if there is none.

        Those that are broken, or for which `read` raises IntegrityError, are passed over with a warning.
        """
        return _first([path for _, path in reversed(_numbered(self.folder))], read)

    def best(self, read: Callable[[Checkpoint], T]) -> T | None:
        """Like `newest`, in the order of the validation loss, lowest first."""
        losses = {path: _validation_loss(path) for _, path in reversed(_numbered(self.folder))}
        return _first(sorted((path for path in losses if math.isfinite(losses[path])), key=losses.__getitem__), read)

    def clear(self) -> None:
        """Remove them all."""
        for _, path in _numbered(self.folder):
            shutil.rmtree(path)

    def _superfluous(self) -> list[Path]:
        paths = [path for _, path in _numbered(self.folder)]
        losses = {path: _validation_loss(path) for path in paths}
        best = min(paths, key=losses.__getitem__)
        return [path for path in paths[: -self._keep] if path != best or not math.isfinite(losses[path])]


def _first(paths: list[Path], read: Callable[[Checkpoint], T]) -> T | None:
    for path in paths:
        try:
            return read(_load(path))
        except IntegrityError as error:
            logger.warning("passed over a checkpoint that cannot be used: %s", error)
    return None


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """(number, folder) of each checkpoint, oldest first."""
    if not folder.is_dir():
        return []
    matches = ((CHECKPOINT_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match)


def _validation_loss(path: Path) -> float:
    """What the checkpoint's manifest says, infinite if it says nothing."""
    try:
        loss = read_json_object(path / CHECKPOINT_MANIFEST).get("validation_loss")
    except (OSError, ValueError):
        return math.inf
    return float(loss) if isinstance(loss, int | float) else math.inf


def _load(path: Path) -> Checkpoint:
    """Raises IntegrityError for anything that is not what was saved."""
    state = path / STATE_FILE
    try:
        manifest = read_json_object(path / CHECKPOINT_MANIFEST)
        if manifest.get("format") != _FORMAT or not isinstance(manifest.get("metadata"), dict):
            raise ValueError(f"{CHECKPOINT_MANIFEST} is not of format {_FORMAT}")
        if state.stat().st_size != manifest.get("size_bytes") or _sha256(state) != manifest.get("sha256"):
            raise ValueError(f"{STATE_FILE} is not the one that was saved")
        tensors = load_file(state)
    except (OSError, ValueError, SafetensorError) as error:
        raise IntegrityError(f"the checkpoint is broken: {error}", field=str(path)) from error
    if broken := [name for name, tensor in tensors.items() if not _is_finite(tensor)]:
        raise IntegrityError(f"the checkpoint is broken: {broken[0]} is not finite", field=str(path))
    return Checkpoint(tensors, manifest["metadata"], path)


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -------------------------------------------------------------------------------------------- outer state
def outer_tensors(state: OuterState) -> dict[str, Tensor]:
    """The tensors of an outer state, named as `read_outer_state` wants them."""
    return dict(zip(_OUTER, (state.parameters, state.momentum), strict=True))


def outer_counters(state: OuterState) -> dict[str, int]:
    """The rest of an outer state, for the metadata's key `outer`."""
    return {"round": state.round, "samples": state.samples, "cursor": state.cursor}


def read_outer_state(checkpoint: Checkpoint, *, numel: int) -> OuterState:
    """The outer state of `numel` parameters in a checkpoint. Raises IntegrityError if it holds none."""
    counters = checkpoint.metadata.get("outer")
    try:
        parameters, momentum = (checkpoint.tensors[name] for name in _OUTER)
        state = OuterState(parameters, momentum, **{name: int(value) for name, value in dict(counters or ()).items()})
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"holds no outer state: {error!r}", field=str(checkpoint.path)) from error
    for name, tensor in outer_tensors(state).items():
        if tensor.shape != (numel,) or tensor.dtype != torch.float32:
            raise IntegrityError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}, this model has {numel} parameters",
                field=str(checkpoint.path), hint="was the model changed? then begin afresh",
            )  # fmt: skip
    return state


# ------------------------------------------------------------------------------------------------- export
def export_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Save model (safetensors) and tokenizer to the folder `path`, for `from_pretrained`.

    An older export there is replaced. Raises StorageError if the disk does not take it; an older export is
    then still there.
    """
    transformers_logging.disable_progress_bar()
    with replacing_folder(path) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
