"""What is large goes out at a bounded rate, whoever sends it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import accumulate

from google.protobuf.wrappers_pb2 import BytesValue
from hypothesis import given
from hypothesis import strategies as st

from cotrain.swarm.send_rate import SendRate

RATE = 1000
sends = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 5000)), min_size=1, max_size=30)


def begins(gaps_and_sizes: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """When each of these is let through, and its size, with a clock of our own; the first number is since the last."""
    now = 0.0
    rate, found = SendRate(RATE, clock=lambda: now), []
    for gap_s, size in gaps_and_sizes:
        now += gap_s
        found.append((now + rate.reserve(size), size))
    return found


@given(sends)
def test_over_any_time_no_more_is_let_through_than_the_rate_and_one_message(wanted: list[tuple[float, int]]) -> None:
    found = begins(wanted)
    sent_before = [0, *accumulate(size for _, size in found)]
    largest = max(size for _, size in found)
    for first, (begin, _) in enumerate(found):
        for last in range(first, len(found)):
            sent = sent_before[last + 1] - sent_before[first]
            assert sent <= RATE * (found[last][0] - begin) + largest + 1e-6


@given(sends)
def test_the_line_does_not_lie_idle_while_somebody_waits(wanted: list[tuple[float, int]]) -> None:
    arrivals = list(accumulate(gap_s for gap_s, _ in wanted))
    found = begins(wanted)
    for number in range(1, len(found)):
        ended = found[number - 1][0] + found[number - 1][1] / RATE
        assert abs(found[number][0] - max(arrivals[number], ended)) < 1e-6


def test_without_a_limit_nothing_waits() -> None:
    rate = SendRate(None)
    assert [rate.reserve(10**12) for _ in range(3)] == [0.0] * 3


async def test_streams_share_the_rate_and_their_sources_are_closed() -> None:
    rate, closed = SendRate(100_000), []

    async def source(name: str) -> AsyncIterator[BytesValue]:
        try:
            for _ in range(3):
                yield BytesValue(value=bytes(10_000))
        finally:
            closed.append(name)

    async def drain(name: str) -> int:
        return len([message async for message in rate.paced(source(name))])

    started = time.monotonic()
    assert await asyncio.gather(drain("one"), drain("two")) == [3, 3]
    assert time.monotonic() - started >= 0.5  # six messages of 0.1 s, the first at once
    endless = rate.paced(source("three"))
    await anext(endless)
    await endless.aclose()
    assert sorted(closed) == ["one", "three", "two"]
