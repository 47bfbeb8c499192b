"""The files that a session's nodes fetch: data, and the models that the run begins with or learns from.

Loaded by the checkpointer's process only: it needs torch.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from transformers import PreTrainedModel

from cotrain.protocol import MODEL_ASSETS, Asset


def model_files(folder: Path, role: str, model: PreTrainedModel) -> dict[str, Path]:
    """Save a model to `folder` as a node needs it for this role: asset name -> file."""
    model.save_pretrained(folder, max_shard_size="1TB")  # one file, so that the names are known beforehand
    return {f"{role}.{name}": folder / name for name in MODEL_ASSETS}


def gather_assets(folder: Path, files: dict[str, Path]) -> list[Asset]:
    """Put each file under its asset's name into `folder`, made anew, and describe it by content."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    assets = []
    for name, path in files.items():
        (folder / name).symlink_to(path.resolve())
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        assets.append(Asset(name=name, sha256=digest, size_bytes=path.stat().st_size))
    return assets
