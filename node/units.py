"""Sizes and rates as people write them."""

from __future__ import annotations

import re

from cotrain.errors import InvalidRequestError

LEAST_UPLOAD_BYTES_PER_S = 60_000
"""At less, a part of 4 bits for each of its million values would not arrive before its reducer gives up, 10 s later."""

_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?) ?([kmg]i?)?b?", re.IGNORECASE)


def parse_size(text: str) -> int | None:
    """`2MB`, `1.5 MiB` or `500k` -> bytes; None for what is no size."""
    match = _SIZE.fullmatch(text.strip())
    return None if match is None else round(float(match[1]) * _FACTORS[(match[2] or "").lower()])


def parse_rate(text: str, *, field: str) -> int:
    """`2MB`, `1.5 MiB/s` or `500kB` -> bytes a second. Raises InvalidRequestError, in which `field` stands."""
    rate = parse_size(text.strip().removesuffix("/s"))
    if rate is None:
        raise InvalidRequestError(f"{text!r} is no rate", field=field, hint="bytes a second, for example 500kB or 2MB")
    if rate < LEAST_UPLOAD_BYTES_PER_S:
        raise InvalidRequestError(
            f"{text!r} is too little to take part in rounds", field=field,
            hint=f"give at least {LEAST_UPLOAD_BYTES_PER_S // 1000}kB for each of the other peers",
        )  # fmt: skip
    return rate
