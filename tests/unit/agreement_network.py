"""Members of a group joined in memory, on virtual time: who is dead, who holds what, which messages are lost."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cotrain.errors import SwarmError
from cotrain.swarm.commit import Agreement
from cotrain.swarm.inquiry import Inquiry
from cotrain.swarm.links import Answer, Links, Vote
from cotrain.swarm.parts import Manifest, Part, PartLedger, digest_of
from cotrain.swarm.votes import (
    Electorate,
    Word,
)
from tests.swarm_signers import signer

T = TypeVar("T")
GROUP = "ab"
TERMS = "c" * 64
TIMEOUT_S = 5.0
PARTS = 4


def electorate(count: int, *, group: str = GROUP, terms: str = TERMS, round_: int = 3) -> Electorate:
    return Electorate(terms, group, round_, tuple(signer(i).peer_id for i in range(count)))


class _IdleSelector(selectors.SelectSelector):
    """Instead of waiting, moves the clock on; raises when there is nothing to wait for."""

    clock = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everybody waits for nothing")
            self.clock += max(1e-6, timeout)  # a clock that stands still would never end a wait shorter than its step
        return ready


def run_on_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end without waiting for any timer."""
    selector = _IdleSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.clock  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)


@dataclass(frozen=True)
class Faults:
    """What goes wrong in a run.

    Attributes:
        missing: (member, part) of averages that a member does not hold at first.
        forked: (member, part) of averages that a lying reducer gave this member in other bytes than the rest.
        crashes: messages that a member sends before it dies; the others live.
        loss: probability that a message, or its answer, is lost.
        most_delay_s: messages take up to this long.
    """

    missing: frozenset[tuple[int, int]] = frozenset()
    forked: frozenset[tuple[int, int]] = frozenset()
    crashes: dict[int, int] = field(default_factory=dict)
    loss: float = 0.0
    most_delay_s: float = 0.05


class Network:
    """Reducers m0, m1, ... of one group, contributors after them, and the messages between them."""

    def __init__(self, count: int, faults: Faults = Faults(), seed: int = 0, contributors: int = 0):
        self.electorate = electorate(count)
        self.names = [signer(i).peer_id for i in range(count + contributors)]
        self.faults, self.random = faults, random.Random(seed)
        self.sent: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self.dead = {self.names[i] for i, after in faults.crashes.items() if after == 0}
        self.ledgers = {name: self._ledger(i) for i, name in enumerate(self.names)}
        self.members: dict[str, Agreement | Inquiry] = {}
        self.contradictions: list[tuple[Word, Word]] = []

    def assemble(self) -> Network:
        """Make the members' sides of the agreement; they belong to the loop that runs now."""
        self.members = {name: self._member(name) for name in self.names}
        return self

    def _ledger(self, number: int) -> PartLedger:
        ledger = PartLedger([Part(i, i + 1, "m0") for i in range(PARTS)])
        for index in range(PARTS):
            if (number, index) not in self.faults.missing:
                version = " as forked" if (number, index) in self.faults.forked else ""
                ledger.put(index, f"average of part {index}{version}".encode())
        return ledger

    def _member(self, name: str) -> Agreement | Inquiry:
        async def call(peer: str, vote: Vote) -> Answer:
            self.messages[vote.op] += 1
            await self._transmit(name, peer)
            answer = await self.members[peer].handle(name, Vote.model_validate_json(vote.model_dump_json()))
            await self._transmit(peer, name)
            return Answer.model_validate_json(answer.model_dump_json())

        async def fetch(peer: str, indices: Sequence[int]) -> AsyncIterator[tuple[int, bytes]]:
            await self._transmit(name, peer)
            for index in indices:
                encoded = self.ledgers[peer].encoded(index)
                if encoded is not None:
                    await self._transmit(peer, name)
                    yield index, encoded

        async def bounded_call(peer: str, vote: Vote) -> Answer:
            return await asyncio.wait_for(call(peer, vote), TIMEOUT_S)

        number, links = self.names.index(name), Links(bounded_call, fetch)
        if name not in self.electorate.voters:
            return Inquiry(
                electorate=self.electorate, ledger=self.ledgers[name], links=links, suspects=set(), first=number
            )
        return Agreement(
            electorate=self.electorate, signer=signer(number), ledger=self.ledgers[name], links=links, suspects=set(),
            timeout_s=TIMEOUT_S, on_contradiction=lambda first, second: self.contradictions.append((first, second)),
        )  # fmt: skip

    async def _transmit(self, sender: str, receiver: str) -> None:
        """Deliver one message, or raise as a connection does that breaks or times out."""
        number = self.names.index(sender)
        if self.sent[sender] >= self.faults.crashes.get(number, 10**9):
            self.dead.add(sender)
        self.sent[sender] += 1
        await asyncio.sleep(self.random.uniform(0, self.faults.most_delay_s))
        if receiver in self.dead:
            raise ConnectionError(f"{receiver} is gone")
        if sender in self.dead or self.random.random() < self.faults.loss:
            await asyncio.sleep(TIMEOUT_S)
            raise TimeoutError

    async def _decide(self, name: str) -> Manifest | Exception:
        try:
            return await self.members[name].decide()
        except SwarmError as error:
            return error

    async def run(self) -> dict[str, Manifest | Exception]:
        """What each member came to: a manifest, or the error that it ended with."""
        results = await asyncio.wait_for(asyncio.gather(*map(self._decide, self.names)), 1000 * TIMEOUT_S)
        return dict(zip(self.names, results, strict=True))


def decisions_of(network: Network) -> tuple[dict[str, Manifest], dict[str, Exception]]:
    """Run it, and check what must hold whatever went wrong; of the living: who decided what, and the others' errors."""

    async def main() -> dict[str, Manifest | Exception]:
        return await network.assemble().run()

    results = run_on_virtual_time(main())
    decided = {name: result for name, result in results.items() if not isinstance(result, Exception)}
    assert len(set(decided.values())) <= 1, "two decisions"
    for name, manifest in decided.items():
        held = [network.ledgers[name].encoded(index) for index in range(PARTS)]
        for digest, encoded in zip(manifest, held, strict=True):
            assert digest is None or (encoded is not None and digest_of(encoded) == digest), "a part is not held"
    alive = {name: result for name, result in results.items() if name not in network.dead}
    failed = {name: result for name, result in alive.items() if isinstance(result, Exception)}
    assert network.contradictions == [], "an honest member contradicted itself"
    return {name: manifest for name, manifest in decided.items() if name in alive}, failed


COMPLETE: Manifest = tuple(digest_of(f"average of part {index}".encode()) for index in range(PARTS))
