"""The swarm beside stock hivemind: bytes, seconds, computing, and whether all hold the same bits.

    python -m benchmarks.swarm NAME [--quick] [--seed 0] [--json FILE]

NAME is one of those below, or `all`. Prints a line for each figure, with what is wanted of it. `--quick` tries each
measure on a small case: it shows that the measure works, its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.swarm_figures import Figure


def bytes_per_round(seed: int, quick: bool) -> list[Figure]:
    from benchmarks import swarm_network

    return swarm_network.bytes_per_round(seed, **({"numel": 300_000, "rounds": 1} if quick else {}))


def loopback(seed: int, quick: bool) -> list[Figure]:
    from benchmarks import swarm_network

    return swarm_network.on_loopback(seed, **({"numel": 2_000_000, "rounds": 2} if quick else {}))


def slow_lines(seed: int, quick: bool) -> list[Figure]:
    from benchmarks import swarm_network

    return swarm_network.on_slow_lines(seed, **({"numel": 2_000_000, "rounds": 2} if quick else {}))


def crowds(seed: int, quick: bool) -> list[Figure]:
    from benchmarks import swarm_crowds

    return swarm_crowds.in_crowds(seed, **({"few": 2, "middle": 3, "many": 4, "rounds": 1} if quick else {}))


def training(seed: int, quick: bool) -> list[Figure]:
    from benchmarks.swarm_training import Case, measure

    return measure(Case("nano", peers=2, rounds=2 if quick else 12, batch=8, seq_length=32 if quick else 128))


def training_on_slow_lines(seed: int, quick: bool) -> list[Figure]:
    from benchmarks.swarm_training import Case, measure

    if quick:
        return measure(Case("nano", peers=2, rounds=2, batch=1, seq_length=32, mbit_per_s=100))
    return measure(Case("tiny", peers=4, rounds=4, batch=1, seq_length=128, mbit_per_s=100))


def restless(seed: int, quick: bool) -> list[Figure]:
    from tests.chaos.restless import RestlessSwarm
    from tests.integration.swarm_fixtures import running_swarm, swarm_config

    peers, rounds = (3, 4) if quick else (8, 50)
    with tempfile.TemporaryDirectory() as folder, running_swarm(Path(folder), swarm_config(peers)) as swarm:
        report = RestlessSwarm(swarm, peers=peers, rounds=rounds, seed=seed).run(limit_s=1200)
    return [
        Figure(
            f"rounds of {rounds} with equal digests, {peers} peers, int4, with joins and kill -9", report.agreed,
            rounds, "at least",
            details={"killed": len(report.killed), "joined": len(report.joined), "seconds": round(report.wall_s),
                     "rounds closed": len(report.digests)},
        )
    ]  # fmt: skip


def stalls(seed: int, quick: bool) -> list[Figure]:
    from benchmarks import swarm_stalls

    return swarm_stalls.first_rounds(seed, **({"swarms": 2} if quick else {}))


@dataclass(frozen=True)
class Measure:
    """One subcommand.

    Attributes:
        about: what it measures, for the help.
        minutes: about how long it takes on two quiet cores.
        needs_root: it makes network namespaces.
    """

    run: Callable[[int, bool], list[Figure]]
    about: str
    minutes: int
    needs_root: bool = False


MEASURES: dict[str, Measure] = {
    "bytes": Measure(bytes_per_round, "bytes per peer, parameter and round", 4, needs_root=True),
    "loopback": Measure(loopback, "seconds of an all-reduce of 50 M parameters on one machine", 3),
    "slow-lines": Measure(slow_lines, "the same at 100 Mbit/s", 6, needs_root=True),
    "training": Measure(training, "share of time computing and goodput: two peers, 1 M parameters", 6),
    "training-slow-lines": Measure(
        training_on_slow_lines, "the same with four peers, 10 M parameters and 100 Mbit/s", 12, needs_root=True
    ),
    "crowds": Measure(crowds, "matchmaking, bytes and messages in larger swarms", 12, needs_root=True),
    "restless": Measure(restless, "rounds with the same bits everywhere, while peers are killed and join", 8),
    "stalls": Measure(stalls, "first rounds of fresh swarms: does one wait for a time-out?", 10),
}


def help_of_measures() -> str:
    """A line for each."""
    return "\n".join(
        f"  {name:20} {one.about} (about {one.minutes} min{', needs root' if one.needs_root else ''})"
        for name, one in MEASURES.items()
    )


def machine() -> dict[str, Any]:
    """On what the figures were taken; the load says whether anything else ran."""
    import hivemind
    import torch

    return {
        "cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version(),
        "torch": torch.__version__, "hivemind": hivemind.__version__, "load_average": os.getloadavg()[0],
    }  # fmt: skip


def write_report(path: Path, report: dict[str, Any]) -> None:
    """As JSON, in which there is no NaN: what could not be measured is null."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): cleaned(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [cleaned(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    path.write_text(json.dumps(cleaned(report), indent=2, allow_nan=False) + "\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{help_of_measures()}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=[*MEASURES, "all"], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="a small case, to see that it works")
    parser.add_argument("--seed", type=int, default=0, help="of the vectors, and of who is killed when")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    os.environ.setdefault("HIVEMIND_LOGLEVEL", "ERROR")  # before hivemind is loaded
    report = {"seed": arguments.seed, "quick": arguments.quick, "machine": machine(), "figures": []}
    for name in MEASURES if arguments.name == "all" else [arguments.name]:
        started = time.monotonic()
        if not arguments.quick:
            print(f"{name}: about {MEASURES[name].minutes} min", flush=True)
        for figure in MEASURES[name].run(arguments.seed, arguments.quick):
            report["figures"].append({"name": name, **figure.as_json()})
            print(figure.line(), flush=True)
        print(f"  ({name}: {time.monotonic() - started:.0f} s, seed {arguments.seed})", flush=True)
        if arguments.json is not None:  # after each: a later one that fails loses none
            write_report(arguments.json, report)


if __name__ == "__main__":
    main()
