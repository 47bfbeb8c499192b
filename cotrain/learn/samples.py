"""What is learnt from: a chat as it was logged, a sample as a dataset keeps it, and when two samples are the same."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from cotrain.chat_form import conversation_text
from cotrain.errors import InvalidRequestError
from cotrain.learn.language import Language
from cotrain.persian import normalize_persian

MAX_QUESTION_CHARACTERS = 4_000
MAX_ANSWER_CHARACTERS = 8_000
MAX_ID_CHARACTERS = 200
MAX_SCORE = 10.0
IMPORTED, CHATTED, VARIED = "import", "chat", "variation"
"""What an origin begins with."""

_ORIGIN = re.compile(r"chat:.{1,200}|import:[^:]{1,100}:\d{1,12}|variation:[a-z-]{1,40}:[0-9a-f]{64}", re.DOTALL)
_IGNORED = re.compile("[\u0640\u064b-\u065f\u0670\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]+")
"""Tatweel, vowel signs, non-joiners, marks of direction: spelling varies in them, meaning does not."""
_NOT_WORDS = re.compile(r"[\W_]+")
_DIGITS = str.maketrans({chr(0x06F0 + digit): str(digit) for digit in range(10)})


@dataclass(frozen=True)
class Chat:
    """One question and its answer, as they were logged. Raises InvalidRequestError for an id that is none.

    Attributes:
        id: of the chat; `import:<name>:<n>` for the n-th row of an imported file.
        rating: what the person said of the answer: -1, 0 (nothing) or 1.
        model: what answered; empty if that is not known.
        created_at: Unix time in seconds.
    """

    id: str
    question: str
    answer: str
    language: Language
    rating: int
    model: str
    created_at: float

    def __post_init__(self) -> None:
        if not 1 <= len(self.id) <= MAX_ID_CHARACTERS:
            raise InvalidRequestError(
                f"has not 1 to {MAX_ID_CHARACTERS} characters", field="id", hint="give each chat an id"
            )

    @property
    def origin(self) -> str:
        """Where a sample that is made of this chat comes from."""
        return self.id if self.id.startswith(f"{IMPORTED}:") else f"{CHATTED}:{self.id}"


@dataclass(frozen=True)
class Sample:
    """One question and its answer, as they are trained on.

    Attributes:
        score: 0 .. 10.
        origin: `chat:<id>`, `import:<name>:<n>`, or `variation:<kind>:<key of the parent>`.
    """

    question: str
    answer: str
    language: Language
    score: float
    origin: str

    @functools.cached_property
    def key(self) -> str:
        """SHA-256, hexadecimal, of what is left when case, spelling and punctuation are evened out."""
        return hashlib.sha256(self.normalized.encode("utf-8", "surrogatepass")).hexdigest()

    @functools.cached_property
    def normalized(self) -> str:
        """Question and answer, one below the other, in one spelling: what is compared with other samples."""
        return f"{normalized(self.question)}\n{normalized(self.answer)}"

    @property
    def fits(self) -> bool:
        """Whether question and answer are as short as a dataset takes them."""
        return len(self.question) <= MAX_QUESTION_CHARACTERS and len(self.answer) <= MAX_ANSWER_CHARACTERS

    @property
    def is_variation(self) -> bool:
        return self.origin.startswith(f"{VARIED}:")

    @property
    def family(self) -> str:
        """The key of the sample that this one is a variation of; its own if it is none."""
        return self.origin.rpartition(":")[2] if self.is_variation else self.key

    @property
    def text(self) -> str:
        """What is trained on."""
        return conversation_text([("user", self.question), ("assistant", self.answer)])

    def to_line(self) -> str:
        """One line of JSON, its end included."""
        record = {
            "text": self.text, "question": self.question, "answer": self.answer, "language": self.language,
            "score": self.score, "origin": self.origin,
        }  # fmt: skip
        return json.dumps(record, ensure_ascii=False) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Sample:
        """The sample of such a line. Raises InvalidRequestError."""
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise _refused("is not JSON") from None
        if not isinstance(record, dict):
            raise _refused("is not a JSON object")
        return cls.from_record(record)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Sample:
        """The sample of such an object; `text` is not looked at, for it follows from the rest.

        Raises InvalidRequestError naming the first field that is not as it should be.
        """
        question = _text(record, "question", MAX_QUESTION_CHARACTERS)
        answer = _text(record, "answer", MAX_ANSWER_CHARACTERS)
        language, score, origin = (record.get(name) for name in ("language", "score", "origin"))
        if language not in get_args(Language):
            raise _refused("is none of " + ", ".join(get_args(Language)), "language")
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= MAX_SCORE:
            raise _refused(f"is not a number from 0 to {MAX_SCORE:g}", "score")
        if not isinstance(origin, str) or not _ORIGIN.fullmatch(origin):
            raise _refused("tells no origin", "origin")
        return cls(question, answer, cast(Language, language), float(score), origin)


@functools.lru_cache(maxsize=1024)  # a text is judged, made a key of and varied right after another
def normalized(text: str) -> str:
    """A text in one case and one spelling, words parted by single spaces, for comparing only.

    Unlike the spelling that is trained on (`cotrain/persian.py`) it has no non-joiners, vowel signs or punctuation.
    """
    if text.isascii():
        return _NOT_WORDS.sub(" ", text.lower()).strip()
    plain = _IGNORED.sub("", normalize_persian(unicodedata.normalize("NFKC", text))).casefold().translate(_DIGITS)
    return _NOT_WORDS.sub(" ", plain).strip()


def rated(score: float, rating: int) -> float:
    """A score with a point more if people liked the answer, within 0 .. MAX_SCORE. Raises ValueError if not finite."""
    if not math.isfinite(score):
        raise ValueError("a score is a finite number")
    return min(MAX_SCORE, max(0.0, score + (1.0 if rating > 0 else 0.0)))


def _text(record: Mapping[str, Any], name: str, most: int) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _refused("is no text", name)
    if len(value) > most:
        raise _refused(f"has more than {most} characters", name)
    return value


def _refused(message: str, field: str = "") -> InvalidRequestError:
    return InvalidRequestError(message, field=field, hint="a dataset's lines are written by cotrain; restore the file")
