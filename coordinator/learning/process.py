"""A cycle's process: `python -m coordinator.learning.process`. The coordinator starts it, and it ends with it.

The task comes on stdin, the outcome is the last line of stdout; it logs to `logs/system/learning.log`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

from coordinator.learning.carry_out import carry_out
from coordinator.learning.learner import TooFewChats
from coordinator.learning.place import Place
from coordinator.learning.task import CycleDone, CycleTask
from cotrain.errors import CotrainError
from cotrain.logs import configure_logging
from cotrain.paths import SharedPaths
from cotrain.process import bind_to_parent

_logger = logging.getLogger("coordinator.learning")

_NICENESS = 10
"""The coordinator and volunteers on the same machine come first."""


def main() -> int:
    """Read a task from stdin, write its outcome to stdout; returns the exit code."""
    bind_to_parent()
    os.nice(_NICENESS)
    configure_logging()
    task = CycleTask.model_validate_json(sys.stdin.read())
    print(asyncio.run(_carry_out(task)).model_dump_json(by_alias=True), flush=True)
    return 0


async def _carry_out(task: CycleTask) -> CycleDone:
    place = Place(SharedPaths(Path(task.shared)), task.database_url, task.config, task.url)
    try:
        done = await carry_out(place, task.trigger, _logger.info)
    except CotrainError as error:
        _logger.error("the cycle cannot go on: %s", error)
        return CycleDone(message=str(error), failed=True)
    if isinstance(done, TooFewChats):
        return CycleDone(message=f"{done.chats} chats; a cycle needs {done.wanted}")
    return CycleDone(cycle=done.id, message=f"{done.outcome}: {done.message}")


if __name__ == "__main__":
    sys.exit(main())
