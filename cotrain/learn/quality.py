"""How good an answer is to learn from: five criteria of 0 to 2 points each, 10 together. Pure.

A criterion with no points at all finds the answer unusable: its score is then at most UNUSABLE, whatever else is good
about it, and the reason is kept. The present model's perplexity, where it is known, takes points away and never gives
any: an answer that the model finds likely is no better for it, but one that it finds absurd may be worse.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cotrain.learn.language import Language, language_of
from cotrain.learn.phrasing import PHRASINGS, Phrasing
from cotrain.learn.samples import MAX_SCORE, normalized
from cotrain.learn.words import stems_of, words_of

Perplexity: TypeAlias = Callable[[str, str], float]
"""Of a question and its answer: e to the model's mean loss, in nats, for each UTF-8 byte of the answer. For each byte,
so that models with different tokenizers and languages compare."""

MOST_POINTS = 2.0
UNUSABLE = 3.0
"""The most that an unusable answer scores: a point for being liked does not lift it to the threshold."""
MAX_REPETITION = 0.25
LIKELY_PERPLEXITY, ABSURD_PERPLEXITY = 8.0, 64.0
"""For each byte. Evenly random bytes have 256; counting pairs of bytes reaches about 11."""

TOO_SHORT, TOO_LONG, REPETITIVE, UNFINISHED = "too short", "too long", "repetitive", "unfinished"
ASKS_BACK, ANSWERS_NOTHING, NOT_PROSE = "asks instead of answering", "answers nothing", "not natural prose"
OTHER_LANGUAGE, OFF_TOPIC, ECHO = "another language", "not about the question", "repeats the question"

_RUN = re.compile(r"(\S{1,6}?)\1{4,}")
_ENDS = re.compile(r"[.!?。！？؟]$")
_CLOSING = re.compile(r"(?:[\s\"'’”»)\]）」』*_`]|\[\d{1,2}\]|[\u2600-\u27bf\U0001f300-\U0001faff\ufe0f])+$")
_SENTENCE_END = re.compile(r"(?<![.!?。！？؟])[.!?。！？؟]++(?=\s|$|[\u4e00-\u9fff])")
_LETTER = re.compile(r"[^\W\d_]")
_LATIN, _CAPITAL = re.compile("[A-Za-z]"), re.compile("[A-Z]")
_VOWELLESS = re.compile(r"[bcdfghjklmnpqrstvwxz]{4,}|[bcdfghjklmnpqrstvwxz]{6,}")
_FENCE = "```"
_LOOKED_AT_END = 100
"""Characters at the end of an answer in which its last word and its closing marks stand."""


@dataclass(frozen=True)
class Judgement:
    """What an answer is worth.

    Attributes:
        score: 0 .. 10.
        points: 0 .. 2 by criterion; `perplexity`, if it was asked for, -2 .. 0.
        reasons: why it is unusable, the first criterion's first; empty if it is not.
    """

    score: float
    points: dict[str, float]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Read:
    """A question and an answer, taken apart once for all criteria."""

    question: str
    answer: str
    language: Language

    @property
    def phrasing(self) -> Phrasing:
        return PHRASINGS[self.language]

    @functools.cached_property
    def plain_question(self) -> str:
        return normalized(self.question)

    @functools.cached_property
    def plain_answer(self) -> str:
        return normalized(self.answer)

    @functools.cached_property
    def question_words(self) -> list[str]:
        return words_of(self.plain_question, self.phrasing)

    @functools.cached_property
    def answer_words(self) -> list[str]:
        return words_of(self.plain_answer, self.phrasing)

    @functools.cached_property
    def answer_stems(self) -> set[str]:
        return stems_of(self.plain_answer, self.answer_words, self.phrasing)


Verdict: TypeAlias = tuple[float, str]
"""Points, and the reason if there are none."""


def judge(question: str, answer: str, language: Language, *, perplexity: Perplexity | None = None) -> Judgement:
    """What an answer to a question is worth; both are in `language`. One in a language that is not judged scores 0."""
    if language not in PHRASINGS:
        return Judgement(0.0, {}, (OTHER_LANGUAGE,))
    read = Read(question, answer.strip(), language)
    verdicts = {name: criterion(read) for name, criterion in CRITERIA.items()}
    points = {name: round(given, 2) for name, (given, _) in verdicts.items()}
    if perplexity is not None:
        points["perplexity"] = round(unlikely(perplexity(question, answer)), 2)
    reasons = tuple(reason for _, reason in verdicts.values() if reason)
    total = min(MAX_SCORE, max(0.0, sum(points.values())))
    return Judgement(round(min(total, UNUSABLE) if reasons else total, 2), points, reasons)


# ------------------------------------------------------------------------------------------------ length
def length(read: Read) -> Verdict:
    """Two points for a fitting length (50 to 300 characters; 18 to 120 in Chinese, which says as much in fewer).

    They fade to none at a fifth of the least and at three times the most.
    """
    count = len(" ".join(read.answer.split()))
    least, most = read.phrasing.fitting
    if count < least:
        share = (count - least / 5) / (least - least / 5)
        return (MOST_POINTS * share, "") if share > 0 else (0.0, TOO_SHORT)
    share = 1.0 if count <= most else (3 * most - count) / (2 * most)
    return (MOST_POINTS * share, "") if share > 0 else (0.0, TOO_LONG)


# -------------------------------------------------------------------------------------------- repetition
def repetition(read: Read) -> Verdict:
    """Two points without repetition, none from a quarter on."""
    share = max(
        _repeated_runs(read.answer),
        _repeated_groups(read.answer_words, 3 if read.phrasing.stem_letters else 4),
        _repeated_subjects(read.answer_words, read.phrasing),
    )
    return (MOST_POINTS * (1 - share / MAX_REPETITION), "") if share < MAX_REPETITION else (0.0, REPETITIVE)


def _repeated_runs(text: str) -> float:
    """The share of a text in which up to six characters come five times or more in a row."""
    return sum(len(match[0]) for match in _RUN.finditer(text)) / max(1, len(text))


def _repeated_groups(words: Sequence[str], size: int) -> float:
    """The share of the groups of `size` words that have come before."""
    groups = list(zip(*(words[place:] for place in range(size)), strict=False))
    return 1 - len(set(groups)) / len(groups) if groups else 0.0


def _repeated_subjects(words: Sequence[str], phrasing: Phrasing) -> float:
    """Half the share of the words that have come before, common ones aside: naming a thing again is natural."""
    if not phrasing.stem_letters:  # single Chinese characters are no words
        return 0.0
    telling = [word for word in words if word not in phrasing.common_words]
    if len(telling) < 6:
        return 0.0
    return (1 - len(set(telling)) / len(telling)) / 2


# ------------------------------------------------------------------------------------------ completeness
def completeness(read: Read) -> Verdict:
    """Two points for an end of a sentence, half a point for a last word without a full stop.

    None where the text visibly goes on (a comma, a conjunction, dots, an open block of code) or is nothing but a
    question.
    """
    if read.answer.count(_FENCE) % 2:
        return 0.0, UNFINISHED
    text = _CLOSING.sub("", read.answer[-_LOOKED_AT_END:])
    if not text or read.phrasing.dangling.search(text):
        return 0.0, UNFINISHED
    if text[-1] in "?？؟" and len(_SENTENCE_END.findall(read.answer)) == 1:
        return 0.0, ASKS_BACK
    return (MOST_POINTS if _ENDS.search(text) or read.answer.endswith(_FENCE) else 0.5), ""


# --------------------------------------------------------------------------------------- natural phrasing
def phrasing(read: Read) -> Verdict:
    """Two points for prose: sentences held together by the language's common words, written mostly in letters.

    None for another language than the question's, for what machines say instead of an answer, for lists of words, signs
    and letters at random.
    """
    if read.phrasing.empty_phrases.search(read.answer):
        return 0.0, ANSWERS_NOTHING
    if language_of(read.answer) != read.language:
        return 0.0, OTHER_LANGUAGE
    words = read.answer_words
    letters = len(_LETTER.findall(read.answer)) / max(1, len("".join(read.answer.split())))
    held_by = read.phrasing.common_words
    common = len([word for word in words if word in held_by]) / max(1, len(words))
    held = min(1.0, common / read.phrasing.natural_share)
    if letters < 0.6 or held < 0.3 or _random_letters(words) > 0.2 or _shouts(read.answer):
        return 0.0, NOT_PROSE
    return MOST_POINTS * held * min(1.0, letters / 0.75) * (1.0 if _paced(read) else 0.5), ""


def _random_letters(words: Sequence[str]) -> float:
    """The share of the words in Latin letters that nobody can pronounce."""
    latin = [word for word in words if len(word) > 3 and word.isascii() and word.isalpha()]
    return sum(_VOWELLESS.search(word) is not None for word in latin) / len(latin) if latin else 0.0


def _shouts(text: str) -> bool:
    """Written in capitals."""
    capitals = len(_CAPITAL.findall(text))
    return capitals > 12 and capitals > 0.6 * len(_LATIN.findall(text))


def _paced(read: Read) -> bool:
    """Whether sentences have between 3 and 50 words (characters, in Chinese) each."""
    sentences = max(1, len(_SENTENCE_END.findall(read.answer)))
    return 3 <= len(read.answer_words) / sentences <= 50


# --------------------------------------------------------------------------------------------- relevance
def relevance(read: Read) -> Verdict:
    """Two points for taking up a third of what the question is about, one and a half for some of it.

    One where the question names no subject, or where a "why" is met by a "because", a "how many" by a number. None for
    an answer that has nothing to do with the question, or that only says it again.
    """
    subjects = stems_of(read.plain_question, read.question_words, read.phrasing)
    taken_up = subjects & read.answer_stems
    if read.answer_stems and len(read.answer_stems - subjects) < 0.2 * len(read.answer_stems):
        return 0.0, ECHO
    if taken_up:
        return (MOST_POINTS if 3 * len(taken_up) >= len(subjects) else 0.75 * MOST_POINTS), ""
    if len(subjects) < 2 or _form_fits(read):
        return 0.5 * MOST_POINTS, ""
    return 0.0, OFF_TOPIC


def _form_fits(read: Read) -> bool:
    question, answer = read.question.strip(), read.answer
    return any(asked.search(question) and said.search(answer) for asked, said in read.phrasing.forms)


# -------------------------------------------------------------------------------------------- perplexity
def unlikely(perplexity: float) -> float:
    """Points that an unlikely answer loses, -2 .. 0: none up to LIKELY_PERPLEXITY, all from ABSURD_PERPLEXITY on.

    What is not a perplexity (not finite, or below 1: a model that has diverged) takes nothing away.
    """
    if not math.isfinite(perplexity) or perplexity <= LIKELY_PERPLEXITY:
        return 0.0
    share = math.log(perplexity / LIKELY_PERPLEXITY) / math.log(ABSURD_PERPLEXITY / LIKELY_PERPLEXITY)
    return -MOST_POINTS * min(1.0, share)


CRITERIA: dict[str, Callable[[Read], Verdict]] = {
    "length": length, "repetition": repetition, "completeness": completeness, "phrasing": phrasing,
    "relevance": relevance,
}  # fmt: skip
"""In the order in which their reasons are told."""
