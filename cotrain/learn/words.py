"""Words of a text, and which of them tell its subject. Pure; texts are `normalized` (cotrain/learn/samples.py)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cotrain.learn.phrasing import Phrasing

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_HAN_OR_WORD = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]|[^\\s\u3400-\u4dbf\u4e00-\u9fff]+")
_HAN_RUN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]+")
_PERSIAN_VERB = re.compile("^ن?می(?=\\w{2})")


def words_of(text: str, phrasing: Phrasing) -> list[str]:
    """The words in order; of Chinese each character is one, words in other letters aside."""
    if phrasing.stem_letters:
        return text.split()
    return _HAN_OR_WORD.findall(text)


def stems_of(text: str, words: Sequence[str], phrasing: Phrasing) -> set[str]:
    """What tells the subject: first letters of the words that are not common; of Chinese, pairs of characters.

    Args:
        words: those of `text`.
    """
    if not phrasing.stem_letters:
        pairs = {run[place : place + 2] for run in _HAN_RUN.findall(text) for place in range(max(1, len(run) - 1))}
        latin = {word for word in words if not _HAN.match(word)}
        return {pair for pair in pairs | latin if not _says_nothing(pair, phrasing)}
    return {
        _PERSIAN_VERB.sub("", word)[: phrasing.stem_letters]
        for word in words
        if word not in phrasing.common_words and word not in phrasing.question_words and len(word) > 1
    }


def _says_nothing(pair: str, phrasing: Phrasing) -> bool:
    return pair in phrasing.question_words or (pair[0] in phrasing.common_words and pair[-1] in phrasing.common_words)
