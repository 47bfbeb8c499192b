"""How long a volunteer waits: from the command `cotrain node join` to the first inner step, on this machine.

    python -m benchmarks.join [--times 3] [--json FILE]

A coordinator with its checkpointer serves a nano session, as `tests/system.py` starts them. Into it go, one after the
other, nodes with a home folder of their own, so each makes its peer key and wallet first: `first` ones into a session
where nobody trains yet, `late` ones beside a node that does, whose outer state they fetch. Beside them a bare process
that only loads what a training process needs, torch, transformers and hivemind, in the same minute: no node can begin
before that. Takes about a minute a time on two free cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.swarm_figures import Figure
from cotrain.process import child_environment
from cotrain.status import Status
from tests.system import Process, System, running_system, tiny_request
from tests.waiting import wait_until

WANTED_S = 10.0
LIMIT_S = 90.0
_LOADING = "import torch, transformers, hivemind"
_NEVER_DONE_STEPS = 100_000


@dataclass(frozen=True)
class Join:
    """One node's way to its first inner step; seconds since the command was given.

    Attributes:
        process_s: until its training process ran, which comes after sign-in, preflight and assets.
        joining_s: until that process had loaded everything and began to join the swarm.
        step_s: until its first inner step began.
    """

    process_s: float
    joining_s: float
    step_s: float


def loading_s() -> float:
    """Seconds that a bare process takes to load what a training process needs."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", _LOADING], env=child_environment(OMP_NUM_THREADS="1"), check=True)
    return time.monotonic() - began


def join(system: System, name: str, url: str) -> tuple[Join, Process]:
    """Start a node and follow it to its first inner step."""
    began = time.time()
    node = system.start_node(name, url)

    def reached(is_there: Callable[[Status], bool]) -> Status:
        def look() -> Status | None:
            assert node.popen.poll() is None, node.output()
            status = node.status()
            return status if status is not None and is_there(status) else None

        return wait_until(look, limit_s=LIMIT_S, what=f"{name} takes its first step: {node.log}")

    started = reached(lambda status: status.run != "")
    joining = reached(lambda status: status.phase != "starting")
    stepped = reached(lambda status: status.step > 0)
    first_step_at = stepped.updated_at - stepped.wall_seconds
    return Join(started.updated_at - began, joining.updated_at - began, first_step_at - began), node


def measure(times: int) -> dict[str, Any]:
    """Joins of both kinds, and the bare process, `times` each."""
    first, late, bare = [], [], []
    for number in range(times):
        with tempfile.TemporaryDirectory(prefix="cotrain-join-") as folder, running_system(Path(folder)) as system:
            system.start_coordinator()
            session = system.open_session(tiny_request(1, max_steps=_NEVER_DONE_STEPS))
            bare.append(loading_s())
            found, _ = join(system, f"first-{number}", session["url"])
            first.append(found)
            found, _ = join(system, f"late-{number}", session["url"])
            late.append(found)
    return {"first": first, "late": late, "bare": bare}


def figures(found: dict[str, Any]) -> list[Figure]:
    """The medians beside what is wanted."""
    bare = statistics.median(found["bare"])
    shown = []
    for kind in ("first", "late"):
        joins: list[Join] = found[kind]
        step_s = statistics.median(one.step_s for one in joins)
        shown.append(
            Figure(
                f"seconds from the command to the first inner step, {kind} node, nano", step_s, wanted=WANTED_S,
                details={
                    "process": round(statistics.median(one.process_s for one in joins), 2),
                    "joining": round(statistics.median(one.joining_s for one in joins), 2),
                    "all": [round(one.step_s, 2) for one in joins],
                    "over loading alone": round(step_s / bare, 2),
                    "loading alone": round(bare, 2),
                },
            )
        )  # fmt: skip
    return shown


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write every join to this file, too")
    arguments = parser.parse_args()
    found = measure(arguments.times)
    for figure in figures(found):
        print(figure.line(), flush=True)
    if arguments.json is not None:
        joins = {kind: [asdict(one) for one in found[kind]] for kind in ("first", "late")}
        arguments.json.write_text(json.dumps({**joins, "bare": found["bare"]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
