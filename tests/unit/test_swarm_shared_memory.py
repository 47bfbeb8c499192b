"""Too little shared memory is said before anything is written to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cotrain.errors import MemoryShortageError
from cotrain.swarm.shared_memory import VECTORS, require_shared_memory


def test_room_is_required_for_all_vectors(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    fits = found.f_bavail * found.f_frsize // (4 * VECTORS)
    require_shared_memory(fits // 2, tmp_path)
    with pytest.raises(MemoryShortageError, match="MiB of shared memory") as caught:
        require_shared_memory(2 * fits, tmp_path)
    assert "--shm-size" in caught.value.hint


def test_a_machine_without_the_folder_is_let_through(tmp_path: Path) -> None:
    with pytest.raises(MemoryShortageError):
        require_shared_memory(2**60, tmp_path)
    require_shared_memory(2**60, tmp_path / "none")
