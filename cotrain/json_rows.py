"""JSON Lines, and JSON files that hold one array: a row is an object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cotrain.errors import ConfigError
from cotrain.records import MAX_RECORD_BYTES, NOT_UTF8, TOO_LONG, BadRecord, Place, Record

MAX_ARRAY_BYTES = 256 * 2**20
"""An array is held in memory while it is read; JSON Lines are not."""
NOT_JSON = "malformed JSON"
NOT_OBJECT = "not a JSON object"
TOO_DEEP = "JSON nested too deeply"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    columns = dict(pairs)
    if len(columns) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return columns


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)


def read_json(path: Path) -> Iterator[Record | BadRecord]:
    """The rows of a file, which holds an array if its first character is `[`, else an object in each line.

    Raises ConfigError for an array that is not valid JSON or longer than MAX_ARRAY_BYTES: what follows an error in
    it cannot be told apart.
    """
    with path.open("rb") as file:
        start = file.read(64 * 1024)
        file.seek(0)
        if path.suffix == ".json" and start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
            yield from _read_array(path, file)
        else:
            yield from _read_lines(path, file)


# ------------------------------------------------------------------------------------------------- lines
def _read_lines(path: Path, file: BinaryIO) -> Iterator[Record | BadRecord]:
    number = 0
    while line := file.readline(MAX_RECORD_BYTES + 2):
        number += 1
        place = Place(path, number)
        if len(line.rstrip(b"\r\n")) > MAX_RECORD_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_RECORD_BYTES)
            yield BadRecord(place, TOO_LONG)
        elif line.strip():
            yield _parse_line(place, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)


def _parse_line(place: Place, line: bytes) -> Record | BadRecord:
    try:
        value = _DECODER.decode(line.decode("utf-8"))
    except UnicodeDecodeError:
        return BadRecord(place, NOT_UTF8)
    except RecursionError:
        return BadRecord(place, TOO_DEEP)
    except ValueError:
        return BadRecord(place, NOT_JSON)
    return Record(place, value) if isinstance(value, dict) else BadRecord(place, NOT_OBJECT)


# ------------------------------------------------------------------------------------------------- array
def _read_array(path: Path, file: BinaryIO) -> Iterator[Record | BadRecord]:
    content = file.read(MAX_ARRAY_BYTES + 1)
    if len(content) > MAX_ARRAY_BYTES:
        raise ConfigError(
            f"is an array of more than {MAX_ARRAY_BYTES // 2**20} MiB", field=str(path),
            hint="write it as JSON Lines: one object in each line, in a .jsonl file",
        )  # fmt: skip
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _broken(path, content.count(b"\n", 0, error.start) + 1, NOT_UTF8) from None
    position, line = text.index("[") + 1, text.count("\n", 0, text.index("[") + 1) + 1
    first = True
    while True:
        start = _skip_space(text, position)
        line += text.count("\n", position, start)
        if text[start : start + 1] == "]" and (first or text[position - 1] != ","):
            break
        value, end = _parse_element(path, line, text, start)
        place = Place(path, line)
        yield Record(place, value) if isinstance(value, dict) else BadRecord(place, NOT_OBJECT)
        following = _skip_space(text, end)
        line += text.count("\n", start, following)
        if text[following : following + 1] not in (",", "]"):
            raise _broken(path, line, NOT_JSON)
        first, position = False, following + (text[following] == ",")
    if text[start + 1 :].strip():
        raise _broken(path, line, NOT_JSON)


def _skip_space(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t", "\r", "\n"):
        position += 1
    return position


def _parse_element(path: Path, line: int, text: str, start: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, start)
    except RecursionError:
        raise _broken(path, line, TOO_DEEP) from None
    except ValueError as error:
        inside = text.count("\n", start, error.pos) if isinstance(error, json.JSONDecodeError) else 0
        raise _broken(path, line + inside, NOT_JSON) from None


def _broken(path: Path, line: int, reason: str) -> ConfigError:
    return ConfigError(
        f"the array cannot be read past this line: {reason}", field=f"{path}:{line}",
        hint="mend it, or write it as JSON Lines, of which single bad lines are put aside",
    )  # fmt: skip
