"""Persian text in one spelling: the same letters, digits and spaces, however it was typed.

Keyboards and converters leave Arabic code points in Persian text; to a tokenizer, each pair of look-alikes is two
letters. Digits of both Arabic blocks become Persian ones, which is what a Persian reader types; ASCII digits stay,
for they belong to Latin words, formulas and addresses. The zero-width non-joiner (U+200C) is a letter's part in Persian
spelling: it is never taken out, only runs of it become one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_LETTERS = {
    "\u064a": "\u06cc",  # Arabic yeh
    "\u0649": "\u06cc",  # Arabic alef maksura
    "\u0643": "\u06a9",  # Arabic kaf
}
_DIGITS = {chr(0x0660 + digit): chr(0x06F0 + digit) for digit in range(10)}
_SPACES = dict.fromkeys([*map(chr, range(0x2000, 0x200B)), "\u00a0", "\u202f", "\u205f", "\u3000"], " ")
_TABLE = str.maketrans(_LETTERS | _DIGITS | _SPACES)
_RUNS = re.compile("[ \t]{2,}|\u200c{2,}")


def normalize_persian(text: str) -> str:
    """The text in NFC with Persian letters and digits, plain spaces, and no runs of spaces or non-joiners.

    Doing it twice changes nothing more. Line ends stay.
    """
    composed = unicodedata.normalize("NFC", text).translate(_TABLE)
    return _RUNS.sub(lambda run: "\u200c" if run[0][0] == "\u200c" else " ", composed)


def normalize_with_offsets(text: str, offsets: Sequence[int]) -> tuple[str, list[int]]:
    """The normalized text, and where each of the offsets (0 .. len(text)) into the original now is.

    The stretches between the offsets are normalized one by one, so that a run that an offset parts stays parted.
    """
    pieces: list[str] = []
    moved: dict[int, int] = {}
    start = length = 0
    for end in sorted({*offsets, len(text)}):
        pieces.append(normalize_persian(text[start:end]))
        length += len(pieces[-1])
        moved[end] = length
        start = end
    return "".join(pieces), [moved[offset] for offset in offsets]
