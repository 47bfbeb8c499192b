"""Agreement over a network in memory, on a clock that runs only when nobody has anything to do.

The same coroutines as over libp2p, driven through thousands of seconds of timeouts at once; a seed gives the same
run again. Members have real keys and sign for real.
"""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotrain.errors import SwarmError
from cotrain.swarm.commit import Agreement
from cotrain.swarm.links import Answer, Vote
from cotrain.swarm.parts import Manifest
from cotrain.swarm.repair import NoDecision
from tests.unit.agreement_network import COMPLETE, PARTS, TIMEOUT_S, Faults, Network, decisions_of, run_on_virtual_time


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
    network = Network(3, Faults(missing=missing))
    decided, _ = decisions_of(network)
    assert decided == dict.fromkeys(network.names, COMPLETE)


def test_a_part_that_nobody_holds_counts_as_zero() -> None:
    network = Network(3, Faults(missing=frozenset({(0, 2), (1, 2), (2, 2)})))
    decided, _ = decisions_of(network)
    expected = (*COMPLETE[:2], None, COMPLETE[3])
    assert decided == dict.fromkeys(network.names, expected)


@pytest.mark.parametrize("dead", [(0,), (1,), (0, 1), (3, 4)])
def test_a_majority_decides_without_the_dead(dead: tuple[int, ...]) -> None:
    network = Network(5, Faults(crashes=dict.fromkeys(dead, 0)))
    decided, failed = decisions_of(network)
    assert decided == {network.names[i]: COMPLETE for i in range(5) if i not in dead}
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


@settings(max_examples=150, derandomize=True)
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


@settings(max_examples=200, derandomize=True)
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


def test_a_member_that_could_be_told_nothing_asks_in_the_end() -> None:
    class Deaf(Agreement):
        """Hears no vote, and gets no answer to any but the last question."""

        async def handle(self, caller: str, vote: Vote) -> Answer:
            raise ConnectionError

        async def _call(self, peer: str, vote: Vote) -> Answer:
            if vote.op != "ask":
                await asyncio.sleep(TIMEOUT_S)
                raise TimeoutError
            return await super()._call(peer, vote)

    async def main() -> dict[str, Manifest | Exception]:
        network = Network(3).assemble()
        network.members[network.names[2]].__class__ = Deaf
        return await network.run()

    assert set(run_on_virtual_time(main()).values()) == {COMPLETE}


# ---------------------------------------------------------------------------------------------- contributors
@pytest.mark.parametrize(("reducers", "contributors"), [(1, 1), (2, 1), (3, 3)])
def test_contributors_get_what_the_reducers_decide_and_are_asked_nothing(reducers: int, contributors: int) -> None:
    missing = frozenset((reducers + i, part) for i in range(contributors) for part in range(i + 1))
    network = Network(reducers, Faults(missing), contributors=contributors)
    decided, failed = decisions_of(network)
    assert decided == dict.fromkeys(network.names, COMPLETE)
    assert failed == {}
    assert network.messages["report"] == network.messages["decide"] == reducers - 1
    assert network.messages["prepare"] == network.messages["accept"] == 0


def test_a_contributor_goes_on_to_another_reducer_and_gives_up_when_none_decides() -> None:
    network = Network(3, Faults(crashes={0: 0}), contributors=1)
    decided, _ = decisions_of(network)
    assert decided[network.names[3]] == COMPLETE
    network = Network(3, Faults(crashes={0: 0, 1: 0}), contributors=1)
    decided, failed = decisions_of(network)
    assert decided == {}
    assert set(failed) == set(network.names[2:])
