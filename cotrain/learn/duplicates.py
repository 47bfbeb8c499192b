"""Near-duplicates by MinHash: which of many samples say the same in almost the same letters. Pure, and deterministic.

A text is the set of its groups of five characters. For each of 64 hash functions the least hash of a set is kept; two
sets agree in one of them as often as their Jaccard index says (Broder, 1997). Sixteen bands of four are looked up in
tables, and what meets in two of them is compared exactly. By the binomial distribution two texts that are 0.8 alike
miss each other 27 times in ten thousand, 0.85 alike 14 times in a hundred thousand.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

NEAR = 0.8
"""Texts whose groups of characters have at least this Jaccard index are near."""
GROUP = 5
HASHES, BANDS = 64, 16
MOST_COMPARED = 64
"""Texts that one text is compared with: a bound on what somebody who fills the tables can cost."""

_MEETINGS = 2
"""Bands in which two texts meet before they are compared."""
_CHARACTERS_AT_ONCE = 2**18
_SEED = 5
_MIX = np.uint64(0x9E3779B97F4A7C15)


def groups_of(text: str) -> frozenset[str]:
    """The groups of five characters of a text; the text itself if it is shorter."""
    return frozenset({text[place : place + GROUP] for place in range(max(1, len(text) - GROUP + 1))})


def likeness(first: frozenset[str], second: frozenset[str]) -> float:
    """The Jaccard index of two sets, 0 .. 1; two empty ones are alike."""
    both = len(first & second)
    either = len(first) + len(second) - both
    return both / either if either else 1.0


class NearIndex:
    """Texts that have been kept, and the question which of them a further one is near to."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._groups: dict[int, frozenset[str]] = {}
        """By the number of the text; made when it is first compared."""
        self._tables: list[dict[int, list[int]]] = [defaultdict(list) for _ in range(BANDS)]

    def near(self, text: str, bands: Sequence[int]) -> Iterator[int]:
        """Numbers of the kept texts that `text` is near to, counted from 0; `bands` are its own (`bands_of`)."""
        met: Counter[int] = Counter()
        for table, band in zip(self._tables, bands, strict=True):
            met.update(table.get(band, ()))
        candidates = [number for number, times in met.most_common(MOST_COMPARED) if times >= _MEETINGS]
        if candidates:
            groups = groups_of(text)
            for number in candidates:
                if likeness(groups, self._groups_of(number)) >= NEAR:
                    yield number

    def keep(self, text: str, bands: Sequence[int]) -> int:
        """Add a text; returns its number."""
        number = len(self._texts)
        self._texts.append(text)
        for table, band in zip(self._tables, bands, strict=True):
            bucket = table[band]
            if len(bucket) < MOST_COMPARED:
                bucket.append(number)
        return number

    def _groups_of(self, number: int) -> frozenset[str]:
        groups = self._groups.get(number)
        if groups is None:
            groups = self._groups[number] = groups_of(self._texts[number])
        return groups


def bands_of(texts: Sequence[str]) -> list[list[int]]:
    """For each text what stands for its BANDS bands. Many short texts are hashed together."""
    bands: list[list[int]] = []
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= _CHARACTERS_AT_ONCE:
            bands += _bands_of_batch(batch)
            batch, characters = [], 0
    return bands + (_bands_of_batch(batch) if batch else [])


def _bands_of_batch(texts: Sequence[str]) -> list[list[int]]:
    hashes, starts = _group_hashes(texts)
    generator = np.random.Generator(np.random.PCG64(_SEED))
    factors = generator.integers(0, 2**64, HASHES, dtype=np.uint64) | np.uint64(1)
    offsets = generator.integers(0, 2**64, HASHES, dtype=np.uint64)
    least = np.empty((HASHES, len(texts)), dtype=np.uint32)
    for place in range(HASHES):  # the upper half of a product: multiply-shift hashing (Dietzfelbinger, 1996)
        hashed = ((hashes * factors[place] + offsets[place]) >> np.uint64(32)).astype(np.uint32)
        least[place] = np.minimum.reduceat(hashed, starts)
    joined = np.zeros((BANDS, len(texts)), dtype=np.uint64)
    for row in least.reshape(BANDS, HASHES // BANDS, len(texts)).swapaxes(0, 1):
        joined = (joined ^ row) * _MIX
    result: list[list[int]] = joined.T.tolist()
    return result


def _group_hashes(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """A hash for each group of five characters of all texts, and where each text's begin; at least one a text."""
    padded = [text.ljust(GROUP, "\0") for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    hashes = np.zeros(len(codes) - GROUP + 1, dtype=np.uint64)
    for place in range(GROUP):
        hashes = (hashes ^ codes[place : len(codes) - GROUP + 1 + place]) * _MIX
        hashes ^= hashes >> np.uint64(29)
    lengths = np.array([len(text) for text in padded])
    ends = np.cumsum(lengths)
    inside = np.ones(len(codes), dtype=bool)  # groups that begin in one text and end in the next are left out
    for back in range(1, GROUP):
        inside[ends - back] = False
    counts = lengths - GROUP + 1
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    return hashes[inside[: len(hashes)]], starts
