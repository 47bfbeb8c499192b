"""Waiting for what another process or thread brings about: looked at again and again, with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_EVERY_S = 0.02


def wait_for(condition: Callable[[], T | None], *, limit_s: float) -> T | None:
    """The first value of `condition` that is true; the last one, which is not, when the time is over."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)  # between two looks, not in place of one
    return value


def wait_until(condition: Callable[[], T | None], *, limit_s: float = 60.0, what: str = "it comes true") -> T:
    """The first value of `condition` that is true; AssertionError with `what` when the time is over."""
    value = wait_for(condition, limit_s=limit_s)
    assert value, f"not within {limit_s:.0f} s: {what}"
    return value
