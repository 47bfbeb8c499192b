"""How much of a machine its volunteer gives: the agent decides it, the training process keeps to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

from pydantic import Field

from cotrain.request import CamelModel
from node.gpu_memory import GpuMemory
from node.options import JoinOptions

_AUTOGROUP = Path("/proc/self/autogroup")

_log = logging.getLogger(__name__)


class Limits(CamelModel):
    """What the training process and all that it starts may use of the machine and its line."""

    nice: Annotated[int, Field(ge=0, le=19)] = 0
    """At least this niceness: 19 leaves the processor to whoever else wants it."""
    processors: list[Annotated[int, Field(ge=0)]] | None = None
    """Numbers of the processors to run on; None: all that the agent may use."""
    upload_bytes_per_s: Annotated[int, Field(ge=1)] | None = None
    """What its peer sends of parts, averages and states; None: what the line carries."""
    gpu_memory: GpuMemory | None = None
    """What each training process allocates on its GPU; None: all that there is."""


def limits_of(options: JoinOptions, available: Collection[int]) -> Limits:
    """What the options come to on these processors."""
    return Limits(
        nice=options.nice, upload_bytes_per_s=options.max_upload, gpu_memory=options.max_gpu_memory,
        processors=None if options.max_cpu is None else processors_for(options.max_cpu, available),
    )  # fmt: skip


def processors_for(percent: int, available: Collection[int]) -> list[int]:
    """The processors that make up at most this share of those available, and one at least.

    The highest numbers: the kernel's own work tends to be on the lowest.
    """
    count = max(1, len(available) * percent // 100)
    return sorted(available)[-count:]


def processors_line(percent: int, processors: Collection[int], available: Collection[int]) -> str:
    """What a limit of so many percent comes to, for people."""
    return (
        f"--max-cpu {percent}: trains on {len(processors)} of {len(available)} processors "
        f"({100 * len(processors) // len(available)} %), whole ones only"
    )


def apply_limits(limits: Limits) -> None:
    """Keep this process to the limits. Call it before threads and children are there: they inherit them."""
    if limits.nice:
        os.setpriority(os.PRIO_PROCESS, 0, max(limits.nice, os.getpriority(os.PRIO_PROCESS, 0)))
        _be_nice_to_other_sessions(limits.nice)
    if limits.processors is not None:
        allowed = os.sched_getaffinity(0) & set(limits.processors)
        if allowed:
            os.sched_setaffinity(0, allowed)
        else:
            _log.warning("the processors %s are not there any more: all are used", limits.processors)


def _be_nice_to_other_sessions(nice: int) -> None:
    """Where the kernel groups processes by session (sched_autogroup), niceness counts within a session only.

    The training process leads a session of its own, so the whole of it is made nice to the volunteer's.
    """
    if os.getsid(0) != os.getpid():
        return
    try:
        _AUTOGROUP.write_text(str(nice))
    except FileNotFoundError:
        return  # this kernel does not group by session
    except OSError as error:
        _log.warning("niceness counts within the node's own processes only: %s", error)
