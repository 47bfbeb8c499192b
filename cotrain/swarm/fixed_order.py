"""Sums and medians of vectors with the same bits on every machine.

Torch adds up a vector in an order that depends on the instruction set and on the number of threads. What decides over
a contribution must come out alike where the reduction is repeated, so here the order is written down: element by
element, in float64, where the product of two float32 values is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

FOLD_VALUES = 2**15
"""A vector is cut into pieces of so many values, which are added onto each other; a power of two."""
_MEDIAN_VALUES = 2**16
"""Values of each vector that are sorted at a time: they stay in the processor's cache."""


@torch.no_grad()
def dot(one: Tensor, other: Tensor) -> float:
    """Sum of the products of two [n] float32 vectors, accumulated in float64."""
    sums = _Sums()
    for left, right in zip(one.split(FOLD_VALUES), other.split(FOLD_VALUES), strict=True):
        wide = left.double()
        sums.add(wide, wide if one is other else right.double())
    return sums.total()


def norm(values: Tensor) -> float:
    """Euclidean norm of an [n] float32 vector."""
    return dot(values, values) ** 0.5


class _Sums:
    """Products of the pieces of two vectors, added onto each other, place by place."""

    def __init__(self) -> None:
        self._sums = torch.zeros(FOLD_VALUES, dtype=torch.float64)

    def add(self, left: Tensor, right: Tensor) -> None:
        """[at most FOLD_VALUES] float64 each, of float32 values.

        The products are exact, so it makes no difference whether a machine rounds them before it adds them up.
        """
        self._sums[: left.numel()].addcmul_(left, right)

    def total(self) -> float:
        sums = self._sums
        while sums.numel() > 1:
            half = sums.numel() // 2
            sums = torch.add(sums[:half], sums[half:])
        return float(sums)


@dataclass(frozen=True)
class Agreement:
    """How long vectors are, and how far they point where their coordinate-wise median does.

    Attributes:
        norms: of each vector.
        dots: of each with the median.
        median_norm: of the median.
    """

    norms: list[float]
    dots: list[float]
    median_norm: float

    @property
    def cosines(self) -> list[float]:
        """Of the angles to the median; 0 where one of the two is zero."""
        return [
            dot / length / self.median_norm if length > 0 and self.median_norm > 0 else 0.0
            for dot, length in zip(self.dots, self.norms, strict=True)
        ]


@torch.no_grad()
def agreement(vectors: Sequence[Tensor]) -> Agreement:
    """Norms of [n] float32 vectors and of their median, and their products, in one pass: a piece stays in the cache."""
    squares, products, of_median = [_Sums() for _ in vectors], [_Sums() for _ in vectors], _Sums()
    for pieces in zip(*(vector.split(FOLD_VALUES) for vector in vectors), strict=True):
        median = coordinate_median(pieces).double()
        of_median.add(median, median)
        for piece, square, product in zip(pieces, squares, products, strict=True):
            wide = piece.double()
            square.add(wide, wide)
            product.add(wide, median)
    return Agreement(
        [square.total() ** 0.5 for square in squares], [product.total() for product in products],
        of_median.total() ** 0.5,
    )  # fmt: skip


@torch.no_grad()
def coordinate_median(vectors: Sequence[Tensor]) -> Tensor:
    """Median of [n] float32 vectors, coordinate by coordinate; the middle of the two middle ones of an even number.

    The lower one of the two would pull all coordinates the same way, round after round.
    """
    if len({vector.numel() for vector in vectors}) != 1:
        raise ValueError("the vectors differ in length, or there are none")
    median = torch.zeros_like(vectors[0])  # adding to zero leaves no negative zeros, whose sign min and max may choose
    pieces = zip(median.split(_MEDIAN_VALUES), *(vector.split(_MEDIAN_VALUES) for vector in vectors), strict=True)
    for out, *rows in pieces:
        for low, high in _comparisons(len(rows)):
            rows[low], rows[high] = torch.minimum(rows[low], rows[high]), torch.maximum(rows[low], rows[high])
        for middle in ((len(rows) - 1) // 2, len(rows) // 2):
            out.add_(torch.mul(rows[middle], 0.5))
    return median


@cache
def _comparisons(count: int) -> tuple[tuple[int, int], ...]:
    """Pairs to compare and exchange, in this order, so that `count` rows end sorted: merge exchange (Batcher, 1968).

    Sorting whole rows against each other takes a hundredth of the time that torch or numpy take to sort columns.
    """
    pairs, top = [], 1 << max(0, (count - 1).bit_length() - 1)
    block = top
    while count > 1 and block > 0:
        merged, offset, distance = top, 0, block
        while True:
            pairs += [(i, i + distance) for i in range(count - distance) if i & block == offset]
            if merged == block:
                break
            distance, offset, merged = merged - block, block, merged // 2
        block //= 2
    return tuple(pairs)
