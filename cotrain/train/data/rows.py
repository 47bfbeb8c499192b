"""Rows: the columns of a record under the names of their roles, checked and normalized.

In a row that is handed on texts are not empty, labels and tags are strings, `tags` is as long as `tokens`, and each of
the `answers` stands at its `answer_start` in `context`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cotrain.errors import ConfigError
from cotrain.persian import normalize_persian, normalize_with_offsets
from cotrain.put_aside import PutAside
from cotrain.records import MAX_RECORD_BYTES, TOO_LONG, BadRecord, Place, Reader, Record
from cotrain.sections import FieldsSection
from cotrain.train.tasks.base import Row

Normalization: TypeAlias = Literal["none", "persian"]


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A row that can be used."""

    place: Place
    row: Row
    digest: bytes
    """SHA-256 of the content: equal rows have equal ones, whatever file they come from."""


@dataclass(frozen=True)
class RowReader:
    """Reads files into rows; what cannot be used is put aside."""

    read_file: Reader
    roles: tuple[str, ...]
    """What a row must have."""
    fields: FieldsSection
    normalization: Normalization
    class_names: Mapping[str, Sequence[str]]
    """Names of the classes, for columns that hold their numbers."""
    plain: bool
    """Whether the files are plain text, which has documents of any size and no rows."""

    def rows(self, files: Sequence[Path], put_aside: PutAside) -> Iterator[PlacedRow]:
        """The usable rows, always in one order. Raises ConfigError for a file that cannot be read."""
        for path in files:
            for record in self._records(path):
                put_aside.total += 1
                try:
                    row = self._to_row(record)
                except ValueError as error:
                    put_aside.add(record.place, str(error))
                else:
                    yield row

    def _records(self, path: Path) -> Iterator[Record | BadRecord]:
        try:
            yield from self.read_file(path)
        except OSError as error:
            raise ConfigError(
                f"cannot be read: {error.strerror or error}", field=str(path), hint="mend the file or take it out"
            ) from error

    def _to_row(self, record: Record | BadRecord) -> PlacedRow:
        """Raises ValueError with the reason."""
        if isinstance(record, BadRecord):
            raise ValueError(record.reason)
        row = record.columns if self.plain else self._checked(record.columns)
        if self.normalization == "persian":
            row = _normalize(row)
        content = _content(row)
        if not self.plain and len(content) > MAX_RECORD_BYTES:
            raise ValueError(TOO_LONG)
        return PlacedRow(record.place, row, hashlib.sha256(content).digest())

    def _checked(self, columns: Mapping[str, Any]) -> Row:
        """By roles. Raises ValueError with what is wrong."""
        row = {}
        for role in self.roles:
            column = getattr(self.fields, role)
            value = columns.get(column)
            if value is None:
                raise ValueError(f"field {column!r} is missing")
            row[role] = _CHECKS[role](column, value, self.class_names.get(column, ()))
        if "tags" in row and len(row["tags"]) != len(row["tokens"]):
            raise ValueError("not as many tags as tokens")
        if "answers" in row and not _answers_stand_in(row["context"], row["answers"]):
            raise ValueError("an answer does not stand where answer_start says")
        return row


def _content(row: Row) -> bytes:
    """A lone text stands for itself, so that it is the same document in a text file and in a row."""
    text = row["text"] if row.keys() == {"text"} else json.dumps(row, sort_keys=True, ensure_ascii=False)
    try:
        return str(text).encode("utf-8")
    except UnicodeEncodeError:  # JSON may hold half of a surrogate pair
        raise ValueError("text with half a surrogate pair") from None


# ------------------------------------------------------------------------------------------------ checks
def _check_text(column: str, value: Any, names: Sequence[str]) -> str:
    if not isinstance(value, str):
        raise ValueError(f"field {column!r} is not text")
    if not value.strip():
        raise ValueError(f"field {column!r} is empty")
    return value


def _check_label(column: str, value: Any, names: Sequence[str]) -> str:
    """A name, or a number, which becomes its name where there are names."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"field {column!r} is neither a name nor a whole number")
    if names and isinstance(value, int):
        if not 0 <= value < len(names):
            raise ValueError(f"field {column!r} is not the number of a class")
        return names[value]
    if isinstance(value, str) and not value.strip():
        raise ValueError(f"field {column!r} is empty")
    return str(value)


def _check_words(column: str, value: Any, names: Sequence[str]) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise ValueError(f"field {column!r} is not a list of words")
    return list(value)


def _check_tags(column: str, value: Any, names: Sequence[str]) -> list[str]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"field {column!r} is not a list of tags")
    return [_check_label(column, tag, names) for tag in value]


def _check_answers(column: str, value: Any, names: Sequence[str]) -> dict[str, list[Any]]:
    texts = value.get("text") if isinstance(value, dict) else None
    starts = value.get("answer_start") if isinstance(value, dict) else None
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise ValueError(f"field {column!r} is not of the form {{text: [...], answer_start: [...]}}")
    if not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f"field {column!r} has an answer that is not text")
    if not all(isinstance(start, int) and not isinstance(start, bool) and start >= 0 for start in starts):
        raise ValueError(f"field {column!r} has a start that is not a position")
    return {"text": list(texts), "answer_start": list(starts)}


def _answers_stand_in(context: str, answers: Mapping[str, list[Any]]) -> bool:
    pairs = zip(answers["text"], answers["answer_start"], strict=True)
    return all(context.startswith(text, start) for text, start in pairs)


_CHECKS: dict[str, Callable[[str, Any, Sequence[str]], Any]] = {
    **dict.fromkeys(("text", "pair", "source", "target", "question", "context"), _check_text),
    "label": _check_label,
    "tokens": _check_words,
    "tags": _check_tags,
    "answers": _check_answers,
}


# ----------------------------------------------------------------------------------------- normalization
def _normalize(row: Row) -> Row:
    normal = {role: normalize_persian(value) if _CHECKS[role] is _check_text else value for role, value in row.items()}
    if "tokens" in row:
        normal["tokens"] = [normalize_persian(word) for word in row["tokens"]]
    if "answers" in row:
        normal["context"], normal["answers"] = _normalize_answers(row["context"], row["answers"])
    return normal


def _normalize_answers(context: str, answers: Mapping[str, list[Any]]) -> tuple[str, dict[str, list[Any]]]:
    starts = answers["answer_start"]
    ends = [start + len(text) for start, text in zip(starts, answers["text"], strict=True)]
    normal, moved = normalize_with_offsets(context, [*starts, *ends])
    new_starts, new_ends = moved[: len(starts)], moved[len(starts) :]
    texts = [normal[start:end] for start, end in zip(new_starts, new_ends, strict=True)]
    return normal, {"text": texts, "answer_start": new_starts}
