"""A node with several devices: every rank runs the same loop; rank 0 alone talks to the swarm, and all hear it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

import torch
from torch import Tensor

from cotrain.status import TrainingStopped, WishName
from cotrain.train.diloco import OuterState, RoundTotals
from cotrain.train.fragments import Fragments
from cotrain.train.parallel import ParallelGroup
from cotrain.train.synchronizer import ClosedRound, LocalWork, RoundNotClosed, StateOutdated, Synchronizer

_RAISED: dict[str, Callable[[Any], Exception]] = {
    kind.__name__: kind for kind in (RoundNotClosed, StateOutdated, TrainingStopped)
}
"""What a synchronizer raises in the course of things; any other error ends the node."""

T = TypeVar("T")


class RankedWishes:
    """One wish for all ranks: what `source` says in rank 0."""

    def __init__(self, group: ParallelGroup, source: Callable[[], WishName]):
        self._group, self._source = group, source

    def wish(self) -> WishName:
        """What is wished now; every rank must ask."""
        return self._group.broadcast_object(self._source() if self._group.is_main else "run")


class RankedSynchronizer:
    """The swarm as each rank sees it. All ranks call the same methods in the same order."""

    def __init__(
        self, group: ParallelGroup, swarm: Synchronizer | None, *, numel: int, fragments: Fragments | None = None
    ):  # fmt: skip
        """`swarm` is rank 0's peer, None in the others; `numel` parameters are averaged, by `fragments`."""
        self._group, self._swarm, self._numel = group, swarm, numel
        self._fragments, self._round = fragments or Fragments.whole(numel), 0

    def _ask(self, question: Callable[[Synchronizer], T]) -> T:
        """Rank 0's answer, or what it raises, at every rank. It must be what JSON can hold."""
        answer: dict[str, Any] = {}
        if self._swarm is not None:
            try:
                answer = {"value": question(self._swarm)}
            except (RoundNotClosed, StateOutdated, TrainingStopped) as raised:
                answer = {"raised": type(raised).__name__, "message": str(raised)}
        answer = self._group.broadcast_object(answer)
        if "raised" in answer:
            raise _RAISED[answer["raised"]](answer["message"])
        return answer["value"]

    def _share_state(self, question: Callable[[Synchronizer], OuterState]) -> OuterState:
        held: list[OuterState] = []

        def counters(swarm: Synchronizer) -> list[int]:
            held.append(question(swarm))
            return [held[0].round, held[0].samples, held[0].cursor]

        round_, samples, cursor = self._ask(counters)
        state = held[0] if held else OuterState(self._empty(), self._empty(), round_, samples, cursor)
        self._group.broadcast_tensor(state.parameters)
        self._group.broadcast_tensor(state.momentum)
        return state

    def _empty(self) -> Tensor:
        return torch.empty(self._numel)

    # ------------------------------------------------------------------------------------------ asked of the swarm
    def join(self, initial: OuterState) -> OuterState:
        return self._share_state(lambda swarm: swarm.join(initial))

    def resync(self, state: OuterState) -> OuterState:
        return self._share_state(lambda swarm: swarm.resync(state))

    def share(self) -> tuple[int, int]:
        rank, ranks = self._ask(lambda swarm: list(swarm.share()))
        return rank, ranks

    @property
    def peers(self) -> int:
        return self._ask(lambda swarm: swarm.peers)

    def gather(self) -> None:
        self._ask(lambda swarm: swarm.gather())

    def should_close(self, work: LocalWork, wait_s: float = 0.0) -> bool:
        return self._ask(lambda swarm: swarm.should_close(work, wait_s))

    def poll_round(self, wait_s: float) -> ClosedRound | None:
        def poll(swarm: Synchronizer) -> dict[str, Any] | None:
            closed = swarm.poll_round(wait_s)
            return None if closed is None else asdict(closed)

        closed = self._ask(poll)
        return None if closed is None else ClosedRound(**{**closed, "totals": RoundTotals(**closed["totals"])})

    def average(self) -> Tensor:
        if self._swarm is not None:
            return self._group.broadcast_tensor(self._swarm.average())
        return self._group.broadcast_tensor(torch.empty(self._fragments.size_due(self._round)))

    def publish(self, state: OuterState) -> tuple[OuterState, str]:
        stored = [state]

        def publish(swarm: Synchronizer) -> str:
            stored[0], digest = swarm.publish(state)
            return digest

        digest = self._ask(publish)
        return stored[0], digest

    # ------------------------------------------------------------------------------------------ rank 0's own affair
    def report(self, work: LocalWork, steps_per_s: float) -> None:
        if self._swarm is not None:
            self._swarm.report(work, steps_per_s)

    def begin_round(self, state: OuterState, local_parameters: Tensor, work: LocalWork) -> None:
        self._round = state.round
        if self._swarm is not None:
            self._swarm.begin_round(state, local_parameters, work)

    def next_buffers(self) -> tuple[Tensor, Tensor] | None:
        return None if self._swarm is None else self._swarm.next_buffers()

    def set_active(self, active: bool) -> None:
        if self._swarm is not None:
            self._swarm.set_active(active)

    def leave(self, final: OuterState | None) -> None:
        if self._swarm is not None:
            self._swarm.leave(final)
