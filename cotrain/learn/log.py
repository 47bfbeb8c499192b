"""The enhancement log: a line of JSON for each cycle of learning."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cotrain.folders import StorageError


def append_json_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Add an entry to a log of JSON lines, on disk before this returns.

    A line that an earlier process left half written is ended first, so that it spoils no other. Raises StorageError
    if the disk does not take it; ValueError for what JSON has no form for (NaN among it).
    """
    line = json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "ab") as file:
            size = os.fstat(descriptor).st_size
            is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            file.write((b"\n" if is_torn else b"") + line.encode("utf-8"))
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error}", field=str(path), hint="free some space, or allow writing there"
        ) from error


def append_once(path: Path, entry: Mapping[str, Any], key: str) -> None:
    """The same, unless the log has an entry with this value of `key` already. Raises as `append_json_line`."""
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as lines:
            if any(_value(line, key) == entry[key] for line in lines):
                return
    append_json_line(path, entry)


def _value(line: str, key: str) -> Any:
    try:
        entry = json.loads(line)
    except ValueError:  # a line that was left half written
        return None
    return entry.get(key) if isinstance(entry, dict) else None
