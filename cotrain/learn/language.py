"""Which of the languages that are judged here a text is in, by its letters and its commonest words. Pure.

Letters decide between scripts; words decide where languages share one: Persian, Arabic, Urdu and Kurdish, or English
and the other languages that are written in Latin letters.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

Language: TypeAlias = Literal["en", "fa", "zh", "other"]

LOOKED_AT_CHARACTERS = 2000
"""More of a text changes nothing."""

_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
_ARABIC = re.compile("[\u0620-\u064a\u066e-\u06d3\u06fa-\u06ff]")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_KANA_OR_HANGUL = re.compile("[\u3041-\u30ff\uac00-\ud7af\u1100-\u11ff]")
_OTHER_LETTERS = re.compile("[\u0370-\u05ff\u0700-\u1fff]")
_LATIN_WORD = re.compile("[a-z\u00df-\u024f]+")
_ARABIC_WORD = re.compile("[\u0620-\u064a\u066e-\u06d3]+")


def word_set(text: str) -> frozenset[str]:
    """The words of a text, for lists that are easier read as one."""
    return frozenset(text.split())


_ENGLISH_WORDS = word_set("""
    the of and to in is are was were it that this for on with as be by from at or not you your i my we they he
    she what how why when where which who can do does did have has will would should if there their an but about
    more
""")
_LATIN_OTHERS = word_set("""
    el la los las de del que y en un una por con para es como está le les des et une dans est pour qui sur pas
    je vous der die das und ist nicht ein eine mit von zu den auf für wie ich il di che per sono della non com
    não uma os um het een van niet ve bir bu için ne och att det som på jest nie się czy và của là yang dan
    dengan untuk
""")
_PERSIAN_WORDS = word_set("""
    است را از که این به در با برای های می و یا هم تا اگر چه چرا آن یک شود شد کرد کنید کنم کن بود دارد هستند
    چگونه چطور کجا کدام نیست باید شما من ما خود بر چیست چیه رو سلام
""")
_ARABIC_WORDS = word_set("""
    في من على إلى هذا هذه التي الذي ما هل كيف لا أن إن كان مع عن هو هي ذلك كل بعد قبل أنا لم لن قد أو ثم
""")
_SHARED_WORDS = _PERSIAN_WORDS & _ARABIC_WORDS
_PERSIAN_LETTERS = re.compile("[پچژگ]")
_ARABIC_LETTERS = re.compile("[ةىإ]|\\bال")
_FOREIGN_LETTERS = re.compile("[ٹڈڑےںہھۆێڵڕڤەټډړږښګڼې]")
"""Of Urdu, Kurdish and Pashto."""
_UNIFIED = str.maketrans({"\u064a": "\u06cc", "\u0643": "\u06a9", "\u0649": "\u06cc"})


def language_of(text: str) -> Language:
    """The language of most of a text's letters; `other` where it has none, or is in a language that is not judged."""
    looked_at = text[:LOOKED_AT_CHARACTERS]
    counts = {
        "latin": len(_LATIN.findall(looked_at)),
        "arabic": len(_ARABIC.findall(looked_at)),
        "han": 2 * len(_HAN.findall(looked_at)),  # a character is a syllable, not a letter
        "other": len(_KANA_OR_HANGUL.findall(looked_at)) * 4 + len(_OTHER_LETTERS.findall(looked_at)),
    }
    script = max(counts, key=lambda name: counts[name])
    if counts[script] == 0 or script == "other":
        return "other"
    if script == "han":
        return "zh"
    return _latin(looked_at) if script == "latin" else _arabic(looked_at)


def _latin(text: str) -> Language:
    """English, unless words or accents of other languages outnumber its own."""
    words = _LATIN_WORD.findall(text.lower())
    english = sum(word in _ENGLISH_WORDS for word in words)
    others = sum(word in _LATIN_OTHERS for word in words)
    accented = sum(not word.isascii() for word in words)
    return "other" if others + accented > english and 4 * (others + accented) >= len(words) else "en"


def _arabic(text: str) -> Language:
    """Persian, unless letters or words of Arabic, Urdu, Kurdish or Pashto outnumber its own."""
    words = _ARABIC_WORD.findall(text)
    persian = sum(word.translate(_UNIFIED) in _PERSIAN_WORDS and word not in _SHARED_WORDS for word in words)
    arabic = sum(word in _ARABIC_WORDS and word not in _SHARED_WORDS for word in words)
    persian += len(_PERSIAN_LETTERS.findall(text))
    arabic += len(_ARABIC_LETTERS.findall(text))
    foreign = len(_FOREIGN_LETTERS.findall(text))
    return "other" if arabic > persian or 6 * foreign > len(words) else "fa"
