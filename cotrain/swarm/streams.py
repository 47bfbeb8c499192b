"""How a stream over p2pd ends without losing what was sent last."""

from __future__ import annotations

import asyncio

HANG_UP_S = 10.0


async def await_hang_up() -> None:
    """Last statement of a handler that streams answers: wait, bounded, until the caller has hung up.

    p2pd resets a stream as soon as one end is closed, and an answer that is still under way is lost. The caller closes
    the stream once it has what it wants, which cancels the handler.
    """
    await asyncio.sleep(HANG_UP_S)
