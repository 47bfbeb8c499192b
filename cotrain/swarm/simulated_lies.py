"""What liars send in a simulation: crude lies, and lies made to pass the filter.

Liars know what the honest members of the group send, and who else lies. Attacks made to pass are worked out part by
part, as the filter judges, and all liars send the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cotrain.swarm.aggregate import MOST_MEDIAN_STEPS, Contribution, aggregate, length_limits, weighted_mean
from cotrain.swarm.fixed_order import coordinate_median, dot, norm
from cotrain.swarm.parts import Part
from cotrain.swarm.scenario import Lie

LIE_SCALE = 10.0
"""A sign-flip and a scaled contribution are this many times as long as the true one."""
NOISE_SCALE = 100.0
"""Noise is this many times as long as the true contribution."""
LITTLE_DEVIATIONS = 1.5
"""Standard deviations by which "a little" is off; what the paper finds for 24 liars of 50."""
WITHIN_LIMIT = 0.95
"""Share of the longest length that passes; the rest is for what encodings add."""
_ANGLES = 21
"""Directions that are tried, by their cosine with the honest median."""
_TINY = 1e-30


@dataclass(frozen=True)
class Speaker:
    """A member of a group.

    Attributes:
        truth: its pseudo-gradient, [n] float32.
        steps: inner steps that it announces.
        generator: for the lies that are random.
    """

    truth: Tensor
    steps: int
    lie: Lie | None
    generator: np.random.Generator


def announced_steps(lie: Lie | None, steps: int) -> int:
    """Inner steps that a peer claims: who wants to be as long as possible claims all that count."""
    return steps * MOST_MEDIAN_STEPS if lie == "inside-norm" else steps


def spoken(speakers: Sequence[Speaker], parts: Sequence[Part]) -> list[Tensor]:
    """What each member of a group sends, [n] float32."""
    liars = [speaker for speaker in speakers if speaker.lie is not None]
    honest = [speaker for speaker in speakers if speaker.lie is None] or liars
    agreed: dict[Lie, Tensor] = {}
    for lie, invent in _AGREED_ON.items():
        if any(liar.lie == lie for liar in liars):
            pieces = [[speaker.truth[part.start : part.stop] for speaker in honest] for part in parts]
            agreed[lie] = torch.cat([invent(piece, honest, liars) for piece in pieces])
    return [
        tell(speaker.lie, speaker.truth, speaker.generator) if speaker.lie not in agreed else agreed[speaker.lie]
        for speaker in speakers
    ]


def tell(lie: Lie | None, truth: Tensor, generator: np.random.Generator) -> Tensor:
    """What is sent in place of `truth` ([n] float32) by a liar that knows nothing else."""
    if lie == "sign-flip":
        return truth * -LIE_SCALE
    if lie == "scale":
        return truth * LIE_SCALE
    if lie == "zero":
        return torch.zeros_like(truth)
    if lie == "noise":
        noise = torch.from_numpy(generator.standard_normal(truth.numel(), dtype=np.float32))
        return noise * (NOISE_SCALE * truth.norm() / noise.norm())
    return truth


def _little(truths: Sequence[Tensor], _honest: Sequence[Speaker], _liars: Sequence[Speaker]) -> Tensor:
    """The honest mean less some standard deviations of each coordinate (Baruch et al., arXiv:1902.06156).

    The number of deviations is fixed: the paper's formula, which wants a majority to stand behind the lie, gives less
    than none for a liar among four.
    """
    stacked = torch.stack(list(truths))
    return stacked.mean(0) - LITTLE_DEVIATIONS * stacked.std(0, unbiased=False)


def _inside_norm(truths: Sequence[Tensor], honest: Sequence[Speaker], liars: Sequence[Speaker]) -> Tensor:
    """What turns the filter's average farthest from the honest mean, in the plane of that mean and the honest median.

    As long as the filter lets the steps claimed excuse.
    """
    mean, middle = weighted_mean(truths, [1.0] * len(truths)), coordinate_median(truths)
    norms = [norm(truth) for truth in truths] + [math.inf] * len(liars)
    limit = length_limits(norms, [speaker.steps for speaker in (*honest, *liars)])[-1]
    length = WITHIN_LIMIT * limit if math.isfinite(limit) else LIE_SCALE * max(norms[: len(truths)])

    along, against = _unit(middle), _unit(middle * (dot(mean, middle) / max(dot(middle, middle), _TINY)) - mean)
    told = [
        along * (length * cosine) + against * (length * math.sqrt(1.0 - cosine * cosine))
        for cosine in np.linspace(-1.0, 1.0, _ANGLES).tolist()
    ]
    return min(told, key=lambda lie: dot(_unit(_filtered(truths, lie, honest, liars)), mean))


def _filtered(truths: Sequence[Tensor], lie: Tensor, honest: Sequence[Speaker], liars: Sequence[Speaker]) -> Tensor:
    """What the filter makes of a lie that all liars tell."""
    said = [*truths, *[lie] * len(liars)]
    contributions = [
        Contribution(f"{i:06d}", values, 1.0, speaker.steps)
        for i, (values, speaker) in enumerate(zip(said, (*honest, *liars), strict=True))
    ]
    return aggregate("filter", contributions, lie.numel()).average


def _unit(vector: Tensor) -> Tensor:
    return vector / max(norm(vector), _TINY)


_AGREED_ON: dict[Lie, Callable[[Sequence[Tensor], Sequence[Speaker], Sequence[Speaker]], Tensor]] = {
    "inside-norm": _inside_norm, "little": _little,
}  # fmt: skip
"""Lies that need to know the honest contributions."""
