"""How the contributions to one part become its average, and which of them are left out. Pure.

A reducer does this once for each of its parts; whoever repeats it from the same contributions gets the same bits: all
arithmetic is done in a fixed order, in the order of the contributions, with separate multiplications and additions.

What can be decided depends on how many contributions count (weight above 0). From two that disagree nobody can tell
which one lies: nothing is left out. From three on a minority neither sets a median length beyond the honest ones nor
leads any coordinate of the median out of the honest range. Within that range it may lead: where honest contributions
have next to nothing in common (a cosine below a tenth), a liar among three or four that knows them all can have an
honest one point away in its place. More than a minority is never left out: where that many look wrong, the tests are
what is wrong.

Medians give each contribution one vote. Weights and steps are what members claim: a vote that weighed four times as
much could be had by claiming it. So steps excuse a long contribution from being left out, but what goes into the
average is shortened all the same; and who agrees with the rest much less than others do counts as an ordinary member
at most, however long and heavy its contribution. Claims alone buy nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor

from cotrain.errors import SwarmError
from cotrain.sections import Aggregation
from cotrain.swarm.fixed_order import agreement, coordinate_median, norm
from cotrain.train.codec import Codec

Number = TypeVar("Number", int, float)
Reason = Literal["wrong size", "not finite", "weight out of bounds", "too long", "points away"]

FEWEST_TO_JUDGE = 3
"""Counted contributions below which none is left out and none is clipped."""
LONGEST_TO_MEDIAN = 3.0
"""A contribution may be this many times as long as the median one."""
LEAST_AGREEMENT = 0.5
"""Share of the group's (lower) median cosine with the coordinate-wise median; below it a member counts as ordinary."""
MOST_MEDIAN_STEPS = 16
"""Steps excuse a long contribution up to this many times the group's lower median."""
SHORTEST_TO_MEDIAN = 0.1
"""An honest contribution is hardly shorter than this share of the median one of as many steps."""
CLIP_ITERATIONS = 3
"""Of centered clipping. The centre moves by at most the radius in each."""
_MEAN_VALUES = 2**17
"""Values of each contribution that are averaged at a time: they stay in the processor's cache."""
MOST_WEIGHT = 2.0**42
"""No weight made of samples is larger."""


@dataclass(frozen=True)
class Contribution:
    """What a member brought to one part.

    Attributes:
        values: [n] float32 on the CPU.
        weight: its share in the average, before division by the sum of all.
        steps: inner steps that it announced.
    """

    member: str
    values: Tensor
    weight: float
    steps: int = 1


@dataclass(frozen=True)
class Aggregated:
    """An average ([n] float32), and who has no part in it."""

    average: Tensor
    dropped: Mapping[str, Reason]


@dataclass(frozen=True)
class Reduced:
    """What a reducer made of the contributions to a part.

    Attributes:
        encoded: their average.
        lost: what the encoding lost, [n] float32; absent: nothing.
        norm: of the average before it was encoded; its last bits depend on the machine.
        dropped: members that have no part in it.
    """

    encoded: bytes
    lost: Tensor | None
    norm: float
    dropped: Mapping[str, Reason]


@torch.no_grad()
def reduce_part(
    rule: Aggregation, contributions: Sequence[Contribution], numel: int, added: Tensor | None, codec: Codec
) -> Reduced:
    """Average contributions to a part and encode the result: the same bytes wherever it is repeated.

    Args:
        contributions: in the order of the members, `numel` values each.
        added: [numel] float32, lost by the encoding of the part's last average; absent: nothing.

    Raises SwarmError if no contribution could be used, ValueError if the average is not finite.
    """
    found = aggregate(rule, contributions, numel)
    average = found.average if added is None else torch.add(found.average, added)
    encoded, lost = codec.encode_with_loss(average)
    return Reduced(encoded, lost, float(torch.linalg.vector_norm(average)), found.dropped)


@torch.no_grad()
def aggregate(rule: Aggregation, contributions: Sequence[Contribution], numel: int) -> Aggregated:
    """Average [numel] contributions by one of the rules.

    - `filter`: the weighted mean of those that are neither too long nor point away from the rest, none of them longer
      than three times the (lower) median norm; those that hardly agree no longer and no heavier than the median.
    - `centered-clip`: from the coordinate-wise median towards the weighted mean, each difference cut to the median
      distance (Karimireddy et al., arXiv:2012.10333).
    - `median`: the coordinate-wise median; weights are ignored, except that a member without weight has no part in it.
    - `mean`: the weighted mean of all.

    Zero if no contribution counts. Raises SwarmError if none could be used.
    """
    dropped: dict[str, Reason] = {c.member: why for c in contributions if (why := _refusal(c, numel)) is not None}
    usable = [c for c in contributions if c.member not in dropped]
    if not usable:
        raise SwarmError("no contribution could be used")
    counted = [c for c in usable if c.weight > 0]
    if not counted:
        return Aggregated(torch.zeros(numel), dropped)
    if rule == "median":
        return Aggregated(coordinate_median([c.values for c in counted]), dropped)
    if rule == "centered-clip" and len(counted) >= FEWEST_TO_JUDGE:
        return Aggregated(_centered_clip(counted), dropped)
    if rule == "filter" and len(counted) >= FEWEST_TO_JUDGE:
        outliers, counted = _filter(counted)
        dropped |= outliers
    return Aggregated(weighted_mean([c.values for c in counted], [c.weight for c in counted]), dropped)


def _refusal(contribution: Contribution, numel: int) -> Reason | None:
    if contribution.values.shape != (numel,) or numel == 0:
        return "wrong size"
    if not 0.0 <= contribution.weight <= MOST_WEIGHT:  # NaN is not
        return "weight out of bounds"
    extremes = torch.stack([contribution.values.amin(), contribution.values.amax()])  # NaN comes through both
    return None if bool(torch.isfinite(extremes).all()) else "not finite"


@torch.no_grad()
def weighted_mean(contributions: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Mean of [n] float32 tensors in the given order, with separate multiplications and additions.

    Zero if the weights add up to nothing.
    """
    total = sum(weights)
    mean = torch.zeros_like(contributions[0])
    if total > 0:
        for piece in range(0, mean.numel(), _MEAN_VALUES):
            at = slice(piece, piece + _MEAN_VALUES)
            for contribution, weight in zip(contributions, weights, strict=True):
                mean[at].add_(torch.mul(contribution[at], weight / total))
    return mean


# ---------------------------------------------------------------------------------------------- the filter
def _filter(contributions: Sequence[Contribution]) -> tuple[dict[str, Reason], list[Contribution]]:
    """Whom to leave out, and the others with what they may at most be.

    Agreement is measured among those that are left: whoever was left out has no say in who counts as ordinary.
    """
    found = agreement([c.values for c in contributions])
    lengths, cosines = found.norms, found.cosines
    dropped = _outliers(contributions, lengths, cosines)
    kept = [(c, length) for c, length in zip(contributions, lengths, strict=True) if c.member not in dropped]
    if dropped:
        cosines = agreement([c.values for c, _ in kept]).cosines
    least = LEAST_AGREEMENT * _lower_median(cosines)
    ordinary_length, ordinary_weight = _lower_median(lengths), _lower_median([c.weight for c in contributions])
    return dropped, [
        _shortened(c, length, LONGEST_TO_MEDIAN * ordinary_length)
        if cosine >= least
        else _shortened(replace(c, weight=min(c.weight, ordinary_weight)), length, ordinary_length)
        for (c, length), cosine in zip(kept, cosines, strict=True)
    ]


def _outliers(
    contributions: Sequence[Contribution], lengths: Sequence[float], cosines: Sequence[float]
) -> dict[str, Reason]:
    """Whom the filter leaves out, at most a minority: the longest first, then those that point away the most.

    Ties fall by name, so that the answer does not depend on the order.
    """
    most = (len(contributions) - 1) // 2
    limits = length_limits(lengths, [c.steps for c in contributions])
    excess = [length / limit if limit > 0 else length for length, limit in zip(lengths, limits, strict=True)]
    rows = list(zip(contributions, lengths, limits, excess, cosines, strict=True))
    too_long = sorted((-beyond, c.member) for c, length, limit, beyond, _ in rows if length > limit)
    pointing_away = sorted((cosine, c.member) for c, _, _, _, cosine in rows if cosine < 0)
    found: dict[str, Reason] = {member: "too long" for _, member in too_long[:most]}
    for _, member in pointing_away:
        if len(found) < most:
            found.setdefault(member, "points away")
    return found


def _shortened(contribution: Contribution, length: float, longest: float) -> Contribution:
    if length <= longest:
        return contribution
    return replace(contribution, values=torch.mul(contribution.values, longest / length))


def length_limits(norms: Sequence[float], steps: Sequence[int]) -> list[float]:
    """How long each contribution may be: three times the (lower) median norm, or more for more steps than the others.

    Honest norms grow a little faster than the square root of the steps. Few steps do not shorten the limit: a liar
    chooses what it claims, so that would hit the slow and honest only.
    """
    counted = counted_steps(steps)
    median = _lower_median(norms)
    median_of_a_step = _lower_median([n / math.sqrt(s) for n, s in zip(norms, counted, strict=True)])
    return [LONGEST_TO_MEDIAN * max(median, math.sqrt(s) * median_of_a_step) for s in counted]


def counted_steps(steps: Sequence[int]) -> list[int]:
    """Steps as they count for the length of a contribution: at least 1, at most 16 times the lower median."""
    at_least_one = [max(1, count) for count in steps]
    most = MOST_MEDIAN_STEPS * _lower_median(at_least_one)
    return [min(count, most) for count in at_least_one]


def _lower_median(values: Sequence[Number]) -> Number:
    return sorted(values)[(len(values) - 1) // 2]


# ---------------------------------------------------------------------------------------------- centered clipping
def _centered_clip(contributions: Sequence[Contribution]) -> Tensor:
    centre = coordinate_median([c.values for c in contributions])
    radius = _lower_median([norm(torch.sub(c.values, centre)) for c in contributions])
    total = sum(c.weight for c in contributions)
    for _ in range(CLIP_ITERATIONS):
        shift = torch.zeros_like(centre)
        for contribution in contributions:
            difference = torch.sub(contribution.values, centre)
            distance = norm(difference)
            kept = 1.0 if distance <= radius else radius / distance
            shift.add_(difference.mul_(contribution.weight / total * kept))
        centre = centre.add_(shift)
    return centre


# ---------------------------------------------------------------------------------------------- what a reducer returns
def longest_average(
    rule: Aggregation, *, part_norm: float, vector_norm: float, share: float, me: int, steps: Sequence[int]
) -> float:
    """Norm beyond which a member does not believe the average of a part; infinite where it cannot judge.

    A member knows its own contribution only. An honest one is hardly shorter than a tenth of the median for its steps,
    and the filter lets nothing through that is longer than three times the median, for the most steps that count (of
    two members the faster is not shortened). The residuals of both encodings are within that tenth: a block's error is
    below half its scale, a 14th of its peak.
    Where its own part is short, because its data says little about these parameters, the part is compared with the
    whole of its vector.

    Args:
        rule: of the session. The plain mean bounds nothing, so nothing is refused.
        part_norm, vector_norm: of this member's own contribution, to the part and as a whole.
        share: values of the part over values of the vector.
        steps: inner steps of all members; this one's stand at `me`.
    """
    length = max(part_norm, vector_norm * math.sqrt(share))
    if rule == "mean" or not 0.0 < length < math.inf:
        return math.inf
    counted = counted_steps(steps)
    return LONGEST_TO_MEDIAN / SHORTEST_TO_MEDIAN * length * math.sqrt(max(counted) / counted[me])
