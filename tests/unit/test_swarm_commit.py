"""Agreement over a network in memory, on a clock that runs only when nobody has anything to do.

The same coroutines as over libp2p, driven through thousands of seconds of timeouts at once; a seed gives the same
run again.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotrain.errors import SwarmError
from cotrain.swarm.commit import Agreement, Links, NoDecision, Vote
from cotrain.swarm.parts import Manifest, Part, PartLedger, digest_of

T = TypeVar("T")
GROUP = "ab"
TIMEOUT_S = 5.0
PARTS = 4


class _IdleSelector(selectors.SelectSelector):
    """Instead of waiting, moves the clock on; raises when there is nothing to wait for."""

    clock = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everybody waits for nothing")
            self.clock += max(0.0, timeout)
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
    """Members m0, m1, ... of one group, and the messages between them."""

    def __init__(self, count: int, faults: Faults = Faults(), seed: int = 0):
        self.names = [f"m{i}" for i in range(count)]
        self.faults, self.random = faults, random.Random(seed)
        self.sent: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self.dead = {self.names[i] for i, after in faults.crashes.items() if after == 0}
        self.ledgers = {name: self._ledger(i) for i, name in enumerate(self.names)}
        self.members: dict[str, Agreement] = {}

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

    def _member(self, name: str) -> Agreement:
        async def call(peer: str, vote: Vote) -> Vote:
            self.messages[vote.op] += 1
            await self._transmit(name, peer)
            answer = await self.members[peer].handle(name, vote)
            await self._transmit(peer, name)
            return answer

        async def fetch(peer: str, indices: Sequence[int]) -> AsyncIterator[tuple[int, bytes]]:
            await self._transmit(name, peer)
            for index in indices:
                encoded = self.ledgers[peer].encoded(index)
                if encoded is not None:
                    await self._transmit(peer, name)
                    yield index, encoded

        async def bounded_call(peer: str, vote: Vote) -> Vote:
            return await asyncio.wait_for(call(peer, vote), TIMEOUT_S)

        return Agreement(
            group=GROUP, me=name, members=self.names, ledger=self.ledgers[name], links=Links(bounded_call, fetch),
            suspects=set(), timeout_s=TIMEOUT_S,
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
    return {name: manifest for name, manifest in decided.items() if name in alive}, failed


COMPLETE: Manifest = tuple(digest_of(f"average of part {index}".encode()) for index in range(PARTS))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_when_all_is_well_it_costs_one_report_and_one_notice_for_each_member(count: int) -> None:
    network = Network(count)
    decided, failed = decisions_of(network)
    assert decided == dict.fromkeys(network.names, COMPLETE)
    assert failed == {}
    assert network.messages["report"] == network.messages["decide"] == count - 1
    assert network.messages["prepare"] == network.messages["accept"] == 0


def test_parts_that_some_lack_are_fetched_from_those_that_hold_them() -> None:
    missing = frozenset({(0, 1), (1, 0), (1, 1), (2, 3)})
    decided, _ = decisions_of(Network(3, Faults(missing=missing)))
    assert decided == dict.fromkeys(["m0", "m1", "m2"], COMPLETE)


def test_a_part_that_nobody_holds_counts_as_zero() -> None:
    decided, _ = decisions_of(Network(3, Faults(missing=frozenset({(0, 2), (1, 2), (2, 2)}))))
    expected = (*COMPLETE[:2], None, COMPLETE[3])
    assert decided == dict.fromkeys(["m0", "m1", "m2"], expected)


@pytest.mark.parametrize("dead", [(0,), (1,), (0, 1), (3, 4)])
def test_a_majority_decides_without_the_dead(dead: tuple[int, ...]) -> None:
    network = Network(5, Faults(crashes=dict.fromkeys(dead, 0)))
    decided, failed = decisions_of(network)
    assert decided == {f"m{i}": COMPLETE for i in range(5) if i not in dead}
    assert failed == {}


@pytest.mark.parametrize(("count", "dead"), [(2, 1), (3, 2), (4, 2), (5, 3)])
def test_without_a_majority_nobody_decides(count: int, dead: int) -> None:
    network = Network(count, Faults(crashes=dict.fromkeys(range(dead), 0)))
    decided, failed = decisions_of(network)
    assert decided == {}
    assert len(failed) == count - dead
    assert all(isinstance(error, NoDecision) for error in failed.values())


members_count = st.integers(2, 6)
some_parts = st.frozensets(st.tuples(st.integers(0, 5), st.integers(0, PARTS - 1)), max_size=12)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(members_count, some_parts, some_parts, st.dictionaries(st.integers(0, 5), st.integers(0, 25), max_size=2),
       st.integers(0, 2**32))  # fmt: skip
def test_whoever_dies_when_it_likes_the_living_majority_decides_one_thing(
    count: int,
    missing: frozenset[tuple[int, int]],
    forked: frozenset[tuple[int, int]],
    crashes: dict[int, int],
    seed: int,
) -> None:
    crashes = {number: after for number, after in crashes.items() if number < count}
    network = Network(count, Faults(missing, forked, crashes), seed)
    decided, _ = decisions_of(network)
    if count - len(crashes) > count // 2:
        assert decided


@settings(max_examples=200, deadline=None, derandomize=True)
@given(members_count, some_parts, some_parts, st.dictionaries(st.integers(0, 5), st.integers(0, 40), max_size=3),
       st.floats(0.0, 0.6), st.sampled_from([0.01, 1.0, 4.0, 12.0]), st.integers(0, 2**32))  # fmt: skip
def test_lost_and_late_messages_never_make_two_decisions(
    count: int,
    missing: frozenset[tuple[int, int]],
    forked: frozenset[tuple[int, int]],
    crashes: dict[int, int],
    loss: float,
    delay_s: float,
    seed: int,
) -> None:
    crashes = {number: after for number, after in crashes.items() if number < count}
    network = Network(count, Faults(missing, forked, crashes, loss, delay_s), seed)
    decided, failed = decisions_of(network)
    assert all(isinstance(error, SwarmError) for error in failed.values())
    assert len(decided) + len(failed) + len(network.dead) == count


# ---------------------------------------------------------------------------------------------- what is refused
def vote(op: str = "prepare", ballot: int = 1, manifest: Sequence[str | None] = ()) -> Vote:
    return Vote.model_validate({"group": GROUP, "op": op, "ballot": ballot, "manifest": list(manifest)})


def answer_of(caller: str, message: Vote) -> Vote:
    async def main() -> Vote:
        return await Network(3).assemble().members["m0"].handle(caller, message)

    return run_on_virtual_time(main())


@pytest.mark.parametrize("op", ["prepare", "accept", "decide"])
def test_only_its_leader_speaks_for_a_ballot(op: str) -> None:
    with pytest.raises(SwarmError, match="does not lead ballot 1"):
        answer_of("m2", vote(op, ballot=1, manifest=COMPLETE))
    assert answer_of("m1", vote(op, ballot=1, manifest=COMPLETE)).ballot == 1
    assert answer_of("m1", vote(op, ballot=4, manifest=COMPLETE)).ballot == 4


@pytest.mark.parametrize("op", ["report", "prepare", "accept", "decide"])
@pytest.mark.parametrize("parts", [1, PARTS - 1, PARTS + 1])
def test_a_wrong_number_of_parts_is_refused(op: str, parts: int) -> None:
    with pytest.raises(SwarmError, match=f"a vote about {parts} parts, there are {PARTS}"):
        answer_of("m1", vote(op, ballot=1, manifest=[None] * parts))


def test_an_accept_below_a_promise_changes_nothing() -> None:
    async def main() -> list[Vote]:
        member = Network(3).assemble().members["m0"]
        return [
            await member.handle("m2", vote("prepare", ballot=2)),
            await member.handle("m1", vote("accept", ballot=1, manifest=COMPLETE)),
            await member.handle("m2", vote("accept", ballot=2, manifest=COMPLETE)),
        ]

    promised, refused, accepted = run_on_virtual_time(main())
    assert (promised.promised, promised.accepted_ballot) == (2, -1)
    assert (refused.promised, refused.accepted_ballot) == (2, -1)
    assert (accepted.promised, accepted.accepted_ballot, tuple(accepted.accepted or ())) == (2, 2, COMPLETE)


def test_what_cannot_be_had_from_anybody_is_not_accepted() -> None:
    invented = (*COMPLETE[:3], digest_of(b"nobody has this"))
    answer = answer_of("m1", vote("accept", ballot=1, manifest=invented))
    assert answer.accepted_ballot == -1
    assert answer.accepted is None
