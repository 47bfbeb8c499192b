"""An asyncio loop in a thread of its own, for libp2p calls beside a training loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

LOOK_EVERY_S = 0.5


class LoopThread:
    """Runs coroutines for synchronous callers. Start it only after the last fork of the process."""

    def __init__(self, name: str):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(
        self, coroutine: Coroutine[Any, Any, T], timeout_s: float, *, meanwhile: Callable[[], None] = lambda: None
    ) -> T:
        """Run a coroutine and wait for its result.

        Raises TimeoutError after `timeout_s` seconds, and what `meanwhile` raises, which is called twice a second; the
        coroutine is cancelled then.
        """
        future, deadline = asyncio.run_coroutine_threadsafe(coroutine, self._loop), time.monotonic() + timeout_s
        try:
            while not future.done() and (left_s := deadline - time.monotonic()) > 0:
                concurrent.futures.wait([future], min(LOOK_EVERY_S, left_s))
                meanwhile()
            return future.result(0.0)
        finally:
            future.cancel()  # nothing to one that is done

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that handles its own errors, without waiting for it."""
        asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def stop(self) -> None:
        """Cancel what still runs and end the thread."""
        if self._thread.is_alive():
            self.run(self._cancel_all(), 5.0)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5.0)

    @staticmethod
    async def _cancel_all() -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
