"""What is told of a wallet's statement before it ends, and when."""

from __future__ import annotations

import asyncio
import re

import pytest

from cotrain.errors import CotrainError
from node.statement import DAY_S, WARN_BEFORE_S, ending_line, warn_before_end

NOW = 1_800_000_000.0


@pytest.mark.parametrize("ends_at", [None, NOW + WARN_BEFORE_S + 1, NOW + 90 * DAY_S])
def test_nothing_is_told_while_there_is_time_or_nobody_knows(ends_at: float | None) -> None:
    assert ending_line(ends_at, NOW) == ""


@pytest.mark.parametrize(
    ("left_s", "words"),
    [
        (WARN_BEFORE_S, "ends in 7 days"), (1.5 * DAY_S, "ends in 1 day,"), (3600.0, "ends today or tomorrow"),
        (0.0, "has ended on"), (-30 * DAY_S, "has ended on"),
    ],
)  # fmt: skip
def test_it_is_told_when_and_with_which_command_to_mend_it(left_s: float, words: str) -> None:
    line = ending_line(NOW + left_s, NOW)
    assert words in line
    assert re.search(r"\b2027-\d\d-\d\d\b|\b2026-12-\d\d\b", line)
    assert line.endswith("cotrain node sign-again")


async def told_over(days: float, ends_at: float) -> list[str]:
    """What is told while the clock goes through so many days, in hours."""
    looks = iter(range(int(days * 24) + 1))
    told: list[str] = []

    def clock() -> float:
        return NOW + 3600.0 * next(looks)

    with pytest.raises(RuntimeError, match="StopIteration"):
        await warn_before_end(lambda: ends_at, told.append, clock=clock, look_every_s=0.0)
    return told


async def test_it_is_told_at_once_and_then_once_a_day() -> None:
    assert len(await told_over(3.0, NOW + 5 * DAY_S)) == 4
    assert await told_over(3.0, NOW + 90 * DAY_S) == []
    assert len(await told_over(3.0, NOW + WARN_BEFORE_S + 2 * DAY_S)) == 2


async def test_a_file_that_cannot_be_read_is_told_and_ends_nothing() -> None:
    told: list[str] = []

    def damaged() -> float | None:
        raise CotrainError("is damaged", field="a file")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(warn_before_end(damaged, told.append, clock=lambda: NOW), 0.05)
    assert told == ["a file: is damaged"]
