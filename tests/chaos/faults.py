"""Peers that are struck at a named point of a round: killed as a whole, or stopped.

The product knows nothing of this. A test's peer is a forked process, and in that process alone the methods of the
point are replaced by ones that strike. What strikes waits until the test arms it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cotrain.config import RunConfig
from cotrain.swarm.all_reduce import Exchange
from cotrain.swarm.commit import Agreement
from cotrain.swarm.state import SharedState
from cotrain.train.synchronizer import LocalWork
from tests.integration.swarm_fixtures import ChildHandle, PeerChild, TestSwarm, _fork

STOPPED_AT_MOST_S = 90.0
"""The clock of a round goes on while a peer is stopped in it."""
MAY_CLOSE_S = 20.0
"""Longer than the pause after a round that was not closed, and than a record of the dead lives."""


class Fault:
    """A signal for a peer's process and its averaging process, sent from within once it is armed."""

    def __init__(self, number: signal.Signals = signal.SIGKILL):
        self._armed = _fork.Value(ctypes.c_bool, False)
        self._number = number

    def arm(self) -> None:
        self._armed.value = True

    @property
    def armed(self) -> bool:
        return bool(self._armed.value)

    def strike(self) -> None:
        """Where it is armed: in the averaging process, the peer's own is its parent. Strikes once."""
        if self._armed.value:
            self._armed.value = False
            os.kill(os.getppid(), self._number)
            os.kill(os.getpid(), self._number)


# ---------------------------------------------------------------------------------------------- the named points
def before_send(fault: Fault) -> None:
    """The group has formed, nothing has been sent."""
    run = Exchange.run

    async def struck(self: Exchange) -> None:
        fault.strike()
        await run(self)

    Exchange.run = struck


def mid_send(fault: Fault) -> None:
    """A part of the contribution has been sent to a reducer, the rest has not."""
    run = Exchange.run

    async def in_the_middle(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for message in requests:
            yield message
            fault.strike()

    async def struck(self: Exchange) -> None:
        open_stream = self.open_stream
        self.open_stream = lambda reducer, requests: open_stream(reducer, in_the_middle(requests))
        await run(self)

    Exchange.run = struck


def mid_reduce(fault: Fault) -> None:
    """One member has been sent an average that this peer reduced; the others and the other parts have not."""
    serve = Exchange.serve

    async def struck(self: Exchange, sender: str, stream: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for message in serve(self, sender, stream):
            yield message
            fault.strike()

    Exchange.serve = struck


def before_commit(fault: Fault) -> None:
    """Everything is reduced and collected, no vote has been cast."""
    decide = Agreement.decide

    async def struck(self: Agreement) -> Any:
        fault.strike()
        return await decide(self)

    Agreement.decide = struck


def while_leading_the_commit(fault: Fault) -> None:
    """The leader of the agreement has told one member what is decided, and nobody else."""
    decide = Agreement.decide

    async def struck(self: Agreement) -> Any:
        links, told = self._links, asyncio.Event()

        async def call(peer: str, vote: Any) -> Any:
            if not fault.armed or vote.op != "decide":
                return await links.call(peer, vote)
            if told.is_set():  # the others are never told
                await asyncio.get_running_loop().create_future()
            told.set()
            answer = await links.call(peer, vote)
            fault.strike()
            return answer

        self._links = replace(links, call=call)
        return await decide(self)

    Agreement.decide = struck


def while_serving_state(fault: Fault) -> None:
    """A joiner has been sent the first chunk of the outer state."""
    chunk = SharedState.chunk

    def struck(self: SharedState, slot: int, round_: int, offset: int) -> bytes | None:
        if offset > 0:
            fault.strike()
        return chunk(self, slot, round_, offset)

    SharedState.chunk = struck


# ---------------------------------------------------------------------------------------------- peers
class PatientPeer(PeerChild):
    """A peer that proposes a closing only when the training loop would."""

    def may_close(self) -> bool:
        """Wait until a round that was not closed may be tried again, and a view of the others is newer than the state.

        Two that missed each other and tried at once, each would take the other for gone, and close it alone.
        """
        deadline = time.monotonic() + MAY_CLOSE_S
        work = LocalWork(steps=4, samples=8, ranks=2)
        self.peer.report(work, steps_per_s=1.0)
        while time.monotonic() < deadline:
            if self.peer.should_close(work, 0.1):
                return True
        return False


class FaultyPeer(PatientPeer):
    """A peer like any other until `arm` is called."""

    def __init__(
        self, config: RunConfig, folder: Path, initial_peers: list[str], number: int,
        point: Callable[[Fault], None], fault: Fault,
    ):  # fmt: skip
        self._fault = fault
        point(fault)
        super().__init__(config, folder, initial_peers, number)
        poll_round = self.peer.poll_round
        self.peer.poll_round = lambda wait_s: poll_round(wait_s + STOPPED_AT_MOST_S)

    def arm(self) -> None:
        self._fault.arm()


def add_patient_peers(swarm: TestSwarm, count: int) -> list[ChildHandle]:
    """Start them and let them join."""
    first = len(swarm.peers)
    return let_join(
        swarm,
        [ChildHandle(lambda n=number: PatientPeer(swarm.config, swarm.folder, swarm.addresses, n))
         for number in range(first, first + count)],
    )  # fmt: skip


def let_join(swarm: TestSwarm, added: list[ChildHandle]) -> list[ChildHandle]:
    """They belong to the swarm from now on, and are ended with it."""
    swarm.peers += added
    for handle in added:
        handle.ready()
    swarm.all(added, "join")
    return added


def add_faulty_peers(
    swarm: TestSwarm, count: int, point: Callable[[Fault], None], number: signal.Signals = signal.SIGKILL
) -> list[ChildHandle]:
    """Start peers that can be struck at this point, and let them join; no two share what arms them."""
    first = len(swarm.peers)

    def build(peer: int, fault: Fault) -> ChildHandle:
        return ChildHandle(lambda: FaultyPeer(swarm.config, swarm.folder, swarm.addresses, peer, point, fault))

    faults = [Fault(number) for _ in range(count)]  # all at once: a forgotten one's memory would be the next one's
    return let_join(swarm, [build(first + index, fault) for index, fault in enumerate(faults)])
