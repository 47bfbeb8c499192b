"""`cotrain node join`, but the training process signs for averages that it did not make.

Run as a program it is the node; with `--job` it is the node's training process.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cotrain.cli import main
from cotrain.train.launch import leave
from node import join, worker
from tests.lies import lie_in_each_average


def own_command(job: Path) -> list[str]:
    return [sys.executable, __file__, "--job", str(job)]


if __name__ == "__main__":
    if "--job" in sys.argv:
        lie_in_each_average()
        leave(worker.main())
    assert join.join.__kwdefaults__ is not None
    join.join.__kwdefaults__["command"] = own_command
    main()
