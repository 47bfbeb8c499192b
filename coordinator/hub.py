"""Bounded fan-out of a session's events: one slow listener is dropped, the others do not notice."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator

from cotrain.protocol import Event

CLOSE_NORMAL = 1000
CLOSE_GOING_AWAY = 1001
CLOSE_TRY_AGAIN = 1013


class Listener:
    """One reader's queue. `ended` is set once nothing more will come; `close_code` then says why."""

    def __init__(self, limit: int):
        self._queue: asyncio.Queue[Event] = asyncio.Queue(limit)
        self.ended = asyncio.Event()
        self.close_code = CLOSE_NORMAL

    def offer(self, event: Event) -> None:
        """Queue an event; a full queue ends the listener."""
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.end(CLOSE_TRY_AGAIN)

    def end(self, close_code: int) -> None:
        """Nothing more will come; the first reason stays."""
        if not self.ended.is_set():
            self.close_code = close_code
            self.ended.set()

    async def next(self, timeout: float) -> Event | None:
        """The next event, or None if there was none for `timeout` seconds."""
        try:
            # wait_for would swallow a cancellation that comes together with an event, and whoever stops would not
            async with asyncio.timeout(timeout):
                return await self._queue.get()
        except TimeoutError:
            return None


class Hub:
    """Who listens to which session. Publishing never waits."""

    def __init__(self, queue_limit: int = 256):
        self._queue_limit = queue_limit
        self._listeners: defaultdict[str, set[Listener]] = defaultdict(set)
        self._handed_out: defaultdict[str, set[Listener]] = defaultdict(set)

    @contextlib.contextmanager
    def listener(self, session: str) -> Iterator[Listener]:
        """A listener for as long as the context lasts; it hears nothing before `attach`."""
        listener = Listener(self._queue_limit)
        self._handed_out[session].add(listener)
        try:
            yield listener
        finally:
            _remove(self._handed_out, session, listener)
            _remove(self._listeners, session, listener)

    def attach(self, session: str, listener: Listener) -> None:
        """From now on every published event is offered to the listener."""
        self._listeners[session].add(listener)

    def publish(self, session: str, event: Event) -> None:
        """Offer the event to every attached listener; those that fell behind are let go."""
        for listener in list(self._listeners.get(session, ())):
            listener.offer(event)
            if listener.ended.is_set():
                _remove(self._listeners, session, listener)

    def end_session(self, session: str, close_code: int = CLOSE_NORMAL) -> None:
        """Tell everybody who listens to the session that it is over."""
        for listener in list(self._handed_out.get(session, ())):
            listener.end(close_code)

    def close(self) -> None:
        """Tell every listener that the coordinator is going away."""
        for session in list(self._handed_out):
            self.end_session(session, CLOSE_GOING_AWAY)


def _remove(table: defaultdict[str, set[Listener]], session: str, listener: Listener) -> None:
    listeners = table.get(session)
    if listeners is None:
        return
    listeners.discard(listener)
    if not listeners:
        del table[session]
