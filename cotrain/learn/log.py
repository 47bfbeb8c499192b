"""What came of a cycle of learning: lines for people, and the enhancement log, a line of JSON for each cycle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cotrain.folders import StorageError
from cotrain.learn.pipeline import Enhancement

_RULE = "=" * 60


def record(enhancement: Enhancement, *, cycle: str, **facts: Any) -> dict[str, Any]:
    """A cycle as the enhancement log keeps it.

    Args:
        cycle: its id.
        facts: what else is known of it (when it began, which version it made, which session trains on that).
    """
    return {
        "cycle": cycle, **facts, "original_size": enhancement.original_size, "final_size": enhancement.final_size,
        "growth": enhancement.growth, "growth_percent": round(enhancement.growth_percent, 2),
        "good_samples": enhancement.good, "variations": enhancement.variations,
        "duplicates": enhancement.duplicates, "left": enhancement.left, "held_out": len(enhancement.held_out),
        "newly_held_out": enhancement.newly_held_out, "changed": enhancement.changed,
        "refused": enhancement.refused, "is_significant": enhancement.is_significant,
    }  # fmt: skip


def summary(enhancement: Enhancement, *, cycle: str = "", version: int | None = None) -> list[str]:
    """What people read when a cycle has ended, line by line.

    Args:
        cycle: its id, if it is to be told.
        version: the number of the dataset's version that it has written, None if it wrote none.
    """
    refused = sum(enhancement.refused.values())
    reasons = ", ".join(f"{reason} {count}" for reason, count in enhancement.refused.items())
    return [
        *([f"Learning cycle {cycle}"] if cycle else []),
        f"Dataset before: {_samples(enhancement.original_size)}",
        f"1. Chats: {_samples(enhancement.good)} good, {refused} refused{f' ({reasons})' if reasons else ''}",
        f"2. Variations: {enhancement.variations} made",
        f"3. Duplicates: {enhancement.duplicates} removed",
        f"4. Held out for evaluation: {enhancement.newly_held_out} new, {len(enhancement.held_out)} in all",
        f"5. Limit of {enhancement.settings.max_size}: {enhancement.left} with the lowest scores left",
        _RULE,
        "Enhancement summary:",
        f"  Original: {enhancement.original_size}",
        f"  Final: {enhancement.final_size}",
        f"  Growth: {enhancement.growth} ({enhancement.growth_percent:.1f}%)",
        _RULE,
        _outcome(enhancement, version),
    ]


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


def _samples(count: int) -> str:
    return f"{count} sample{'' if count == 1 else 's'}"


def _outcome(enhancement: Enhancement, version: int | None) -> str:
    if not enhancement.is_significant:
        return "Too little has changed to train again."
    written = "" if version is None else f" Version {version} is written."
    return f"{_samples(enhancement.changed)} changed: worth training again.{written}"
