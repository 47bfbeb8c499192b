"""The swarm beside stock hivemind: bytes, seconds, computing, and whether all hold the same bits.

    python -m benchmarks.swarm NAME [--seed 0] [--json FILE]

NAME is one of those below, or `all`. Prints a line for each figure, with what is wanted of it. Some need root, for
network namespaces; the whole takes about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.swarm_figures import Figure

ROUNDS, PEERS = 50, 8


def bytes_per_round(seed: int) -> list[Figure]:
    """Bytes per peer, parameter and round."""
    from benchmarks import swarm_network

    return swarm_network.bytes_per_round(seed)


def loopback(seed: int) -> list[Figure]:
    """Seconds of an all-reduce of 50 M parameters on one machine."""
    from benchmarks import swarm_network

    return swarm_network.on_loopback(seed)


def slow_lines(seed: int) -> list[Figure]:
    """The same at 100 Mbit/s."""
    from benchmarks import swarm_network

    return swarm_network.on_slow_lines(seed)


def crowds(seed: int) -> list[Figure]:
    """Matchmaking and messages in larger swarms."""
    from benchmarks import swarm_network

    return swarm_network.in_crowds(seed)


def training(seed: int) -> list[Figure]:
    """Share of time computing and goodput: two peers, 1 M parameters."""
    from benchmarks.swarm_training import Case, measure

    return measure(Case("nano", peers=2, rounds=12, batch=8, seq_length=128))


def training_on_slow_lines(seed: int) -> list[Figure]:
    """The same with four peers, 10 M parameters and 100 Mbit/s."""
    from benchmarks.swarm_training import Case, measure

    return measure(Case("tiny", peers=4, rounds=4, batch=1, seq_length=128, mbit_per_s=100))


def restless(seed: int) -> list[Figure]:
    """Rounds after which all peers hold the same bits, while peers are killed and join."""
    from tests.chaos.restless import RestlessSwarm
    from tests.integration.swarm_fixtures import running_swarm, swarm_config

    with tempfile.TemporaryDirectory() as folder, running_swarm(Path(folder), swarm_config(PEERS)) as swarm:
        report = RestlessSwarm(swarm, peers=PEERS, rounds=ROUNDS, seed=seed).run(limit_s=1200)
    return [
        Figure(
            f"rounds of {ROUNDS} with equal digests, {PEERS} peers, int4, with joins and kill -9", report.agreed,
            ROUNDS, "at least",
            details={"killed": len(report.killed), "joined": len(report.joined), "seconds": round(report.wall_s),
                     "rounds closed": len(report.digests)},
        )
    ]  # fmt: skip


MEASURES: dict[str, Callable[[int], list[Figure]]] = {
    "bytes": bytes_per_round,
    "loopback": loopback,
    "slow-lines": slow_lines,
    "training": training,
    "training-slow-lines": training_on_slow_lines,
    "crowds": crowds,
    "restless": restless,
}


def main() -> None:
    """Measure and print."""
    names = "\n".join(f"  {name:20} {measure.__doc__}" for name, measure in MEASURES.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{names}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=[*MEASURES, "all"], metavar="NAME")
    parser.add_argument("--seed", type=int, default=0, help="of the vectors, and of who is killed when")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    os.environ.setdefault("HIVEMIND_LOGLEVEL", "ERROR")  # before hivemind is loaded
    figures: list[Figure] = []
    for name in MEASURES if arguments.name == "all" else [arguments.name]:
        started = time.monotonic()
        for figure in MEASURES[name](arguments.seed):
            figures.append(figure)
            print(figure.line(), flush=True)
        print(f"  ({name}: {time.monotonic() - started:.0f} s, seed {arguments.seed})", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([figure.as_json() for figure in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
