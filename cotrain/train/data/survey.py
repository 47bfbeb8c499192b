"""The first pass over the data: what it holds, before anything is tokenized or written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cotrain.errors import ConfigError
from cotrain.put_aside import PutAside
from cotrain.train.data.rows import RowReader
from cotrain.train.data.sources import Source
from cotrain.train.data.splits import RankSurvey
from cotrain.train.tasks.base import Task

OUTSIDE = "O"
"""The tag of words that belong to no entity (BIO)."""
MAX_LABELS = 10_000


class Contents:
    """A hash of all rows in their order; the rows of the two splits are told apart."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, digest: bytes, *, validation: bool) -> None:
        self._hash.update(bytes([validation]) + digest)

    def key(self) -> str:
        return self._hash.hexdigest()


@dataclass(frozen=True)
class Survey:
    """What the first pass found."""

    contents: str
    """Hash of all usable rows."""
    rows: int
    ranks: RankSurvey
    """Of the training rows."""
    labels: tuple[str, ...]
    put_aside: PutAside


def survey_source(source: Source, reader: RowReader, task: Task, *, seed: int) -> Survey:
    """Read everything once. Raises ConfigError if too much of it, or all, cannot be used."""
    contents, ranks, put_aside = Contents(), RankSurvey(seed), PutAside()
    labels: dict[str, None] = {}
    rows = 0
    for files, validation in ((source.train, False), (source.validation, True)):
        for placed in reader.rows(files, put_aside):
            rows += 1
            contents.add(placed.digest, validation=validation)
            if not validation:
                ranks.add(placed.digest)
            labels.update(dict.fromkeys(map(str, task.label_of(placed.row))))
            if len(labels) > MAX_LABELS:
                raise ConfigError(
                    f"there are more than {MAX_LABELS} classes", field=str(placed.place),
                    hint="say in [data.fields] which column holds the class",
                )  # fmt: skip
    put_aside.require_few()
    if rows == 0:
        raise ConfigError(
            "holds no text", field=source.name,
            hint="give a text file that is not empty, or a folder with text, JSONL, CSV or Parquet files",
        )  # fmt: skip
    return Survey(contents.key(), rows, ranks, tuple(labels), put_aside)


def order_labels(found: Iterable[str], named: Sequence[str]) -> tuple[str, ...]:
    """The classes in the order of their numbers.

    `named` are the dataset's own names in its own order, which hold if they cover what was found. Else numbers go by
    value and names by the alphabet. The tag O comes first: it is class 0 wherever it is one.
    """
    labels = list(dict.fromkeys(found))
    if labels and set(labels) <= set(named):
        labels = list(named)
    elif all(label.lstrip("-").isdecimal() for label in labels):
        labels.sort(key=int)
    else:
        labels.sort()
    return tuple(sorted(labels, key=lambda label: label != OUTSIDE))
