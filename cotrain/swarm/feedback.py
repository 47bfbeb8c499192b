"""Error feedback from one decided round to the next that averages the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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

    def for_round(self, round_: int, mine: Iterable[Part]) -> Residuals:
        """A copy for a round in which this peer reduces the parts `mine`."""
        fragment = round_ % len(self._sizes)
        residuals, kept = Residuals.zeros(self._sizes[fragment]), self._kept.get(fragment)
        if kept is not None:
            residuals.contribution.copy_(kept.residuals.contribution)
            for part in mine:
                if round_ == kept.round + len(self._sizes) and part in kept.reduced:
                    at = slice(part.start, part.stop)
                    residuals.average[at] = kept.residuals.average[at]
        return residuals

    def keep(self, round_: int, residuals: Residuals, reduced: Iterable[Part]) -> None:
        """After a decided round: `reduced` are the parts whose averages, as this peer made them, were decided on."""
        self._kept[round_ % len(self._sizes)] = _Kept(round_, residuals, frozenset(reduced))
