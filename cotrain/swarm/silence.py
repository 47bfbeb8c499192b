"""How long this machine's own peer-to-peer daemon has not answered. It does without a line, too: silent, it is lost."""

from __future__ import annotations

from cotrain.errors import SwarmError

SILENCE_S = 30.0
SILENT_CALLS = 4
"""A machine that was stopped misses a call or two, however long it was."""


class Silence:
    """Calls of the daemon that have failed in a row. Times in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._since, self._missed = 0.0, 0

    def note(self, now: float) -> None:
        """A call has failed."""
        if self._missed == 0:
            self._since = now
        self._missed += 1

    def end(self) -> None:
        """A call was answered."""
        self._missed = 0

    def require_none(self, now: float) -> None:
        """Raises SwarmError after SILENT_CALLS within SILENCE_S or more."""
        if self._missed >= SILENT_CALLS and now - self._since > SILENCE_S:
            raise SwarmError(
                f"the peer-to-peer daemon of this machine has not answered for {now - self._since:.0f} s",
                hint="what needs it is started again",
            )
