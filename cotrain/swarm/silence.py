"""When this machine's own peer-to-peer daemon counts as lost: at once if its process has ended, else once it is silent.

A DHT's process ends with its daemon (`daemon.py`), so one look at that process tells of both. A machine that was
stopped for minutes has lost nothing: its processes are there, and the calls that it missed are few.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from hivemind.utils import MPFuture

from cotrain.errors import SwarmError

START_TIMEOUT_S = 90.0
"""For a process of the network until it is ready: the daemon, then the first calls. hivemind would wait for ever."""
SILENCE_S = 30.0
SILENT_CALLS = 4
"""A machine that was stopped misses a call or two, however long it was."""
LOOK_EVERY_S = 0.2

_HINT = "what needs it is started again"


class LocalProcess(Protocol):
    """A process that this one has started."""

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""

    def kill(self) -> None:
        """End it at once."""

    def join(self) -> None:
        """Wait for its end."""


def require_running(dht: LocalProcess) -> None:
    """Raises SwarmError if the DHT's process has ended, or its daemon, which it ends with. Costs one system call."""
    if not dht.is_alive():
        raise SwarmError("the peer-to-peer daemon of this machine has ended", hint=_HINT)


def answer_of(future: MPFuture, timeout_s: float, *givers: LocalProcess) -> Any:
    """What other processes are to give. hivemind would wait for it for ever, though one of them was killed.

    Raises SwarmError as soon as one of the givers has ended or `timeout_s` seconds are over, and whatever they raised.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        # looked at before the wait: what a process has sent last may arrive after its end
        ended, left_s = not all(giver.is_alive() for giver in givers), deadline - time.monotonic()
        try:
            return future.result(max(0.0, min(LOOK_EVERY_S, left_s)))
        except TimeoutError as error:
            if future.done():
                raise
            if ended:
                raise SwarmError("a process of the peer-to-peer network has ended", hint=_HINT) from error
            if left_s <= LOOK_EVERY_S:
                raise SwarmError(
                    f"a process of the peer-to-peer network has said nothing for {timeout_s:.0f} s", hint=_HINT
                ) from error


def await_start(process: LocalProcess, ready: MPFuture, timeout_s: float, *needed: LocalProcess) -> None:
    """Until a process says that it is ready, which it cannot without those it needs; else it is killed.

    Raises like `answer_of`.
    """
    try:
        answer_of(ready, timeout_s, process, *needed)
    except Exception:
        process.kill()  # its daemon dies with it
        process.join()
        raise


class Silence:
    """Calls of the daemon that have failed in a row. Times in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._since, self._missed = 0.0, 0

    def note(self, now: float) -> None:
        """A call has failed."""
        if self._missed == 0:
            self._since = now
        self._missed += 1

    def end(self) -> None:
        """A call was answered."""
        self._missed = 0

    def require_none(self, now: float) -> None:
        """Raises SwarmError after SILENT_CALLS within SILENCE_S or more."""
        if self._missed >= SILENT_CALLS and now - self._since > SILENCE_S:
            raise SwarmError(
                f"the peer-to-peer daemon of this machine has not answered for {now - self._since:.0f} s", hint=_HINT
            )
