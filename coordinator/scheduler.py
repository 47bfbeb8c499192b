"""Which sessions of the queue start now, why the others wait, and which of the open ones suit a node. Pure.

Order: priority, then the owner with fewer sessions under way, then age. Whoever cannot start holds up nobody but those
who want the same data: an older session that wants a dataset for itself is not overtaken by younger ones that share it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cotrain.estimate import MemoryEstimate, fits, shortage

WaitCode = Literal["limit", "owner-limit", "dataset", "preparing", "peers", "memory", "joining"]


@dataclass(frozen=True)
class Reason:
    """Why a session does not train yet: `code` for programs, `message` for people."""

    code: WaitCode
    message: str


@dataclass(frozen=True)
class Task:
    """A session in the queue, or one that is under way.

    Attributes:
        dataset: the same for the same data; empty where that is nobody's or not known.
        shares_dataset: whether others may train on it at the same time.
        priority: greater ones come first.
        asked_at: when its start was asked for, Unix seconds.
        is_private: whether strangers must not learn of it.
    """

    session: str
    owner: str
    dataset: str = ""
    shares_dataset: bool = False
    priority: int = 0
    asked_at: float = 0.0
    is_private: bool = False


@dataclass(frozen=True)
class QueueLimits:
    """How many sessions may be under way at a time."""

    in_all: int
    per_owner: int


@dataclass(frozen=True)
class Decision:
    """Sessions that start now, in this order, and why each of the others waits."""

    start: tuple[str, ...]
    waiting: Mapping[str, Reason]


def decide(pending: Iterable[Task], under_way: Iterable[Task], limits: QueueLimits) -> Decision:
    """What happens to the queue now. The order of the arguments' items does not matter."""
    left, running = list(pending), sorted(under_way, key=lambda task: task.session)
    started: list[str] = []
    while True:
        held = Counter(task.owner for task in running)
        waiting = _hindrances(left, running, held, limits)
        free = [task for task in left if task.session not in waiting]
        if not free:
            return Decision(tuple(started), waiting)
        first = min(free, key=lambda task: (-task.priority, held[task.owner], task.asked_at, task.session))
        left.remove(first)
        running.append(first)
        started.append(first.session)


def _hindrances(
    left: Sequence[Task], running: Sequence[Task], held: Mapping[str, int], limits: QueueLimits
) -> dict[str, Reason]:
    """What keeps each of `left` from starting; those that may start are not in it.

    What the owner can change is said first.
    """
    full = _full(len(running), limits.in_all)
    found: dict[str, Reason] = {}
    users: dict[str, list[Task]] = {}
    for task in running:
        users.setdefault(task.dataset, []).append(task)
    ahead = _first_alone(left)
    for task in left:
        reason = _owner_full(held.get(task.owner, 0), limits.per_owner)
        reason = reason or _dataset_taken(task, users.get(task.dataset, []), ahead.get(task.dataset)) or full
        if reason is not None:
            found[task.session] = reason
    return found


def _full(count: int, most: int) -> Reason | None:
    if count < most:
        return None
    return Reason("limit", f"this coordinator has {_sessions(count)} under way, and carries {most}: one must end first")


def _owner_full(count: int, most: int) -> Reason | None:
    if count < most:
        return None
    return Reason("owner-limit", f"its owner has {_sessions(count)} under way, and may have {most}: one must end first")


def _sessions(count: int) -> str:
    return "1 session" if count == 1 else f"{count} sessions"


def _dataset_taken(task: Task, users: Sequence[Task], ahead: Task | None) -> Reason | None:
    """`users` train on the task's dataset now; `ahead` is the first in the queue that wants it for itself."""
    if not task.dataset or not users:
        return None
    # one that lets nobody beside it is named first: it is the one that is waited for
    alone = next((user for user in users if not user.shares_dataset), users[0])
    if not (task.shares_dataset and alone.shares_dataset):
        return Reason(
            "dataset",
            f"{_named(alone)} trains on the same data: it must end first, unless both have asked for "
            "schedule.allowSameDataset",
        )
    if ahead is not None and _turn(ahead) < _turn(task):
        return Reason("dataset", f"{_named(ahead)} was first to ask for the same data, and lets nobody beside it")
    return None


def _named(task: Task) -> str:
    """As everybody may read it who sees a session that waits for this one."""
    return "a private session" if task.is_private else f"session {task.session}"


def _first_alone(left: Sequence[Task]) -> dict[str, Task]:
    """By dataset, the first that wants it for itself."""
    found: dict[str, Task] = {}
    for task in sorted(left, key=_turn, reverse=True):
        if not task.shares_dataset:
            found[task.dataset] = task
    return found


def _turn(task: Task) -> tuple[int, float, str]:
    return -task.priority, task.asked_at, task.session


# ---------------------------------------------------------------------------------------------- sessions and nodes
@dataclass(frozen=True)
class Needs:
    """What a session asks of its nodes.

    Attributes:
        memory: None where nobody can say.
        min_peers: below this many the outer state does not advance.
    """

    memory: MemoryEstimate | None
    min_peers: int


@dataclass(frozen=True)
class Offer:
    """A session that a node could join.

    Attributes:
        reported: memory of the nodes that are connected, bytes; 0 for one that does not know.
        priority: greater ones come first.
        opened_at: Unix seconds.
    """

    session: str
    needs: Needs
    reported: tuple[int, ...]
    priority: int
    opened_at: float

    @property
    def missing_peers(self) -> int:
        """How many nodes that are large enough it lacks to close a round."""
        able = sum(not too_small(self.needs.memory, memory_bytes) for memory_bytes in self.reported)
        return max(0, self.needs.min_peers - able)


def too_small(memory: MemoryEstimate | None, memory_bytes: int, gpu_memory_bytes: int = 0) -> str:
    """Why a node that reports this much (bytes) cannot take part, for people; empty if it can.

    Nodes that report 0 do not know how much they have, and are trusted.
    """
    if memory is None or not memory_bytes:
        return ""
    return fits(memory, memory_bytes, gpu_memory_bytes or None)


def none_is_large_enough(memory: MemoryEstimate, reported: Sequence[int]) -> str:
    """Why no node of these could take part; empty if one could, or none is known. `reported` as in Offer."""
    if not reported or not all(too_small(memory, found) for found in reported):
        return ""
    return f"no node that has been here is large enough: {too_small(memory, max(reported))}"


def awaited_peers(needs: Needs, reported: Sequence[int]) -> Reason:
    """What a session that has been started waits for; `reported` as in Offer."""
    if needs.memory is not None and (message := shortage(needs.memory, reported, needs.min_peers)):
        small = any(too_small(needs.memory, found) for found in reported)
        return Reason("memory" if small else "peers", message)
    if len(reported) < needs.min_peers:
        return Reason("peers", f"{needs.min_peers} nodes are needed, {len(reported)} are here")
    return Reason("joining", "the nodes that are here fetch what they need, and begin")


def best_first(offers: Iterable[Offer], memory_bytes: int = 0, gpu_memory_bytes: int = 0) -> list[Offer]:
    """The sessions that a node with this much memory (bytes; 0: not known) could join, the best one first.

    Those that lack nodes come before those that have enough, the nearest to its start first; then priority, then age.
    """
    suitable = [offer for offer in offers if not too_small(offer.needs.memory, memory_bytes, gpu_memory_bytes)]
    return sorted(suitable, key=_merit)


def _merit(offer: Offer) -> tuple[bool, int, int, float, str]:
    missing = offer.missing_peers
    return missing == 0, missing, -offer.priority, offer.opened_at, offer.session
