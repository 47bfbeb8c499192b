"""A loop in a thread beside the caller: results, limits, and callers that give up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from cotrain.errors import SwarmError
from cotrain.swarm.loop import LoopThread

LIMIT_S = 20.0


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread("test")
    yield thread
    thread.stop()


class Endless:
    """A coroutine that waits for ever, and tells when it has been cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    async def wait(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def test_a_result_is_handed_over(loop: LoopThread) -> None:
    assert loop.run(asyncio.sleep(0.0, "done"), LIMIT_S) == "done"


def test_a_coroutine_that_takes_too_long_is_cancelled(loop: LoopThread) -> None:
    endless = Endless()
    with pytest.raises(TimeoutError):
        loop.run(endless.wait(), 0.1)
    assert endless.cancelled.wait(LIMIT_S)


def test_what_is_found_out_meanwhile_ends_the_wait(loop: LoopThread) -> None:
    endless = Endless()

    def look() -> None:
        raise SwarmError("the daemon has ended")

    with pytest.raises(SwarmError, match="the daemon has ended"):
        loop.run(endless.wait(), LIMIT_S, meanwhile=look)
    assert endless.cancelled.wait(LIMIT_S)
