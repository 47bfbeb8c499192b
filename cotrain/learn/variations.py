"""New samples from samples that are there: other questions for the same answer, other words for the same thing. Pure.

A variation is marked with its kind and with the sample that it is made of. None is made of a variation: errors would
add up. What it changes is small and known (`cotrain/learn/templates.py`), so that the answer stays true: questions are
asked in another form, words give way to words of the same meaning, and a given name to another where question and
answer both have it.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from cotrain.learn.samples import VARIED, Sample
from cotrain.learn.templates import TEMPLATES, Templates

T = TypeVar("T")
Pair: TypeAlias = tuple[str, str]
"""A question and its answer."""


def variations_of(sample: Sample, most: int, *, seed: int = 0) -> list[Sample]:
    """At most `most` variations of a sample, all different; none of a sample that is one itself.

    Which of the possible ones follows from the seed and the sample alone; kinds take turns, so that two variations are
    of two kinds where both can be made. Their score is the parent's until they are judged.
    """
    templates = TEMPLATES.get(sample.language)
    if sample.is_variation or templates is None or most <= 0:
        return []
    turn = int.from_bytes(hashlib.sha256(f"{seed}:{sample.key}".encode()).digest()[:6])
    streams = [(kind, make(sample, templates, turn)) for kind, make in _turned(list(KINDS.items()), turn)]
    found: dict[str, Sample] = {}
    while streams:
        for kind, stream in list(streams):
            pair = next(stream, None)
            if pair is None:
                streams.remove((kind, stream))
                continue
            varied = replace(sample, question=pair[0], answer=pair[1], origin=f"{VARIED}:{kind}:{sample.key}")
            if varied.key != sample.key and varied.fits:
                found.setdefault(varied.key, varied)
            if len(found) == most:
                return list(found.values())
    return list(found.values())


# --------------------------------------------------------------------------------------------- questions
def question_forms(sample: Sample, templates: Templates, turn: int) -> Iterator[Pair]:
    """The question in another form that asks for the same."""
    question = sample.question.strip()
    for group in templates.question_forms:
        match = next(filter(None, (pattern.fullmatch(question) for pattern in group.patterns)), None)
        if match:
            for form in _turned(group.forms, turn):
                yield form.format(*match.groups()), sample.answer
            return


def openings(sample: Sample, templates: Templates, turn: int) -> Iterator[Pair]:
    """The question with polite words before it, unless it begins with such."""
    question = sample.question.strip()
    if templates.opened.match(question):
        return
    for opening in _turned(templates.openings, turn):
        yield opening.format(question), sample.answer


# ----------------------------------------------------------------------------------------------- answers
def synonyms(sample: Sample, templates: Templates, turn: int) -> Iterator[Pair]:
    """Each word of the answer that has a synonym, in turn, gives way to it everywhere."""
    for words in _turned(templates.synonyms, turn):
        for word in words:
            if _word(word, templates).search(sample.answer):
                for other in words:
                    if other != word:
                        yield sample.question, _swapped(sample.answer, word, other, templates)


def names(sample: Sample, templates: Templates, turn: int) -> Iterator[Pair]:
    """A given name that stands in question and answer, alone, becomes another of its kind in both.

    Answers where a second name of the kind stands are left alone: the two might become one.
    """
    for kind in templates.names:
        present = [name for name in kind if _word(name, templates).search(f"{sample.question}\n{sample.answer}")]
        if len(present) != 1 or not all(
            _lone_name(present[0], templates).search(text) for text in (sample.question, sample.answer)
        ):
            continue
        for other in _turned([name for name in kind if name != present[0]], turn):
            yield (
                _swapped(sample.question, present[0], other, templates),
                _swapped(sample.answer, present[0], other, templates),
            )


KINDS: dict[str, Callable[[Sample, Templates, int], Iterator[Pair]]] = {
    "question-form": question_forms, "synonym": synonyms, "opening": openings, "name": names,
}  # fmt: skip
"""By what an origin calls them."""


def _turned(items: Sequence[T], turn: int) -> list[T]:
    """The items in their order, begun somewhere else."""
    start = turn % len(items) if items else 0
    return [*items[start:], *items[:start]]


@functools.cache  # of the words in the templates only
def _word(word: str, templates: Templates) -> re.Pattern[str]:
    """Where a word stands whole; Chinese has no spaces between words."""
    return re.compile(rf"(?<![\w\u200c]){word}(?![\w\u200c])" if templates.spaced else word, re.IGNORECASE)


@functools.cache
def _lone_name(name: str, templates: Templates) -> re.Pattern[str]:
    """A given name without a surname: no capital letter beside it."""
    return re.compile(rf"(?<!\w)(?<![A-Z]\. ){name}(?![\w\u200c])(?! [A-Z])" if templates.spaced else name)


def _swapped(text: str, word: str, other: str, templates: Templates) -> str:
    """`other` for `word`, with a capital letter where that had one."""
    return _word(word, templates).sub(lambda found: other.capitalize() if found[0][0].isupper() else other, text)
