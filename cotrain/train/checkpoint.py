"""What a run keeps on disk: checkpoints of the outer state, and the model that comes out."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cotrain.errors import DivergedError, IntegrityError
from cotrain.status import read_json_object
from cotrain.train.files import replacing_folder

STATE_FILE = "outer_state.safetensors"
MANIFEST_FILE = "checkpoint.json"
_FORMAT = 1
_NAME = re.compile(r"checkpoint-(\d{8,})")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OuterCheckpoint:
    """The outer state as it was saved."""

    parameters: Tensor
    """1-D, fp32, CPU, all finite."""
    momentum: Tensor
    """Like `parameters`, and as long."""
    metadata: dict[str, Any]
    path: Path


# -------------------------------------------------------------------------------------------- outer state
def save_outer_checkpoint(
    folder: Path, *, parameters: Tensor, momentum: Tensor, metadata: dict[str, Any], keep: int = 2
) -> Path:
    """Add a checkpoint to `folder`, then remove all but the newest `keep`; returns the new one's folder.

    Both tensors are 1-D fp32 CPU of one size; `metadata` is what JSON can hold. One process at a time may
    save to a folder. Raises DivergedError if a value is not finite, StorageError if the disk does not take
    it (the older checkpoints are then still there), ValueError for tensors that do not fit or `keep` below
    1.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}, expected 1 or more")
    if problem := _problem(parameters, momentum):
        raise ValueError(problem)
    if not _all_finite(parameters, momentum):
        raise DivergedError(
            "the outer state is not finite, so it was not saved", field=str(folder),
            hint="go on from the newest checkpoint with a smaller learning rate",
        )  # fmt: skip
    existing = _checkpoints(folder)
    number = existing[-1][0] + 1 if existing else 1
    target = folder / f"checkpoint-{number:08d}"
    with replacing_folder(target) as temporary:
        state = temporary / STATE_FILE
        save_file({"parameters": parameters, "momentum": momentum}, state)
        manifest = {
            "format": _FORMAT,
            "size_bytes": state.stat().st_size,
            "sha256": _sha256(state),
            "metadata": metadata,
        }
        (temporary / MANIFEST_FILE).write_text(json.dumps(manifest, allow_nan=False), encoding="utf-8")
    for _, old in existing[: len(existing) + 1 - keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_newest_outer_checkpoint(folder: Path) -> OuterCheckpoint | None:
    """The newest checkpoint that is whole, or None; broken ones are passed over with a warning."""
    for _, path in reversed(_checkpoints(folder)):
        try:
            return _load(path)
        except IntegrityError as error:
            logger.warning("passed over a checkpoint that cannot be used: %s", error)
    return None


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(number, folder) of each checkpoint, oldest first."""
    if not folder.is_dir():
        return []
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match)


def _load(path: Path) -> OuterCheckpoint:
    """Raises IntegrityError for anything that is not what was saved."""
    state = path / STATE_FILE
    try:
        manifest = read_json_object(path / MANIFEST_FILE)
        if manifest.get("format") != _FORMAT or not isinstance(manifest.get("metadata"), dict):
            raise ValueError(f"{MANIFEST_FILE} is not of format {_FORMAT}")
        if state.stat().st_size != manifest.get("size_bytes") or _sha256(state) != manifest.get("sha256"):
            raise ValueError(f"{STATE_FILE} is not the one that was saved")
        tensors = load_file(state)
        parameters, momentum = tensors["parameters"], tensors["momentum"]
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise IntegrityError(f"the checkpoint is broken: {error}", field=str(path)) from error
    problem = _problem(parameters, momentum)
    if problem or not _all_finite(parameters, momentum):
        raise IntegrityError(f"the checkpoint is broken: {problem or 'not finite'}", field=str(path))
    return OuterCheckpoint(parameters, momentum, metadata=manifest["metadata"], path=path)


def _problem(parameters: Tensor, momentum: Tensor) -> str:
    """Why these are not the two halves of an outer state; empty if they are."""
    for name, tensor in (("parameters", parameters), ("momentum", momentum)):
        if tensor.ndim != 1 or tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            found = f"{tensor.ndim}-D {tensor.dtype} on {tensor.device}"
            return f"{name} is {found}, expected 1-D torch.float32 on cpu"
    if len(parameters) != len(momentum):
        return f"parameters has {len(parameters)} values, momentum {len(momentum)}"
    return ""


def _all_finite(*tensors: Tensor) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ------------------------------------------------------------------------------------------------- export
def export_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Save model (safetensors) and tokenizer to the folder `path`, for `from_pretrained`.

    An older export there is replaced. Raises StorageError if the disk does not take it; an older export is
    then still there.
    """
    with replacing_folder(path) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
