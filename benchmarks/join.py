"""How long a volunteer waits: from the preflight of `cotrain node join`, and from the command, to the first inner step.

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
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.swarm_figures import Figure
from cotrain.process import child_environment
from cotrain.status import Status
from tests.system import System, running_system, tiny_request
from tests.waiting import wait_until

WANTED_S = 10.0
LIMIT_S = 90.0
_LOADING = "import torch, transformers, hivemind"
_NEVER_DONE_STEPS = 100_000


@dataclass(frozen=True)
class Join:
    """One node's way to its first inner step; seconds since the command was given.

    Attributes:
        registered_s: until the coordinator had let it in, which is the moment before its preflight.
        process_s: until its training process had its job, which comes after sign-in, preflight and assets, and had
            loaded what it needs, for which it was started before them.
        joining_s: until that process had built the model and its peer, and began to join the swarm.
        step_s: until its first inner step began.
    """

    registered_s: float
    process_s: float
    joining_s: float
    step_s: float

    @property
    def from_preflight_s(self) -> float:
        """From the preflight to the first inner step."""
        return self.step_s - self.registered_s


def loading_s() -> float:
    """Seconds that a bare process takes to load what a training process needs."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", _LOADING], env=child_environment(OMP_NUM_THREADS="1"), check=True)
    return time.monotonic() - began


def join(system: System, name: str, session: dict[str, Any]) -> Join:
    """Start a node and follow it to its first inner step."""
    began = time.time()
    node = system.start_node(name, session["url"])

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
    listed = system.get(f"/api/v1/sessions/{session['id']}/participants")["items"]
    (registered,) = (datetime.fromisoformat(one["createdAt"]) for one in listed if one["name"] == name)
    moments = (registered.timestamp(), started.updated_at, joining.updated_at, first_step_at)
    return Join(*(moment - began for moment in moments))


def measure(times: int) -> dict[str, Any]:
    """Joins of both kinds, and the bare process, `times` each."""
    first, late, bare = [], [], []
    for number in range(times):
        with tempfile.TemporaryDirectory(prefix="cotrain-join-") as folder, running_system(Path(folder)) as system:
            system.start_coordinator()
            session = system.open_session(tiny_request(1, max_steps=_NEVER_DONE_STEPS))
            bare.append(loading_s())
            first.append(join(system, f"first-{number}", session))
            late.append(join(system, f"late-{number}", session))
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
                f"seconds from the preflight to the first inner step, {kind} node, nano",
                statistics.median(one.from_preflight_s for one in joins), wanted=WANTED_S,
                details={
                    "from the command": round(step_s, 2),
                    "process": round(statistics.median(one.process_s for one in joins), 2),
                    "joining": round(statistics.median(one.joining_s for one in joins), 2),
                    "all": [round(one.from_preflight_s, 2) for one in joins],
                    "all from the command": [round(one.step_s, 2) for one in joins],
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
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    found = measure(arguments.times)
    for figure in figures(found):
        print(figure.line(), flush=True)
    if arguments.json is not None:
        joins = {kind: [asdict(one) for one in found[kind]] for kind in ("first", "late")}
        arguments.json.write_text(json.dumps({**joins, "bare": found["bare"]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
