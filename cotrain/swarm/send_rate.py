"""How fast a peer sends what is large: parts, averages, states, inputs of audits. One account for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Protocol, TypeVar


class _Message(Protocol):
    def ByteSize(self) -> int: ...


M = TypeVar("M", bound=_Message)


class SendRate:
    """A token bucket that holds one message: whoever wants to send reserves the line's next free moment.

    For one event loop. Over any time, what is let through is at most the rate and one message more.
    """

    def __init__(self, bytes_per_s: int | None, *, clock: Callable[[], float] = time.monotonic):
        """`bytes_per_s`: None for as fast as the line goes. `clock`: seconds that never go back."""
        self._bytes_per_s, self._clock = bytes_per_s, clock
        self._free_at = clock()

    def reserve(self, size_bytes: int) -> float:
        """Seconds until these bytes may be sent; they count from now on."""
        if self._bytes_per_s is None:
            return 0.0
        now = self._clock()
        begin = max(now, self._free_at)
        self._free_at = begin + size_bytes / self._bytes_per_s
        return begin - now

    async def take(self, size_bytes: int) -> None:
        """Wait until these bytes may be sent."""
        if (wait_s := self.reserve(size_bytes)) > 0:
            await asyncio.sleep(wait_s)

    async def paced(self, messages: AsyncIterator[M]) -> AsyncGenerator[M, None]:
        """The messages of a stream, each when it may be sent; their source is closed with this."""
        try:
            async for message in messages:
                await self.take(message.ByteSize())
                yield message
        finally:
            if isinstance(messages, AsyncGenerator):
                await messages.aclose()
