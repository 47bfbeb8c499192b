"""Whether a machine is in use by its people, from what can be seen of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cotrain.display import format_seconds

BUSY_LOAD = 0.25
"""Share of all processors' time that others take, from which on a machine is in use."""
QUIET_LOAD = 0.15
"""One that is in use stays so until they take less than this."""


@dataclass(frozen=True)
class Seen:
    """One look at the machine: how long ago its people typed or clicked, or else how much others compute."""

    source: str
    """What was looked at, for people."""
    input_s: float | None = None
    """Seconds since the last input, infinite if there was none."""
    load: float | None = None
    """Share of all processors' time that processes other than the node's have taken since the last look."""


@dataclass(frozen=True)
class Use:
    """What is known of a machine's use. It begins as one that has just been used."""

    used_at: float
    """When it was last used, seconds of the caller's clock."""
    is_used: bool = True

    def after(self, seen: Seen, now: float, *, rest_s: float) -> Use:
        """With one look more. A machine that was used is in use until `rest_s` seconds have passed without."""
        if seen.input_s is not None:
            moved = replace(self, used_at=now - seen.input_s)
        elif seen.load is not None and seen.load > (QUIET_LOAD if self.is_used else BUSY_LOAD):
            moved = replace(self, used_at=now)
        else:
            moved = self
        return replace(moved, is_used=now - moved.used_at < rest_s)


def use_reason(use: Use, rest_s: float) -> str:
    """Why a node rests, empty if nobody uses the machine. It does not change while the machine stays in use."""
    return f"this machine is in use, or was within {format_seconds(rest_s)}" if use.is_used else ""
