"""Folders and files that are there whole or not at all: written beside their place, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from safetensors import SafetensorError

from cotrain.errors import CotrainError


class StorageError(CotrainError):
    """The disk did not take what was to be written; what was there before is still there."""

    code: ClassVar[str] = "storage"
    http_status: ClassVar[int] = 507
    exit_code: ClassVar[int] = 74


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `target` when the block ends without an error.

    One process at a time may write a given `target`. Replacing takes two renames: a process killed between
    them leaves the older folder as `.<name>.previous`, and the next call puts it back.

    Raises StorageError where the file system refuses (full, read-only): `target` is then as it was.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    previous = target.with_name(f".{target.name}.previous")
    try:
        if previous.exists() and not target.exists():
            previous.rename(target)
        for leftover in (temporary, previous):
            if leftover.exists():
                shutil.rmtree(leftover)
        temporary.mkdir(parents=True)
        yield temporary
        _flush_tree(temporary)
        _swap(temporary, target, previous)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as its own error
        raise StorageError(
            f"cannot be written: {error}", field=str(target),
            hint="free some space or choose a folder that can be written to; what was there is untouched",
        ) from error  # fmt: skip
    finally:
        # What cannot be removed now is removed by the next call.
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(previous, ignore_errors=True)


def replace_durably(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step, on disk before this returns. Raises OSError; what was there is then there.

    One process at a time may write a given file.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    _flush(temporary)
    temporary.replace(path)
    _flush(path.parent)


def _swap(temporary: Path, target: Path, previous: Path) -> None:
    """Put `temporary` at `target`, what was there at `previous`; back again if that fails."""
    replaces = target.exists()
    if replaces:
        target.rename(previous)
    try:
        temporary.rename(target)
    except OSError:
        if replaces:
            previous.rename(target)
        raise
    _flush(target.parent)


def _flush_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        _flush(path)
    _flush(folder)


def _flush(path: Path) -> None:
    """Make a file's content, or a folder's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
