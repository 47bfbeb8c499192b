"""Removes folders in two steps: out of sight at once, which a transaction can hold; then gone, which takes its time."""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

_logger = logging.getLogger(__name__)

_PREFIX = ".removed-"


def set_aside(path: Path) -> bool:
    """Take a folder out of its place, by one rename within the folder above it; False if there is none."""
    try:
        path.rename(path.with_name(f"{_PREFIX}{secrets.token_hex(8)}"))
    except FileNotFoundError:
        return False
    return True


def remove_set_aside(parents: Iterable[Path]) -> None:
    """Delete what was set aside in these folders, now or before a crash; what cannot be deleted is logged and stays."""
    for parent in parents:
        for path in sorted(parent.glob(f"{_PREFIX}*")):
            try:
                if path.is_symlink():
                    path.unlink()
                else:
                    shutil.rmtree(path)
            except FileNotFoundError:  # somebody else is at it
                continue
            except OSError as error:
                _logger.warning("%s cannot be removed: %s; it is tried again at the next start", path, error)
