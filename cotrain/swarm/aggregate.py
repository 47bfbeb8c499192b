"""How the contributions to one part become its average."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def weighted_mean(contributions: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Mean of [n] float32 tensors in the given order, with separate multiplications and additions.

    Zero if the weights add up to nothing.
    """
    total = sum(weights)
    mean = torch.zeros_like(contributions[0])
    if total > 0:
        for contribution, weight in zip(contributions, weights, strict=True):
            mean.add_(torch.mul(contribution, weight / total))
    return mean
