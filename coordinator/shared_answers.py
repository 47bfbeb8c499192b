"""Answers to what many read at once: worked out once, and kept until something is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any

from coordinator.store import Store

_MOST_ANSWERS = 64
_LONGEST_S = 0.25
"""What another program has written is seen after so long at most; what this one has written, at once."""


@dataclass(frozen=True)
class _Answer:
    """One that is being worked out, or that is there.

    Attributes:
        commits: of this program when it was begun; with another number it no longer holds.
        until: by the clock.
    """

    commits: int
    until: float
    body: asyncio.Task[bytes]


class SharedAnswers:
    """The newest answers, by what was asked. Only for what everybody is answered alike."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic):
        self._store = store
        self._clock = clock
        self._answers: dict[Hashable, _Answer] = {}

    async def get(self, asked: Hashable, work: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        """The kept answer, or that of `work`, which is done once for all who ask meanwhile; raises what it raises."""
        answer = self._answers.get(asked)
        if answer is None or answer.commits != self._store.commits or answer.until < self._clock():
            answer = self._begin(asked, work)
        if answer.body.done():
            return answer.body.result()
        return await asyncio.shield(answer.body)  # one who no longer waits takes it from nobody else

    def _begin(self, asked: Hashable, work: Callable[[], Coroutine[Any, Any, bytes]]) -> _Answer:
        self._answers.pop(asked, None)
        while len(self._answers) >= _MOST_ANSWERS:
            del self._answers[next(iter(self._answers))]
        body = asyncio.create_task(work())
        answer = self._answers[asked] = _Answer(self._store.commits, self._clock() + _LONGEST_S, body)
        body.add_done_callback(lambda done: self._forget_failed(asked, answer, done))
        return answer

    def _forget_failed(self, asked: Hashable, answer: _Answer, done: asyncio.Task[bytes]) -> None:
        """An error is told to those who waited, and to nobody later."""
        failed = done.cancelled() or done.exception() is not None
        if failed and self._answers.get(asked) is answer:
            del self._answers[asked]
