"""Chats from files of other systems: JSON arrays and JSON Lines, under the names of fields that such files use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast, get_args

from cotrain.errors import ConfigError
from cotrain.json_rows import read_json
from cotrain.learn.language import Language, language_of
from cotrain.learn.redaction import redact
from cotrain.learn.samples import IMPORTED, MAX_ANSWER_CHARACTERS, MAX_QUESTION_CHARACTERS, Chat
from cotrain.put_aside import PutAside
from cotrain.records import BadRecord

MAX_ROWS = 1_000_000
LATEST = 253_402_300_799.0
"""The end of the year 9999, Unix time in seconds."""

PAIRS = (
    ("question", "answer"), ("user", "assistant"), ("message", "response"), ("user_message", "bot_response"),
    ("input", "output"), ("prompt", "completion"), ("prompt", "response"), ("instruction", "output"),
)  # fmt: skip
"""Names that a question and its answer go by; the first pair that a row has both of counts."""
NO_PAIR, NOT_TEXT, EMPTY = "no question with its answer", "question or answer is not text", "empty question or answer"
TOO_LONG, SURROGATE = "question or answer too long", "text with half a surrogate pair"

_NAME = re.compile(r"[\w.-]{1,100}")
_LANGUAGES, _RATINGS, _TIMES = ("language", "lang"), ("rating", "feedback"), ("created_at", "timestamp", "time")


def read_chats(path: Path, *, name: str, problems: PutAside | None = None) -> Iterator[Chat]:
    """The chats of a file, one after another, without what tells who somebody is.

    The n-th row is the chat `import:<name>:<n>`. Its language is looked for where the row does not tell it; the moment
    is 0 where it tells none.

    Args:
        name: what the file is called in the origin of its samples: letters, digits, `_`, `.`, `-`.
        problems: is told of each row that cannot be used, and why; the others are read on.

    Raises ConfigError for a name that is none, a file that cannot be read, an array that is broken or larger than 256
    MiB, or more than MAX_ROWS rows.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError("is no name for an import", field="name", hint="use 1 to 100 of letters, digits, _ . -")
    problems = PutAside() if problems is None else problems
    try:
        if not path.is_file():
            raise ConfigError("is no file", field=str(path), hint="name a JSON array or a JSON Lines file")
        for number, record in enumerate(read_json(path), start=1):
            if number > MAX_ROWS:
                raise ConfigError(f"has more than {MAX_ROWS} rows", field=str(path), hint="cut it into several files")
            problems.total += 1
            try:
                if isinstance(record, BadRecord):
                    raise ValueError(record.reason)
                chat = _chat(record.columns, f"{IMPORTED}:{name}:{number}")
            except ValueError as error:
                problems.add(record.place, str(error))
            else:
                yield chat
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror or error}", field=str(path), hint="check the path and who may read it"
        ) from error


def _chat(row: Mapping[str, Any], chat_id: str) -> Chat:
    """Raises ValueError with the reason."""
    question, answer = _pair(row)
    language = next((row[field] for field in _LANGUAGES if row.get(field) in get_args(Language)), None)
    rating = next((row[field] for field in _RATINGS if row.get(field) in (-1, 0, 1)), 0)
    model = row.get("model")
    return Chat(
        id=chat_id, question=redact(question), answer=redact(answer),
        language=cast(Language, language) if language else language_of(f"{question}\n{answer}"), rating=int(rating),
        model=model[:200] if isinstance(model, str) else "", created_at=_moment(row),
    )  # fmt: skip


def _pair(row: Mapping[str, Any]) -> tuple[str, str]:
    for asked, said in PAIRS:
        if asked in row and said in row:
            question, answer = row[asked], row[said]
            break
    else:
        raise ValueError(NO_PAIR)
    if not isinstance(question, str) or not isinstance(answer, str):
        raise ValueError(NOT_TEXT)
    if not question.strip() or not answer.strip():
        raise ValueError(EMPTY)
    if len(question) > MAX_QUESTION_CHARACTERS or len(answer) > MAX_ANSWER_CHARACTERS:
        raise ValueError(TOO_LONG)
    if any("\ud800" <= character <= "\udfff" for character in question + answer):
        raise ValueError(SURROGATE)
    return question.strip(), answer.strip()


def _moment(row: Mapping[str, Any]) -> float:
    """Unix time in seconds, from a number or ISO 8601 (in UTC if it names no zone); 0 where there is neither."""
    value = next((row[field] for field in _TIMES if field in row), None)
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
        except (ValueError, OverflowError):
            return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LATEST:
        return 0.0  # NaN is in no range
    return float(value)
