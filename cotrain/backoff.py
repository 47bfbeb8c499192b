"""How long to wait before the next try: exponential, bounded, with jitter."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Delays in seconds that double from `first_s` up to `most_s`, each varied by +-`jitter` of itself.

    Jitter keeps volunteers that lost the same coordinator from all coming back in the same instant.
    """

    first_s: float = 0.5
    most_s: float = 30.0
    jitter: float = 0.25

    def bounds_s(self, attempt: int) -> tuple[float, float]:
        """The shortest and the longest delay after failed try number `attempt`, counted from 0."""
        # The exponent is bounded because 2.0**1024 overflows, and tries go on for ever.
        middle = min(self.most_s, self.first_s * 2.0 ** min(attempt, 64))
        return middle * (1 - self.jitter), middle * (1 + self.jitter)

    def delay_s(self, attempt: int) -> float:
        """A random delay within `bounds_s`."""
        return random.uniform(*self.bounds_s(attempt))
