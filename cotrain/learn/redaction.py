"""Takes out of a text what tells who somebody is or how to reach them: each kind gives way to a word in brackets. Pure.

The patterns hold no nested repetition and bound each one, so that a hostile text costs no more than a long one. Digits
may be ASCII, Arabic or Persian: they count alike.
"""

from __future__ import annotations

import re

EMAIL, PHONE, CARD, WALLET = "[email]", "[phone]", "[card]", "[wallet]"
MARKS = (EMAIL, PHONE, CARD, WALLET)

_DIGIT = "0-9\u0660-\u0669\u06f0-\u06f9"
_ASCII_DIGITS = str.maketrans(
    {chr(start + digit): str(digit) for start in (0x0660, 0x06F0) for digit in range(10)}
)  # fmt: skip

_EMAIL = re.compile(r"[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w@])")
_WALLET = re.compile(
    r"(?<![0-9A-Za-z])(?:0x[0-9a-fA-F]{40}|0x[0-9a-fA-F]{60,64}|bc1[02-9ac-hj-np-z]{25,60}"
    r"|[13][1-9A-HJ-NP-Za-km-z]{25,34})(?![0-9A-Za-z])"
)
"""Ethereum; Aptos, whose leading zeros may be left out; Bitcoin."""
_NUMBER = re.compile(
    rf"(?<![\w.,/\]])(?:\+|\(\+?)?[{_DIGIT}](?:[ \u00a0().\u2010-\u2013-]{{0,2}}[{_DIGIT}]){{6,30}}(?![\w])"
)
"""Groups of digits that may be a card's or a phone's: 7 to 31 of them, at most two signs between two."""
_DATE_OR_DECIMAL = re.compile(r"\d{1,4}[-.]\d{1,2}[-.]\d{1,4}|\d+\.\d+|\d{4} ?[-\u2010-\u2013] ?\d{4}")
_SEPARATORS = re.compile(r"[^\d+]")

CARD_DIGITS = range(13, 20)
PHONE_DIGITS = range(9, 16)
"""E.164 allows 15; below 9 a number is rarely one that reaches a person from elsewhere."""


def redact(text: str) -> str:
    """The text without e-mail addresses, payment cards, wallets and phone numbers. Doing it twice changes nothing."""
    if "@" in text:
        text = _EMAIL.sub(EMAIL, text)
    text = _WALLET.sub(WALLET, text)
    return _NUMBER.sub(_number, text)


def passes_luhn(digits: str) -> bool:
    """Whether the last of these ASCII digits checks the others (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) << (place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _number(match: re.Match[str]) -> str:
    """What stands for a run of digits: a mark, or the run itself where it is neither a card nor a phone."""
    written = match[0].translate(_ASCII_DIGITS)
    digits = _SEPARATORS.sub("", written).lstrip("+")
    if len(digits) in CARD_DIGITS and "+" not in written and passes_luhn(digits):
        return CARD
    if _DATE_OR_DECIMAL.fullmatch(written):
        return match[0]
    return PHONE if _is_phone(written, digits) else match[0]


def _is_phone(written: str, digits: str) -> bool:
    """A plus or a leading zero tells a phone, and so do groups; a plain long number is a quantity."""
    if len(digits) not in PHONE_DIGITS:
        return False
    grouped = len(written) > len(digits)
    return written.lstrip("(")[0] in "+0" or (grouped and "." not in written and not _is_thousands(written))


def _is_thousands(written: str) -> bool:
    """`12 345 678`: groups of three behind the first."""
    return re.fullmatch(r"\d{1,3}(?:[ \u00a0]\d{3})+", written) is not None
