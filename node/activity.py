"""Looks whether somebody uses this machine: at what logind knows, else at terminals, else at others' computing."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

from node.use import Seen

_LOGINCTL = ("loginctl", "show-session", "--property=IdleHint", "--property=IdleSinceHint")
"""Without a session: of all sessions together (loginctl(1), org.freedesktop.login1(5))."""
_ANSWER_TIMEOUT_S = 5.0
_DEVICES = Path("/dev")


class Activity:
    """One look after another. Each takes the best source that there is at that moment."""

    def __init__(self) -> None:
        self._times = measure()

    async def look(self) -> Seen:
        before, self._times = self._times, measure()
        text = await _ask_logind()
        if text is not None and (input_s := logind_input_s(text, time.time())) is not None:
            return Seen("what the desktop tells logind", input_s=input_s)
        if (input_s := terminal_input_s([user.terminal for user in psutil.users()], time.time())) is not None:
            return Seen("input at terminals", input_s=input_s)
        return Seen("the computing of other processes", load=load_of_others(before, self._times))


def logind_input_s(text: str, now: float) -> float | None:
    """Seconds since the last input by what loginctl has printed; 0 while some session is in use, None if unknown."""
    facts = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if facts.get("IdleHint") == "no":
        return 0.0
    since = facts.get("IdleSinceHint", "")
    if facts.get("IdleHint") != "yes" or not since.isdecimal() or int(since) == 0:
        return None  # nobody is signed in, or nobody tells
    return max(0.0, now - int(since) / 1e6)


def terminal_input_s(terminals: Iterable[str | None], now: float, *, devices: Path = _DEVICES) -> float | None:
    """Seconds since somebody typed at one of these terminals, which reading it tells; None without any."""
    read_at = []
    for name in terminals:
        if name:
            with contextlib.suppress(OSError):  # `:0` and their like are no devices, and terminals close
                read_at.append((devices / name).stat().st_atime)
    return max(0.0, now - max(read_at)) if read_at else None


class ProcessorTimes(NamedTuple):
    """Seconds of all processors together since they were started."""

    all_s: float
    busy_s: float
    own_s: float
    """Those of this process and all that it started."""


def measure() -> ProcessorTimes:
    """The times as they are now."""
    times = psutil.cpu_times()
    all_s = math.fsum(times) - times.guest - times.guest_nice  # both are in user and nice, too
    own_s = 0.0
    for process in [psutil.Process(os.getpid()), *psutil.Process(os.getpid()).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            spent = process.cpu_times()
            own_s += spent.user + spent.system + spent.children_user + spent.children_system
    return ProcessorTimes(all_s, all_s - times.idle - times.iowait, own_s)


def load_of_others(before: ProcessorTimes, after: ProcessorTimes) -> float:
    """Share of all processors' time between two moments that processes other than the node's took, 0 to 1."""
    all_s, busy_s, own_s = (new - old for new, old in zip(after, before, strict=True))
    if all_s <= 0 or own_s < 0:  # processes of the node were killed, and took the account of their time along
        return 0.0
    return min(1.0, max(0.0, (busy_s - own_s) / all_s))


async def _ask_logind() -> str | None:
    """What loginctl prints, None where there is no logind."""
    try:
        process = await asyncio.create_subprocess_exec(
            *_LOGINCTL, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    except OSError:
        return None
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _ANSWER_TIMEOUT_S)
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return output.decode(errors="replace") if process.returncode == 0 else None
