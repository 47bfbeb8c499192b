"""`cotrain demo --chaos`: while the nodes train, one is killed and started again, another stopped and continued.

Which one, when and for how long comes from a seed. Nothing is disturbed before the first round and near the end, so
that every node takes part in the last rounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import psutil

CALM_FROM_PERCENT = 60.0
"""Progress of the session from which on no node is disturbed."""
PEACE_S = (6.0, 14.0)
"""Between two disturbances."""
DEAD_S = (0.5, 3.0)
"""From the kill to the new start."""
STOPPED_S = (16.0, 22.0)
"""Longer than a peer's record lives and than a member waits for the next part of another."""

Kind = Literal["kill", "stop"]


@dataclass(frozen=True)
class Disturbance:
    """What happens to one node.

    Attributes:
        after_s: seconds of peace before it.
        node: index of the node.
        away_s: seconds until it is started again, or continued.
    """

    after_s: float
    node: int
    kind: Kind
    away_s: float


def plan_disturbances(seed: int, nodes: int) -> Iterator[Disturbance]:
    """Without end, the same for the same seed; kills and stops take turns, and no node is struck twice in a row."""
    generator = random.Random(seed)
    kinds: list[Kind] = ["kill", "stop"]
    last = -1
    while True:
        for kind in generator.sample(kinds, len(kinds)):
            last = generator.choice([node for node in range(nodes) if node != last])
            away_s = generator.uniform(*(DEAD_S if kind == "kill" else STOPPED_S))
            yield Disturbance(generator.uniform(*PEACE_S), last, kind, away_s)


class Chaos:
    """Disturbs the processes of a demo's nodes, one at a time."""

    def __init__(
        self, seed: int, processes: Sequence[asyncio.subprocess.Process],
        restart: Callable[[int], Awaitable[asyncio.subprocess.Process]], say: Callable[[str], None] | None = None,
    ):  # fmt: skip
        """`restart(index)` starts a node again, with the identity it had."""
        self._plan = plan_disturbances(seed, len(processes))
        self._processes, self._restart = list(processes), restart
        self._say = say or _print
        self._calm = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._done: list[Kind] = []

    def note_progress(self, round_: int, percent: float) -> None:
        """Begin after the first round; strike no more once the session is far enough."""
        if self._task is None and round_ >= 1:
            self._task = asyncio.create_task(self._run())
        if percent >= CALM_FROM_PERCENT:
            self._calm.set()

    def told(self) -> str:
        """What was done, for the summary."""
        return f"{self._done.count('kill')} times a node was killed, {self._done.count('stop')} times one was stopped"

    async def finish(self) -> None:
        """Strike no more, and wait until every node is back (at most for the longest that one is away)."""
        self._calm.set()
        if self._task is not None:
            await self._task

    async def close(self) -> None:
        """End it at once; nobody stays stopped."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        for disturbance in self._plan:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._calm.wait(), disturbance.after_s)
            if self._calm.is_set():
                return
            if self._processes[disturbance.node].returncode is None:
                await (self._kill if disturbance.kind == "kill" else self._stop)(disturbance)
                self._done.append(disturbance.kind)

    async def _kill(self, disturbance: Disturbance) -> None:
        process = self._processes[disturbance.node]
        process.kill()
        await process.wait()
        self._say(f"chaos: {_name(disturbance)} was killed (kill -9)")
        await asyncio.sleep(disturbance.away_s)
        self._processes[disturbance.node] = await self._restart(disturbance.node)
        self._say(f"chaos: {_name(disturbance)} was started again")

    async def _stop(self, disturbance: Disturbance) -> None:
        agent = psutil.Process(self._processes[disturbance.node].pid)
        with _standing_still([agent, *agent.children(recursive=True)]):
            self._say(f"chaos: {_name(disturbance)} was stopped for {disturbance.away_s:.0f} s (SIGSTOP)")
            await asyncio.sleep(disturbance.away_s)
        self._say(f"chaos: {_name(disturbance)} was continued")


def _name(disturbance: Disturbance) -> str:
    return f"node-{disturbance.node + 1}"


def _print(text: str) -> None:
    print(text, flush=True)


@contextlib.contextmanager
def _standing_still(processes: Sequence[psutil.Process]) -> Iterator[None]:
    try:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
