"""When the wallet's statement ends that lets a node take part, and what is told of it in good time.

A node that has a wallet of its own signs the next one by itself; for a wallet in a browser somebody must.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import datetime

from cotrain.errors import CotrainError
from cotrain.status import now

DAY_S = 24 * 3600.0
WARN_BEFORE_S = 7 * DAY_S
LOOK_EVERY_S = 3600.0
_MEND = "have the wallet sign again, while the node trains on, with: cotrain node sign-again"


def ending_line(ends_at: float | None, clock: float) -> str:
    """What to tell of a statement that ends at `ends_at`; empty while there is time, or where nobody knows (None).

    Unix seconds both.
    """
    if ends_at is None or ends_at - clock > WARN_BEFORE_S:
        return ""
    day = f"{datetime.fromtimestamp(ends_at):%Y-%m-%d}"
    if ends_at <= clock:
        return f"the wallet's statement for this node has ended on {day}: {_MEND}"
    days = int((ends_at - clock) // DAY_S)
    left = "today or tomorrow" if days == 0 else f"in {days} day{'s' if days > 1 else ''}"
    return f"the wallet's statement for this node ends {left}, on {day}: {_MEND}"


async def warn_before_end(
    ends_at: Callable[[], float | None], notice: Callable[[str], None], *, clock: Callable[[], float] = now,
    look_every_s: float = LOOK_EVERY_S,
) -> None:  # fmt: skip
    """Until cancelled: look now and every hour, and tell once a day as long as there is something to tell.

    Args:
        ends_at: when the present statement ends; what it raises is told, too.
    """
    told_at = -math.inf
    while True:
        moment = clock()
        try:
            line = ending_line(ends_at(), moment)
        except CotrainError as error:
            line = str(error)
        if line and moment - told_at >= DAY_S:
            notice(line)
            told_at = moment
        await asyncio.sleep(look_every_s)
