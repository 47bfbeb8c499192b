"""The one place that ties processes together: a child never outlives its parent, even after `kill -9`.

`PR_SET_PDEATHSIG` (prctl(2)) makes the kernel kill a child when the thread that forked it ends. It survives exec, so a
fork hook also covers programs that a library starts (hivemind's p2pd, forked through uvloop, which runs at-fork
hooks). Linux only, like hivemind's wheel.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

from cotrain import PARENT_VARIABLE

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the kernel keeps it, not a temporary file
SHARED_MEMORY_HINT = "in a container: docker run --ipc=host, or --shm-size; else: mount -o remount,size=... /dev/shm"
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _die_when_parent_dies(parent: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent died between fork and prctl
        os._exit(1)


def child_environment(**extra: str) -> dict[str, str]:
    """The environment for a child that will call `bind_to_parent`."""
    return {**os.environ, **extra, PARENT_VARIABLE: str(os.getpid())}


def bind_to_parent() -> None:
    """Die with the process that started this one, if it asked for that with `child_environment`."""
    parent = os.environ.pop(PARENT_VARIABLE, None)
    if parent is not None:
        _die_when_parent_dies(int(parent))


def bind_future_children() -> None:
    """Make every later fork of this process, and what it executes, die with it.

    Call it once, in the main thread, before the first hivemind object: the signal follows the forking thread.
    """
    state = {"pid": os.getpid()}

    def after_fork() -> None:
        parent, state["pid"] = state["pid"], os.getpid()
        _die_when_parent_dies(parent)

    os.register_at_fork(after_in_child=after_fork)


def python_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of cotrain in a new interpreter."""
    return [sys.executable, "-m", module, *arguments]


def remove_shared_memory(pids: Iterable[int]) -> None:
    """Remove the memory that these processes, which have ended, have shared through torch.

    torch's own `torch_shm_manager` would, some seconds later; but it is a descendant, and has ended with them.
    """
    for pid in pids:
        for path in SHARED_MEMORY.glob(f"torch_{pid}_*"):
            path.unlink(missing_ok=True)


async def end_process(process: asyncio.subprocess.Process, *, grace_s: float) -> int:
    """SIGTERM, then SIGKILL after `grace_s` seconds, to the process and all it started; returns its exit code."""
    descendants: list[psutil.Process] = []
    if process.returncode is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            descendants = psutil.Process(process.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), grace_s)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    for descendant in descendants:  # psutil checks that the pid still is the same process
        with contextlib.suppress(psutil.NoSuchProcess):
            descendant.kill()
    await process.wait()  # only now: asyncio waits for the pipes, too, which a descendant may have held open
    remove_shared_memory([process.pid, *(descendant.pid for descendant in descendants)])
    assert process.returncode is not None
    return process.returncode
