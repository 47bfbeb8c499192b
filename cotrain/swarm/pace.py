"""How often a peer reads the others' records and writes its own. Pure.

Each costs messages and computing at several peers, and training peers have a use for that. While nobody can have done
its inner steps yet, what changes are only steps, which all extrapolate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

STORE_S = 1.0
"""Seconds between two writes, at least."""
MOST_RESTING_LOOK_S, MOST_RESTING_STORE_S = 5.0, 10.0
"""The same while nothing is expected of the others, and between two looks at them, however long a record lives."""
AWAKE_S = 1.0
"""How long before a round may be closed the others are looked at as often as can be."""


@dataclass
class Pace:
    """When to read and write. All times are seconds on one clock, which the caller reads.

    Attributes:
        record_ttl_s: how long a record lives.
        rests_until: nothing is expected of the others until then.
        looked_at, stored_at: the last time of each.
    """

    record_ttl_s: float
    rests_until: float = -math.inf
    looked_at: float = -math.inf
    stored_at: float = -math.inf

    def rest(self, now: float, seconds: float) -> None:
        """Nobody proposes to close the round for so long."""
        self.rests_until = now + seconds - AWAKE_S

    def wake(self) -> None:
        """The others are waited for."""
        self.rests_until = -math.inf

    def is_look_due(self, now: float) -> bool:
        """While nothing rests, at any time. A look must not come so late that the view counts as one after a stall."""
        if now >= self.rests_until or self.stored_at == -math.inf:
            return True
        return now - self.looked_at >= min(MOST_RESTING_LOOK_S, self.record_ttl_s / 6)

    def is_store_due(self, now: float) -> bool:
        """Well before the record expires, and not for every step."""
        usual_s = MOST_RESTING_STORE_S if now < self.rests_until else STORE_S
        return now - self.stored_at > min(usual_s, self.record_ttl_s / 3)
