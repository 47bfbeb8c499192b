"""Comma- or tab-separated values with a header row."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from cotrain.errors import ConfigError
from cotrain.records import MAX_RECORD_BYTES, NOT_UTF8, TOO_LONG, BadRecord, Place, Record, require_columns

NOT_CSV = "malformed CSV"
OTHER_LENGTH = "not as many fields as the header"


class _TooLong(Exception):
    """A record is over the limit: an opening quote without its partner, as a rule."""


class _Lines:
    """The lines of a file for csv.reader, which asks for as many as its record has.

    An iterator of its own and no generator: it goes on after an error, and so does the reader.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self.number = 0
        """Lines read so far."""
        self.record_bytes = 0
        """Of the present record; the caller sets it back."""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_RECORD_BYTES + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.record_bytes += len(line)
        if self.record_bytes > MAX_RECORD_BYTES:
            while line and not line.endswith(b"\n"):
                line = self._file.readline(MAX_RECORD_BYTES)
            raise _TooLong
        # bytes that are not UTF-8 become lone surrogates, so that only their own row is lost
        return line.decode("utf-8-sig" if self.number == 1 else "utf-8", errors="surrogateescape")


def read_csv(path: Path, *, wanted: Collection[str]) -> Iterator[Record | BadRecord]:
    """The rows of a file, every field a string. Raises ConfigError if the header lacks a wanted column."""
    csv.field_size_limit(MAX_RECORD_BYTES)  # of the whole process; the default is 128 KiB
    with path.open("rb") as file:
        lines = _Lines(file)
        rows = csv.reader(lines, delimiter=_delimiter(path), strict=True)
        header = _read_header(path, rows, wanted)
        while True:
            lines.record_bytes, place = 0, Place(path, lines.number + 1)
            try:
                fields = next(rows, None)
            except _TooLong:
                yield BadRecord(place, TOO_LONG)
                continue
            except csv.Error:
                yield BadRecord(place, NOT_CSV)
                continue
            if fields is None:
                return
            if fields:
                yield _to_record(place, header, fields)


def _to_record(place: Place, header: list[str], fields: list[str]) -> Record | BadRecord:
    if any("\udc80" <= character <= "\udcff" for field in fields if not field.isascii() for character in field):
        return BadRecord(place, NOT_UTF8)
    if len(fields) != len(header):
        return BadRecord(place, OTHER_LENGTH)
    return Record(place, dict(zip(header, fields, strict=True)))


def _delimiter(path: Path) -> str:
    """A tab in .tsv, and in a .csv whose header has tabs and no commas."""
    with path.open("rb") as file:
        header = file.readline(MAX_RECORD_BYTES)
    return "\t" if path.suffix == ".tsv" or (b"\t" in header and b"," not in header) else ","


def _read_header(path: Path, rows: Iterator[list[str]], wanted: Collection[str]) -> list[str]:
    try:
        header = next(rows, [])
    except (csv.Error, _TooLong) as error:
        raise ConfigError(
            "the header row cannot be read", field=f"{path}:1", hint="begin with a line of column names"
        ) from error
    if len(set(header)) < len(header):
        raise ConfigError(
            "a column name stands twice in the header", field=f"{path}:1", hint="give each column a name of its own"
        )
    require_columns(path, header, wanted)
    return header
