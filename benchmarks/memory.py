"""What real nodes hold in memory and send, beside what `cotrain/estimate.py` says of them.

    python -m benchmarks.memory [--sizes nano tiny] [--type llama3] [--batch-size 8] [--seq-length 128]
        [--optimizer adamw] [--peers 2] [--steps 12] [--json FILE]

Each size is a session of its own: a coordinator and nodes on this machine, as `cotrain demo` starts them. Memory is the
proportional set size (PSS) of a training process and all that it started, sampled five times a second: pages that
processes share count once. The peak of the nodes is compared with the estimate. Takes about a minute a size on two free
cores, and as much memory as it says.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import psutil

from cotrain.demo import Demo, DemoFailedError, Options
from cotrain.demo_summary import PRESETS, Preset
from cotrain.estimate import Estimate, estimate
from cotrain.model_facts import model_facts
from cotrain.request import SessionRequest
from cotrain.sections import ModelType, Optimizer

SAMPLE_S = 0.2
_WORKER = "node.worker"


@dataclass(frozen=True)
class Case(Preset):
    """The demo's session with another model."""

    type: ModelType = "llama3"
    size: str = "nano"
    optimizer: Optimizer = "adamw"

    def request(self, peers: int) -> dict[str, Any]:
        body = super().request(peers)
        body["model"] = {"type": self.type, "size": self.size}
        body["training"]["optimizer"] = self.optimizer
        return body


@dataclass(frozen=True)
class Outcome:
    """One size; bytes. `ratio` is the estimate over what was measured."""

    size: str
    parameters: int
    measured_bytes: int
    estimated_bytes: int
    ratio: float
    program_bytes: int
    sent_per_parameter: float | None
    """In a round; None if the demo gave up waiting for its checkpointer."""
    estimated_per_parameter: float


@dataclass
class Peaks:
    """The most that a node held, bytes."""

    most: int = 0

    def look(self) -> None:
        """Sample every training process below this one."""
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                parent = process.parent()
                if parent and _WORKER in process.cmdline() and _WORKER not in parent.cmdline():
                    self.most = max(self.most, held_by(process))


def held_by(process: psutil.Process) -> int:
    """PSS of a process and all that it started, bytes."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            total += one.memory_full_info().pss
    return total


async def measure(case: Case, peers: int, folder: Path) -> tuple[int, float | None]:
    """(peak of a node, bytes sent per parameter and round) of a whole session."""
    PRESETS["memory"] = case
    peaks, report = Peaks(), folder / "report.json"

    async def watch() -> None:
        while True:
            await asyncio.to_thread(peaks.look)
            await asyncio.sleep(SAMPLE_S)

    watcher = asyncio.create_task(watch())
    try:
        await Demo(Options(peers=peers, preset="memory", folder=folder / "demo", keep=False, report=report)).run()
    except DemoFailedError as error:
        # its nodes have trained, but a slow checkpointer was not done when they left: memory has been measured
        print(f"the demo gave up: {str(error)[:200]}", file=sys.stderr)
    finally:
        watcher.cancel()
    sent = json.loads(report.read_text())["bytesPerParamPerRound"] if report.exists() else None
    return peaks.most, sent


def expected(case: Case, peers: int) -> Estimate:
    """What the coordinator would say of the session."""
    config = SessionRequest.model_validate(case.request(peers)).to_config("memory")
    facts = model_facts(config).facts
    assert facts is not None, "a preset is always known"
    return estimate(config, facts)


def run(arguments: argparse.Namespace) -> list[Outcome]:
    """Every size in turn."""
    outcomes = []
    for size in arguments.sizes:
        case = Case(
            max_steps=arguments.steps, inner_steps=4, batch_size=arguments.batch_size,
            seq_length=arguments.seq_length, evaluation_rounds=100, evaluation_batches=1, type=arguments.type,
            size=size, optimizer=arguments.optimizer,
        )  # fmt: skip
        said = expected(case, arguments.peers)
        with tempfile.TemporaryDirectory(prefix="cotrain-memory-") as folder:
            most, sent = asyncio.run(measure(case, arguments.peers, Path(folder)))
        outcomes.append(
            Outcome(
                size=size, parameters=said.parameters, measured_bytes=most, estimated_bytes=said.memory.total_bytes,
                ratio=said.memory.total_bytes / most, program_bytes=said.memory.program_bytes, sent_per_parameter=sent,
                estimated_per_parameter=said.traffic.averaging_bytes / said.parameters,
            )
        )  # fmt: skip
        print(json.dumps({**asdict(outcomes[-1]), "estimate": asdict(said.memory)}), flush=True)
    return outcomes


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["nano", "tiny"])
    parser.add_argument("--type", choices=get_args(ModelType), default="llama3")
    parser.add_argument("--optimizer", choices=get_args(Optimizer), default="adamw")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seq-length", type=int, default=128)
    parser.add_argument("--peers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12, help="inner steps of each node")
    parser.add_argument("--json", type=Path, help="write the outcomes to this file, too")
    arguments = parser.parse_args()
    outcomes = run(arguments)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n")


if __name__ == "__main__":
    main()
