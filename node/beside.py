"""Work with other work beside it, in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def run_beside(main: Coroutine[Any, Any, None], background: list[Coroutine[Any, Any, None]]) -> None:
    """Run `main` to its end with `background` beside it; the first exception of any ends all."""
    leading = asyncio.ensure_future(main)
    tasks = [leading, *(asyncio.ensure_future(coroutine) for coroutine in background)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
