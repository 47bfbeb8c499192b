"""Error feedback from one decided round to the next."""

from __future__ import annotations

from collections.abc import Iterable

from cotrain.swarm.all_reduce import Residuals
from cotrain.swarm.parts import Part


class ErrorFeedback:
    """What this peer's encodings have lost.

    What an average lost is added to the next one only if this peer reduces the very same part in the very next round:
    so an audit can follow it.
    """

    def __init__(self, numel: int):
        self._numel = numel
        self.forget()

    def forget(self) -> None:
        """Start again from nothing: another outer state has been taken over."""
        self._residuals: Residuals | None = None
        self._round = -1
        self._reduced: frozenset[Part] = frozenset()

    def for_round(self, round_: int, mine: Iterable[Part]) -> Residuals:
        """A copy for a round in which this peer reduces the parts `mine`."""
        residuals = Residuals.zeros(self._numel)
        if self._residuals is not None:
            residuals.contribution.copy_(self._residuals.contribution)
            for part in mine:
                if round_ == self._round + 1 and part in self._reduced:
                    at = slice(part.start, part.stop)
                    residuals.average[at] = self._residuals.average[at]
        return residuals

    def keep(self, round_: int, residuals: Residuals, reduced: Iterable[Part]) -> None:
        """After a decided round: `reduced` are the parts whose averages, as this peer made them, were decided on."""
        self._residuals, self._round, self._reduced = residuals, round_, frozenset(reduced)
