"""Chooses the next token of one answer: its own temperature, its own random numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How one answer's tokens are chosen."""

    temperature: float = 1.0
    """0: always the likeliest one."""
    top_p: float = 1.0
    """Of the likeliest tokens, as many are drawn from as have this probability together."""
    seed: int | None = None
    """None: another answer each time."""


def generator_for(sampling: Sampling) -> torch.Generator:
    """Random numbers that no other answer takes from."""
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    return generator


def choose_token(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """A token id.

    Args:
        logits: [vocabulary], float32 on the CPU.
    """
    if sampling.temperature == 0.0:
        return int(logits.argmax())
    # the largest one is 0 before it is divided: a very low temperature makes no infinities
    probabilities = torch.softmax((logits - logits.max()) / sampling.temperature, dim=-1)
    if sampling.top_p < 1.0:
        probabilities = _likeliest(probabilities, sampling.top_p)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _likeliest(probabilities: Tensor, top_p: float) -> Tensor:
    """The same with 0 for all but the fewest tokens that reach `top_p` together; the likeliest one always stays."""
    ordered, order = probabilities.sort(descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    return torch.zeros_like(probabilities).scatter(0, order, ordered.masked_fill(before >= top_p, 0.0))
