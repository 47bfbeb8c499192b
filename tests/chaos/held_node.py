"""`cotrain node join`, but its training process stands still at a named point, once, until a test lets it go on.

`held_node.py POINT FOLDER ...` is the node, and with `--job` its training process, as `cotrain` and `node.worker` are.
A file `armed` in the folder becomes `reached` when the point is reached, and the process stands still while that is
there; the process that takes its place finds nothing armed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cotrain.cli import main
from cotrain.process import bind_to_parent
from cotrain.train.launch import leave
from node import join, worker

ARMED, REACHED = "armed", "reached"
HELD_AT_MOST_S = 60.0
"""A test that has died lets nobody go on."""
LOOK_EVERY_S = 0.01


class Hold:
    """What is put at a point in the place of a `Fault`: it stands still there."""

    def __init__(self, folder: Path):
        self._armed, self._reached = folder / ARMED, folder / REACHED

    def strike(self) -> None:
        """Once it is armed, by whichever process comes here first; until the test takes the file away."""
        try:
            self._armed.rename(self._reached)
        except FileNotFoundError:
            return
        deadline = time.monotonic() + HELD_AT_MOST_S
        while self._reached.exists() and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)


def _before(owner: type, name: str, hold: Hold, is_meant: Callable[[Any], bool] = lambda self: True) -> None:
    method = getattr(owner, name)

    def held(self: Any, *arguments: Any, **options: Any) -> Any:
        if is_meant(self):
            hold.strike()
        return method(self, *arguments, **options)

    setattr(owner, name, held)


def joining(hold: Hold) -> None:
    """The daemon is there, and the swarm has not been looked at yet."""
    from cotrain.swarm.peer import SwarmPeer

    _before(SwarmPeer, "join", hold)


def downloading(hold: Hold) -> None:
    """A donor has sent the first chunk of the outer state, which has not been taken yet."""
    from cotrain.swarm.state import StateDownload

    _before(StateDownload, "_take", hold)


def inner_steps(hold: Hold) -> None:
    """Between two inner steps."""
    from cotrain.train.inner import InnerLoop

    _before(InnerLoop, "step", hold)


def all_reduce(hold: Hold) -> None:
    """A group of several has formed, nothing has been sent; in the averaging process."""
    from cotrain.swarm.all_reduce import Exchange

    _before(Exchange, "run", hold, lambda exchange: len(exchange.members) > 1)


def checkpoint(hold: Hold) -> None:
    """The outer step is taken, and the state after it neither served nor announced: a node keeps it nowhere else."""
    from cotrain.swarm.peer import SwarmPeer

    _before(SwarmPeer, "publish", hold)


POINTS: dict[str, Callable[[Hold], None]] = {
    point.__name__: point for point in (joining, downloading, inner_steps, all_reduce, checkpoint)
}


def own_command(point: str, folder: str) -> Callable[[Path], list[str]]:
    return lambda job: [sys.executable, __file__, point, folder, "--job", str(job)]


if __name__ == "__main__":
    _, point, folder, *rest = sys.argv
    sys.argv[1:] = rest
    if "--job" in rest:
        bind_to_parent()  # before what takes seconds to load
        POINTS[point](Hold(Path(folder)))
        leave(worker.main())
    assert join.join.__kwdefaults__ is not None
    join.join.__kwdefaults__["command"] = own_command(point, folder)
    main()
