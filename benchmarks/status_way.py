"""How long news of a run is on its way: from the training process that writes it to the coordinator that has it.

    python -m benchmarks.status_way [--changes 400] [--runs 500] [--seconds 30]

First the whole way. A real agent (`node.join`) in a process of its own supervises a process that trains nothing: it
records something at random moments (50 to 450 ms apart, seed 0) by the training process's own reporter. The agent's
watcher sees it, its spool numbers it, its uplink sends it to a small coordinator in this process, over loopback. A
record's way lasts from its own time until the message that has it has been read here. Then the watcher alone, of many
runs: another process replaces their files in turn, each once a second, and a snapshot's way lasts from its own time
until the watcher in this process hands it on. All clocks are this machine's. Takes three minutes; other work on the
machine makes it longer, so run it alone.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.swarm_figures import Figure
from cotrain.display import PlainDisplay
from cotrain.identity.wallet import EthereumWallet
from cotrain.paths import STATUS_FILE, SharedPaths
from cotrain.process import bind_to_parent, child_environment, end_process
from cotrain.protocol import Goodbye, StatusMessage
from cotrain.status import now, write_status
from cotrain.train.reporter import StatusReporter
from cotrain.watch import StatusWatcher
from node.admission import Place
from node.job import read_job
from node.join import join
from node.options import JoinOptions
from tests.integration.node_fixtures import SmallCoordinator, make_status, until

WANTED_S = 0.2
SHORTEST_S, LONGEST_S = 0.05, 0.45
NEWS = "news"
EVERY_S = 1.0
"""How often each of many runs is written."""


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least this share of all does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def figure(measure: str, ways_s: Sequence[float]) -> Figure:
    """The 99th percentile beside what is wanted."""
    return Figure(
        f"ms on the way, 99th percentile, {measure}", 1000 * percentile(ways_s, 0.99), wanted=1000 * WANTED_S,
        details={
            "median": round(1000 * percentile(ways_s, 0.5)), "most": round(1000 * max(ways_s)), "of": len(ways_s)
        },
    )  # fmt: skip


def program(*arguments: str) -> list[str]:
    """The command line of one of the other processes here."""
    return [sys.executable, "-m", "benchmarks.status_way", *arguments]


# ---------------------------------------------------------------------------------------------- the whole way
class Arrivals(list[StatusMessage | Goodbye]):
    """What the coordinator has stored, and how long each record of news was on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.ways_s: dict[int, float] = {}

    def append(self, message: StatusMessage | Goodbye) -> None:
        super().append(message)
        arrived_at = now()
        for record in message.status.records if isinstance(message, StatusMessage) else []:
            if record.message == NEWS:
                self.ways_s.setdefault(record.number, arrived_at - record.time)


def write_news(job_file: Path, changes: int) -> None:
    """The process in the place of the training process."""
    bind_to_parent()
    sys.stdin.readline()
    job, moments = read_job(job_file), random.Random(0)
    reporter = StatusReporter(job.run_dir, session=job.session, peer=job.peer_id)
    reporter.start()
    reporter.phase("training", "training")
    for _ in range(changes):
        time.sleep(moments.uniform(SHORTEST_S, LONGEST_S))
        reporter.record("log", NEWS)
    reporter.phase("done", "completed")
    reporter.stop()


def take_part(url: str, folder: Path, changes: int) -> int:
    """The agent."""
    bind_to_parent()
    place = Place(folder / "home", SharedPaths(folder / "shared"), EthereumWallet.create())

    def command(job: Path) -> list[str]:
        return program("write", str(job), str(changes))

    return asyncio.run(join(JoinOptions(url, threads=1), place, PlainDisplay(sys.stderr), command=command))


async def whole_way(changes: int) -> list[float]:
    """Seconds that each record was on its way."""
    coordinator, arrivals = SmallCoordinator(), Arrivals()
    coordinator.stored = arrivals
    await coordinator.start()
    with tempfile.TemporaryDirectory(prefix="cotrain-way-") as folder:
        agent = await asyncio.create_subprocess_exec(
            *program("agent", coordinator.session_url, folder, str(changes)), env=child_environment(),
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            code = await asyncio.wait_for(agent.wait(), 60.0 + LONGEST_S * changes)
        finally:
            await end_process(agent, grace_s=5.0)
            await coordinator.stop()
    assert code == 0, f"the agent ended with exit code {code}"
    assert len(arrivals.ways_s) == changes, f"{len(arrivals.ways_s)} of {changes} records arrived"
    return list(arrivals.ways_s.values())


# ---------------------------------------------------------------------------------------------- the watcher alone
def write_many(root: Path, runs: int, seconds: float) -> None:
    """Replace the files of so many runs in turn, each once a second."""
    bind_to_parent()
    began = time.monotonic()
    for number in range(int(runs * seconds / EVERY_S)):
        time.sleep(max(0.0, began + number * EVERY_S / runs - time.monotonic()))
        write_status(
            root / str(number % runs) / STATUS_FILE, make_status(1 + number // runs, run=f"run-{number % runs}")
        )


async def watch_many(runs: int, seconds: float) -> list[float]:
    """Seconds from each snapshot's own time until the watcher has handed it on."""
    with tempfile.TemporaryDirectory(prefix="cotrain-way-") as folder:
        root, ways_s = Path(folder), list[float]()
        for number in range(runs):
            (root / str(number)).mkdir()

        async def follow() -> None:
            async for change in StatusWatcher(root).changes():
                ways_s.append(now() - change.status.updated_at)

        following = asyncio.create_task(follow())
        try:
            write_status(root / "0" / STATUS_FILE, make_status(0, run="first"))
            await until(lambda: ways_s, what="the watcher follows")
            ways_s.clear()
            writer = await asyncio.create_subprocess_exec(
                *program("many", folder, str(runs), str(seconds)), env=child_environment()
            )
            try:
                assert await asyncio.wait_for(writer.wait(), 60.0 + 4 * seconds) == 0
            finally:
                await end_process(writer, grace_s=0.0)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    return ways_s


def main() -> None:
    """The command line, and those of the other processes."""
    if sys.argv[1:2] == ["write"]:
        return write_news(Path(sys.argv[2]), int(sys.argv[3]))
    if sys.argv[1:2] == ["agent"]:
        sys.exit(take_part(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])))
    if sys.argv[1:2] == ["many"]:
        return write_many(Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=400, help="records on the whole way")
    parser.add_argument("--runs", type=int, default=500, help="runs that one watcher watches")
    parser.add_argument("--seconds", type=float, default=30.0, help="for so long")
    arguments = parser.parse_args()
    ways_s = asyncio.run(whole_way(arguments.changes))
    print(figure("from the training process to the coordinator", ways_s).line(), flush=True)
    ways_s = asyncio.run(watch_many(arguments.runs, arguments.seconds))
    print(figure(f"to a watcher of {arguments.runs} runs, each once a second", ways_s).line(), flush=True)
    return None


if __name__ == "__main__":
    main()
