"""Lets a node rest outside of its schedule, and while its machine is in use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

from cotrain.status import Control
from node.schedule import Schedule
from node.use import Seen, Use, use_reason

_MINUTE_S = 60.0
_LOOK_S = 10.0


async def follow_schedule(
    schedule: Schedule, tell: Callable[[Control], None], *, clock: Callable[[], datetime] = datetime.now
) -> None:
    """For ever: say at the start, and at each full minute, whether the schedule lets the node train.

    No longer wait: windows begin and end at full minutes, and a clock that is set or a machine that wakes up is noticed
    within one.

    Args:
        tell: called with the wish to pause, with its reason, or to run; also where nothing has changed.
        clock: the local time.
    """
    while True:
        local = clock()
        reason = schedule.reason(local)
        tell(_wish(reason))
        await asyncio.sleep(_MINUTE_S - local.second - local.microsecond / 1e6)


async def follow_use(
    rest_s: float, look: Callable[[], Awaitable[Seen]], tell: Callable[[Control], None],
    notice: Callable[[str], None], *, interval_s: float = _LOOK_S, clock: Callable[[], float] = time.monotonic,
) -> None:  # fmt: skip
    """For ever: say at the start, and after each look, whether the use of the machine lets the node train.

    Args:
        rest_s: for so long, seconds, nobody must have used it.
        tell: called with the wish to pause, with its reason, or to run; also where nothing has changed.
        notice: told by what the use is noticed, whenever that changes.
    """
    use, source = Use(clock()), ""
    tell(_wish(use_reason(use, rest_s)))
    while True:
        seen = await look()
        if seen.source != source:
            source = seen.source
            notice(f"--when-idle: use of this machine is noticed by {source}")
        use = use.after(seen, clock(), rest_s=rest_s)
        tell(_wish(use_reason(use, rest_s)))
        await asyncio.sleep(interval_s)


def _wish(reason: str) -> Control:
    return Control(wish="pause", reason=reason) if reason else Control()
