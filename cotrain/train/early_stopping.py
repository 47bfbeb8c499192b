"""When to stop: the validation loss has not fallen for a while."""

from __future__ import annotations

import math
from typing import Any


class EarlyStopping:
    """Counts evaluations in a row without a new best."""

    def __init__(self, patience: int):
        """`patience`: evaluations in a row without a new best after which `stopped` holds. ValueError if below 1."""
        if patience < 1:
            raise ValueError(f"patience is {patience}, expected 1 or more")
        self.patience = patience
        self._best = math.inf
        self._without_best = 0

    @property
    def best(self) -> float:
        """The lowest loss so far; infinite before the first."""
        return self._best

    @property
    def stopped(self) -> bool:
        """Whether the patience is at its end."""
        return self._without_best >= self.patience

    def observe(self, loss: float) -> bool:
        """Take note of a validation loss; True if it is below all earlier ones. NaN and infinity never are."""
        is_best = math.isfinite(loss) and loss < self._best
        self._best = loss if is_best else self._best
        self._without_best = 0 if is_best else self._without_best + 1
        return is_best

    def state(self) -> dict[str, Any]:
        """What `from_state` needs, for a JSON file."""
        best = self._best if math.isfinite(self._best) else None
        return {"patience": self.patience, "best": best, "without_best": self._without_best}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> EarlyStopping:
        """Go on from what `state` gave. Raises KeyError or TypeError if it is not that."""
        stopping = cls(state["patience"])
        stopping._best = math.inf if state["best"] is None else float(state["best"])
        stopping._without_best = int(state["without_best"])
        return stopping
