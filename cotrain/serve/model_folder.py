"""Which folders can be served, as far as their files tell: asked before torch is loaded, which takes seconds."""

from __future__ import annotations

from pathlib import Path

from cotrain.errors import CotrainError


class UnservableError(CotrainError):
    """A folder without a model that can be chatted with."""

    code = "unservable"
    http_status = 422
    exit_code = 65


def check_folder(folder: Path) -> None:
    """Raises UnservableError where there is no config, or are no weights in safetensors."""
    if not (folder / "config.json").is_file():
        raise unservable(folder, "is no folder with a config.json")
    if not any(folder.glob("*.safetensors")):
        raise unservable(folder, "holds no weights in safetensors; other forms are not read, since they can hold code")


def unservable(folder: Path, reason: str) -> UnservableError:
    """The error that says so."""
    return UnservableError(
        reason, field=str(folder),
        hint="give a folder that a training has exported, or another saved by save_pretrained with safetensors",
    )  # fmt: skip
