"""Error feedback from one decided round to the next that averages the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

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
    of the same fragment: so an audit can follow it.
    """

    def __init__(self, fragment_sizes: Sequence[int]):
        """`fragment_sizes`: values in each fragment; round r averages fragment r modulo their number."""
        self._sizes = tuple(fragment_sizes)
        self.forget()

    def forget(self) -> None:
        """Start again from nothing: another outer state has been taken over."""
        self._kept: dict[int, _Kept] = {}
        self._spare: dict[int, Residuals] = {}

    def for_round(self, round_: int, mine: Iterable[Part]) -> Residuals:
        """A copy for a round in which this peer reduces the parts `mine`; what averages of others lost is undefined."""
        fragment = round_ % len(self._sizes)
        numel, kept = self._sizes[fragment], self._kept.get(fragment)
        # not a spare for long: a round that fails may go on writing to what it was given
        residuals = self._spare.pop(fragment, None) or Residuals(torch.empty(numel), torch.empty(numel))
        if kept is None:
            residuals.contribution.zero_()
        else:
            residuals.contribution.copy_(kept.residuals.contribution)
        for part in mine:
            at = slice(part.start, part.stop)
            if kept is not None and round_ == kept.round + len(self._sizes) and part in kept.reduced:
                residuals.average[at] = kept.residuals.average[at]
            else:
                residuals.average[at] = 0.0
        return residuals

    def keep(self, round_: int, residuals: Residuals, reduced: Iterable[Part]) -> None:
        """After a decided round: `reduced` are the parts whose averages, as this peer made them, were decided on."""
        fragment = round_ % len(self._sizes)
        if fragment in self._kept:  # its memory serves again: fresh memory of this size costs more than the copying
            self._spare[fragment] = self._kept[fragment].residuals
        self._kept[fragment] = _Kept(round_, residuals, frozenset(reduced))
