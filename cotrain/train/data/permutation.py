"""A random-looking permutation of 0 .. size - 1 that is computed element by element, never held in memory.

A Feistel network permutes the smallest power of four that covers `size`; a value that falls outside is put
through it again until it is inside ("cycle walking": J. Black and P. Rogaway, Ciphers with Arbitrary Finite
Domains, CT-RSA 2002). Each application is a bijection and every cycle comes back inside, so the whole is one.
The domain is less than four times `size`, so that a value takes fewer than four applications on average.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6
"""Four make a network of ideal round functions pseudo-random (Luby and Rackoff); ours are a plain hash."""

Indices = NDArray[np.int64]
Words = NDArray[np.uint64]


def permute(values: Indices, *, size: int, seed: int, tweaks: Indices) -> Indices:
    """Where each of `values` (0 <= value < size) goes under the permutation that `seed` and its tweak choose.

    All arrays are int64 of one shape; values with the same tweak (an epoch) go through the same permutation.
    `seed` is not negative.
    """
    half_bits = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    keys = mix(mix(np.full(values.shape, seed, dtype=np.uint64)) + tweaks.astype(np.uint64))
    result = _feistel(values.astype(np.uint64), keys, half_bits)
    outside = np.flatnonzero(result >= size)
    while outside.size:
        result[outside] = _feistel(result[outside], keys[outside], half_bits)
        outside = outside[result[outside] >= size]
    return result.astype(np.int64)


def _feistel(values: Words, keys: Words, half_bits: np.uint64) -> Words:
    """One application of the network to 0 .. 4**half_bits - 1."""
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & mask
    for number in range(ROUNDS):
        keys = mix(keys + np.uint64(number))
        left, right = right, left ^ (mix(right ^ keys) & mask)
    return (left << half_bits) | right


def mix(words: Words) -> Words:
    """The output function of SplitMix64, modulo 2**64: every bit depends on every bit of the input."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
