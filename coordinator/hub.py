"""Bounded fan-out of a session's events: one slow listener is dropped, the others do not notice."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from coordinator.frames import FrameWriter, text_frame
from cotrain.protocol import Event

CLOSE_NORMAL = 1000
CLOSE_GOING_AWAY = 1001
CLOSE_TRY_AGAIN = 1013


@dataclass(frozen=True)
class Frame:
    """One message to listeners, encoded once for all of them.

    Attributes:
        seq: what a listener may resume from once it has this one.
        payload: the JSON object.
    """

    seq: int
    kind: str
    payload: bytes

    @classmethod
    def of(cls, event: Event) -> Frame:
        """The event as listeners get it."""
        return cls(event.seq, event.type, event.model_dump_json(by_alias=True).encode())

    @cached_property
    def wire(self) -> bytes:
        """As it goes over a WebSocket."""
        return text_frame(self.payload)


class Listener:
    """One reader's queue. `ended` is set once nothing more will come; `close_code` then says why.

    Args:
        limit: frames that may be waiting when others come. One commit may bring more than that at once: how many events
            are stored together says nothing about how quickly somebody reads.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._waiting: deque[Frame] = deque()
        self._more = asyncio.Event()
        self.ended = asyncio.Event()
        self.close_code = CLOSE_NORMAL
        self.sent = 0
        """The newest frame that was handed to the socket: older ones are old news."""
        self.caught_up = False
        """Whether all that was stored before has been sent."""
        self.writer: FrameWriter | None = None
        """Where frames may be written as they are offered. What is taken from the queue must then be written before
        anything is awaited: else what is offered next would overtake it."""

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, frames: Sequence[Frame]) -> None:
        """Write frames, or queue them where that cannot be; one that has too many waiting is ended instead."""
        if len(self._waiting) >= self._limit:
            self.end(CLOSE_TRY_AGAIN)
        elif self.caught_up and not self._waiting and self.writer is not None and self.writer.has_room:
            for frame in frames:
                if frame.seq > self.sent:
                    self.writer.write(frame.wire)
                    self.sent = frame.seq
        else:
            self._waiting.extend(frames)
            self._more.set()

    def end(self, close_code: int) -> None:
        """Nothing more will come; the first reason stays."""
        if not self.ended.is_set():
            self.close_code = close_code
            self.ended.set()

    async def next(self, timeout: float) -> Frame | None:
        """The next frame, or None if there was none for `timeout` seconds."""
        if not self._waiting:
            self._more.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._more.wait()
            except TimeoutError:
                return None
        return self._waiting.popleft()


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

    def publish(self, session: str, events: Sequence[Event]) -> None:
        """Offer what one commit has stored to every attached listener; those that fell behind are let go."""
        listeners = self._listeners.get(session)
        if not listeners:
            return
        frames = [Frame.of(event) for event in events]
        for listener in list(listeners):
            listener.offer(frames)
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
