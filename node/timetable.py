"""Lets a node rest outside of its schedule."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from cotrain.status import Control
from node.schedule import Schedule

_MINUTE_S = 60.0


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
        tell(Control(wish="pause", reason=reason) if reason else Control())
        await asyncio.sleep(_MINUTE_S - local.second - local.microsecond / 1e6)
