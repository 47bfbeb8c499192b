"""Whether the memory that forked processes share is large enough: a write beyond it would end the process by SIGBUS."""

from __future__ import annotations

import os
from pathlib import Path

from cotrain.errors import MemoryShortageError
from cotrain.process import SHARED_MEMORY, SHARED_MEMORY_HINT

VECTORS = 5
"""The pseudo-gradient, and two outer states of parameters and momentum."""


def require_shared_memory(numel: int, folder: Path = SHARED_MEMORY) -> None:
    """Raise MemoryShortageError unless there is room for a peer's vectors of `numel` float32 values.

    A machine without such a folder shares memory otherwise, and is let through.
    """
    if not folder.is_dir():
        return
    needed = 4 * VECTORS * numel
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < needed:
        raise MemoryShortageError(
            f"{folder} has {free / 2**20:,.0f} MiB free, this model needs {needed / 2**20:,.0f} MiB of shared memory",
            field=str(folder),
            hint=SHARED_MEMORY_HINT,
        )
