"""What readers of data files hand on: records with their places, or the reason why one cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cotrain.errors import ConfigError

MAX_RECORD_BYTES = 2**20
"""A row of a row format is not longer; plain text has no rows and any size."""

NOT_UTF8 = "not UTF-8"
TOO_LONG = "longer than 1 MiB"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands."""

    path: Path
    number: int
    """Counted from 1."""
    unit: Literal["line", "row"] = "line"

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"


@dataclass(frozen=True, slots=True)
class Record:
    """One document (`text`) or one row, as its file has it."""

    place: Place
    columns: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that cannot be read; the reason is one of few, so that they can be counted."""

    place: Place
    reason: str


Reader: TypeAlias = Callable[[Path], Iterator[Record | BadRecord]]
"""Reads one file. Raises ConfigError if nothing of it can be read."""


def require_columns(path: Path, present: Collection[str], wanted: Collection[str]) -> None:
    """Raises ConfigError naming the columns of `wanted` that a file lacks, and those that it has."""
    if missing := [column for column in wanted if column not in present]:
        raise ConfigError(
            f"has no column {', '.join(missing)}; it has {', '.join(present) or 'none'}", field=str(path),
            hint="say in [data.fields] what the columns are called",
        )  # fmt: skip
