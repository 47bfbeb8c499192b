"""Division of the parameters into fragments that synchronize in turn, one a round (Streaming DiLoCo, arXiv:2501.18512).

With F fragments a round lasts `inner_steps / F` inner steps and averages one fragment, so that each is averaged once
in `inner_steps` and the peak of the traffic is an F-th. Layers are dealt out in strides, as the paper does; what
belongs to no layer goes where there is least. Every peer of a session divides alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from cotrain.errors import ConfigError
from cotrain.train.model import parameter_layout

_LAYER = re.compile(r"^(.*?)\.(\d+)\.")
Range = tuple[int, int]


@dataclass(frozen=True)
class Fragments:
    """Which values of the flat vector belong to which fragment.

    Attributes:
        ranges: of each fragment, (start, stop) in rising order; together they cover the vector once.
    """

    ranges: tuple[tuple[Range, ...], ...]

    @classmethod
    def whole(cls, numel: int) -> Fragments:
        """One fragment: all `numel` values."""
        return cls((((0, numel),),))

    @classmethod
    def of_model(cls, model: torch.nn.Module, count: int) -> Fragments:
        """`count` fragments of a model's parameters. Raises ConfigError if it has too few layers for them."""
        return cls(divide([(name, _product(shape)) for name, shape, _ in parameter_layout(model)], count))

    @property
    def count(self) -> int:
        return len(self.ranges)

    def sizes(self) -> tuple[int, ...]:
        """Values in each fragment."""
        return tuple(sum(stop - start for start, stop in ranges) for ranges in self.ranges)

    def due(self, round_: int) -> tuple[Range, ...]:
        """The ranges that the round which follows `round_` outer steps averages."""
        return self.ranges[round_ % self.count]

    def size_due(self, round_: int) -> int:
        """Values that this round averages."""
        return self.sizes()[round_ % self.count]


def divide(parameters: Sequence[tuple[str, int]], count: int) -> tuple[tuple[Range, ...], ...]:
    """The ranges of `count` fragments. Raises ConfigError if some would be empty.

    Args:
        parameters: (name, values) of each parameter in the order of the flat vector. A name with a number between dots
            belongs to that layer of what stands before it.
    """
    layers: dict[str, int] = {}
    sizes = [0] * count
    fragment_of: list[int | None] = []
    for name, values in parameters:
        found = _LAYER.match(f"{name}.")
        layer = layers.setdefault(found.group(0), len(layers)) if found else None
        fragment_of.append(None if layer is None else layer % count)
        if layer is not None:
            sizes[layer % count] += values
    for number, (_, values) in enumerate(parameters):
        if fragment_of[number] is None:
            smallest = sizes.index(min(sizes))
            fragment_of[number] = smallest
            sizes[smallest] += values
    if min(sizes) == 0:
        raise ConfigError(
            f"a model of {len(layers)} layers cannot be divided into {count} fragments",
            field="diloco.fragments", hint=f"at most {max(1, len(layers))}",
        )  # fmt: skip
    return tuple(_ranges(parameters, fragment_of, fragment) for fragment in range(count))


def _ranges(
    parameters: Sequence[tuple[str, int]], fragment_of: Sequence[int | None], fragment: int
) -> tuple[Range, ...]:
    ranges: list[Range] = []
    start = 0
    for (_, values), owner in zip(parameters, fragment_of, strict=True):
        if owner == fragment:
            joins = bool(ranges) and ranges[-1][1] == start
            ranges[-1:] = [(ranges[-1][0], start + values)] if joins else [*ranges[-1:], (start, start + values)]
        start += values
    return tuple(ranges)


def positions(ranges: Sequence[Range]) -> list[tuple[slice, slice]]:
    """Where each range lies in the whole vector, and where in a vector of the fragment alone."""
    ends = [0]
    for start, stop in ranges:
        ends.append(ends[-1] + stop - start)
    return [(slice(*range_), slice(*at)) for range_, at in zip(ranges, pairwise(ends), strict=True)]


def take(flat: Tensor, ranges: Sequence[Range]) -> Tensor:
    """The values of `flat` [n] in these ranges, [m]; `flat` itself where they are all of it."""
    if tuple(ranges) == ((0, flat.numel()),):
        return flat
    return torch.cat([flat[start:stop] for start, stop in ranges])


def _product(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size
