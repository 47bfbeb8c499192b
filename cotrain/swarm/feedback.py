"""Error feedback from one decided round to the next that averages the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from cotrain.swarm.all_reduce import Residuals
from cotrain.swarm.parts import Part


@dataclass(frozen=True)
class _Kept:
    round: int
    residuals: Residuals
    reduced: frozenset[Part]


class ErrorFeedback:
    """What this peer's encodings have lost.

    What an average lost is added to the next one only if this peer reduces the very same part in the very next round
    of the same fragment: so an audit can follow it. Of a part that was never encoded, for want of its reducer, nothing
    is carried on: its whole contribution is lost then.
    """

    def __init__(self, fragments: int):
        """`fragments`: round r averages fragment r modulo their number."""
        self._fragments = fragments
        self.forget()

    def forget(self) -> None:
        """Start again from nothing: another outer state has been taken over."""
        self._kept: dict[int, _Kept] = {}

    @torch.no_grad()
    def with_lost(self, round_: int, vector: Tensor, into: Tensor | None = None) -> Tensor:
        """A copy of a round's [n] float32 contribution, with what the last one lost added; `into`: memory for it."""
        copied = vector.clone() if into is None or into.shape != vector.shape else into.copy_(vector)
        kept = self._kept.get(round_ % self._fragments)
        for part, lost in () if kept is None else kept.residuals.contribution.items():
            copied[part.start : part.stop].add_(lost)
        return copied

    def of_averages(self, round_: int, mine: Iterable[Part]) -> dict[Part, Tensor]:
        """What the last averages of the parts lost that this peer reduces in a round; absent: nothing to be added."""
        kept = self._kept.get(round_ % self._fragments)
        if kept is None or round_ != kept.round + self._fragments:
            return {}
        lost = kept.residuals.average
        return {part: lost[part] for part in mine if part in kept.reduced and part in lost}

    def keep(self, round_: int, residuals: Residuals, reduced: Iterable[Part]) -> None:
        """After a decided round: `reduced` are the parts whose averages, as this peer made them, were decided on."""
        self._kept[round_ % self._fragments] = _Kept(round_, residuals, frozenset(reduced))
