"""Laws of the queue: limits, datasets, order, and that nobody starves; which sessions suit a node."""

from __future__ import annotations

from collections import Counter, deque
from itertools import combinations, count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.needs import dataset_key, needs_of
from coordinator.scheduler import (
    Needs,
    Offer,
    QueueLimits,
    Task,
    awaited_peers,
    best_first,
    decide,
    none_is_large_enough,
    too_small,
)
from cotrain.config import RunConfig, dump_config
from cotrain.errors import ConfigError
from cotrain.estimate import MemoryEstimate, fits
from cotrain.paths import SharedPaths
from cotrain.request import SessionRequest

GIB = 2**30


@st.composite
def tasks(draw: st.DrawFn) -> list[Task]:
    """Sessions of few owners on few datasets."""
    facts = st.builds(
        Task, session=st.just(""), owner=st.sampled_from("abc"), dataset=st.sampled_from(["", "x", "y"]),
        shares_dataset=st.booleans(), priority=st.integers(0, 2), asked_at=st.integers(0, 5).map(float),
    )  # fmt: skip
    return [
        Task(f"s{number}", task.owner, task.dataset, task.shares_dataset, task.priority, task.asked_at)
        for number, task in enumerate(draw(st.lists(facts, max_size=12)))
    ]


limits = st.builds(QueueLimits, in_all=st.integers(1, 6), per_owner=st.integers(1, 4))


def split(everybody: list[Task], bound: QueueLimits, waiting: int) -> tuple[list[Task], list[Task]]:
    """Some that wait, and of the others those that could have been let out before."""
    pending, others = everybody[:waiting], everybody[waiting:]
    started = set(decide(others, [], bound).start)
    return pending, [task for task in others if task.session in started]


# ---------------------------------------------------------------------------------------------- laws
@given(tasks(), limits, st.integers(0, 12), st.data())
def test_the_order_in_which_things_are_told_does_not_matter(
    everybody: list[Task], bound: QueueLimits, waiting: int, data: st.DataObject
) -> None:
    pending, running = split(everybody, bound, waiting)
    decision = decide(pending, running, bound)
    assert decide(data.draw(st.permutations(pending)), data.draw(st.permutations(running)), bound) == decision


@given(tasks(), limits, st.integers(0, 12))
def test_no_limit_is_exceeded_and_nobody_is_forgotten(everybody: list[Task], bound: QueueLimits, waiting: int) -> None:
    pending, running = split(everybody, bound, waiting)
    decision = decide(pending, running, bound)
    after = running + [task for task in pending if task.session in decision.start]
    assert len(after) <= bound.in_all
    assert all(held <= bound.per_owner for held in Counter(task.owner for task in after).values())
    assert {task.session for task in pending} == {*decision.start, *decision.waiting}
    assert not set(decision.start) & set(decision.waiting)
    assert all(reason.message for reason in decision.waiting.values())


@given(tasks(), limits, st.integers(0, 12))
def test_a_dataset_has_one_session_or_only_those_that_share(
    everybody: list[Task], bound: QueueLimits, waiting: int
) -> None:
    pending, running = split(everybody, bound, waiting)
    started = decide(pending, running, bound).start
    after = running + [task for task in pending if task.session in started]
    for one, other in combinations(after, 2):
        if one.dataset and one.dataset == other.dataset:
            assert (one.shares_dataset, other.shares_dataset) == (True, True)


@given(tasks(), limits, st.integers(0, 12))
def test_what_is_decided_stands_until_something_changes(
    everybody: list[Task], bound: QueueLimits, waiting: int
) -> None:
    pending, running = split(everybody, bound, waiting)
    first = decide(pending, running, bound)
    left = [task for task in pending if task.session in first.waiting]
    after = running + [task for task in pending if task.session in first.start]
    again = decide(left, after, bound)
    assert again.start == ()
    assert {name: reason.code for name, reason in again.waiting.items()} == {
        name: reason.code for name, reason in first.waiting.items()
    }


@given(tasks(), limits, st.integers(0, 12))
def test_whoever_only_lacks_room_is_passed_by_nobody_behind_it(
    everybody: list[Task], bound: QueueLimits, waiting: int
) -> None:
    pending, running = split(everybody, bound, waiting)
    decision = decide(pending, running, bound)
    by_name = {task.session: task for task in pending}
    lacking_room = [by_name[name] for name, reason in decision.waiting.items() if reason.code == "limit"]
    held = Counter(task.owner for task in running)
    for name in decision.start:
        started = by_name[name]
        for task in lacking_room:
            assert (-started.priority, held[started.owner], started.asked_at) <= (
                -task.priority, held[task.owner], task.asked_at,
            )  # fmt: skip
        held[started.owner] += 1


@given(tasks(), limits)
def test_a_session_alone_in_the_queue_of_an_idle_coordinator_starts(everybody: list[Task], bound: QueueLimits) -> None:
    for task in everybody:
        assert decide([task], [], bound).start == (task.session,)


@given(
    st.lists(st.tuples(st.sampled_from(["", "x", "y"]), st.booleans()), min_size=1, max_size=6),
    st.lists(
        st.lists(st.tuples(st.sampled_from(["", "x", "y"]), st.booleans(), st.booleans()), max_size=3),
        min_size=1, max_size=5,
    ),
    st.integers(1, 3),
)  # fmt: skip
def test_among_equals_everybody_gets_its_turn_whatever_comes_later(
    first: list[tuple[str, bool]], newcomers: list[list[tuple[str, bool, bool]]], in_all: int
) -> None:
    """The newcomers come again and again; each session ends before those that started after it."""
    bound, clock = QueueLimits(in_all, in_all), count()
    pending = [Task(f"first{n}", f"owner{n}", *facts, asked_at=next(clock)) for n, facts in enumerate(first)]
    targets = {task.session for task in pending}
    running: deque[Task] = deque()
    for step in range((len(first) + in_all) * (in_all + 1)):
        for dataset, shares, new_owner in newcomers[step % len(newcomers)]:
            moment = next(clock)
            owner = f"new{moment}" if new_owner else "flood"
            pending.append(Task(f"s{moment}", owner, dataset, shares, asked_at=moment))
        for name in decide(pending, running, bound).start:
            running.append(next(task for task in pending if task.session == name))
        pending = [task for task in pending if task not in running]
        if running:
            running.popleft()
    assert targets.isdisjoint(task.session for task in pending)


# ---------------------------------------------------------------------------------------------- cases
WIDE = QueueLimits(9, 9)


def waiting_code(task: Task, running: list[Task], bound: QueueLimits) -> tuple[str, str]:
    reason = decide([task], running, bound).waiting[task.session]
    return reason.code, reason.message


def test_one_reason_is_given_and_what_the_owner_can_change_comes_first() -> None:
    mine, theirs = Task("mine", "a", "x"), Task("theirs", "b", "x")
    assert waiting_code(Task("new", "a", "x"), [mine], QueueLimits(1, 1)) == (
        "owner-limit", "its owner has 1 session under way, and may have 1: one must end first",
    )  # fmt: skip
    code, message = waiting_code(Task("new", "a", "x"), [theirs], QueueLimits(1, 1))
    assert code == "dataset"
    assert message.startswith("session theirs trains on the same data")
    assert waiting_code(Task("new", "a", "y"), [mine, theirs], QueueLimits(2, 2)) == (
        "limit", "this coordinator has 2 sessions under way, and carries 2: one must end first",
    )  # fmt: skip


def test_an_owner_with_fewer_sessions_goes_before_one_who_asked_earlier() -> None:
    running = [Task("r", "busy")]
    pending = [Task("early", "busy", asked_at=1), Task("late", "idle", asked_at=2)]
    assert decide(pending, running, QueueLimits(2, 2)).start == ("late",)
    assert decide([*pending, Task("urgent", "busy", priority=1)], running, QueueLimits(2, 2)).start == ("urgent",)


def test_who_shares_does_not_overtake_who_wants_the_data_alone() -> None:
    running = [Task("r", "a", "x", True)]
    alone, later, earlier = Task("alone", "b", "x", asked_at=2), Task("later", "c", "x", True, asked_at=3), 1.0
    decision = decide([alone, later], running, WIDE)
    assert decision.start == ()
    assert "session alone was first to ask" in decision.waiting["later"].message
    assert decide([alone, Task("old", "c", "x", True, asked_at=earlier)], running, WIDE).start == ("old",)


def test_a_private_session_that_is_waited_for_is_not_named() -> None:
    hidden = Task("hidden", "a", "x", is_private=True)
    assert "a private session trains on the same data" in waiting_code(Task("new", "b", "x"), [hidden], WIDE)[1]
    shared, alone = Task("shared", "a", "x", True), Task("alone", "b", "x", asked_at=1, is_private=True)
    reason = decide([alone, Task("later", "c", "x", True, asked_at=2)], [shared], WIDE).waiting["later"]
    assert reason.message.startswith("a private session was first to ask")


def test_the_built_in_corpus_and_other_data_are_nobodys_reason_to_wait() -> None:
    pending = [Task("a", "o"), Task("b", "o"), Task("c", "o", "x"), Task("d", "o", "y")]
    assert set(decide(pending, [], WIDE).start) == {"a", "b", "c", "d"}


# ---------------------------------------------------------------------------------------------- nodes
def memory(total_bytes: int, gpu_bytes: int = 0) -> MemoryEstimate:
    """What needs this much; with GPUs, each needs GPU_PROGRAM_BYTES and this much more."""
    own = {"weights_bytes": gpu_bytes, "program_bytes": total_bytes}
    rest = dict.fromkeys(
        ("gradients_bytes", "optimizer_bytes", "activations_bytes", "outer_state_bytes", "averaging_bytes",
         "rounds_bytes"), 0,
    )  # fmt: skip
    return MemoryEstimate(devices=1 if gpu_bytes else 0, **own, **rest)


def test_a_node_that_does_not_know_its_memory_is_trusted() -> None:
    assert too_small(memory(10 * GIB), 0) == ""
    assert too_small(None, 1) == ""
    assert too_small(memory(10 * GIB), 20 * GIB) == ""
    assert too_small(memory(10 * GIB), 8 * GIB) == fits(memory(10 * GIB), 8 * GIB) != ""
    assert too_small(memory(1 * GIB, gpu_bytes=30 * GIB), 20 * GIB, 0) == ""
    assert "a GPU needs about 31.0 GiB" in too_small(memory(1 * GIB, gpu_bytes=30 * GIB), 20 * GIB, 24 * GIB)


@pytest.mark.parametrize(
    ("reported", "code", "message"),
    [
        ((), "peers", "2 nodes are needed, 0 are here"),
        ((0,), "peers", "2 nodes are needed, 1 are here"),
        ((16 * GIB, 8 * GIB), "memory", "2 nodes are needed, 1 of 2 are large enough: a node needs about 10.0 GiB"),
        ((16 * GIB, 0, 8 * GIB), "joining", "the nodes that are here"),
    ],
)
def test_an_open_session_says_what_it_waits_for(reported: tuple[int, ...], code: str, message: str) -> None:
    reason = awaited_peers(Needs(memory(10 * GIB), min_peers=2), reported)
    assert reason.code == code
    assert reason.message.startswith(message)
    offer = Offer("s", Needs(memory(10 * GIB), 2), reported, 5, 0.0)
    assert (offer.missing_peers == 0) == (code == "joining")


def test_a_session_of_unknown_size_counts_heads() -> None:
    needs = Needs(None, min_peers=2)
    assert awaited_peers(needs, [1]).message == "2 nodes are needed, 1 are here"
    assert awaited_peers(needs, [1, 1]).code == "joining"


def test_the_best_session_for_a_node_is_the_one_that_it_helps_to_begin() -> None:
    small, large = Needs(memory(1 * GIB), 2), Needs(memory(100 * GIB), 2)
    begun = Offer("begun", small, (0, 0), 9, 0.0)
    one, both = Offer("one", small, (0,), 0, 5.0), Offer("both", small, (), 9, 0.0)
    urgent, older = Offer("urgent", small, (0,), 1, 9.0), Offer("older", small, (0,), 0, 4.0)
    too_large = Offer("large", large, (0,), 9, 0.0)
    everything = [begun, both, one, too_large, older, urgent]
    names = [offer.session for offer in best_first(everything, 8 * GIB)]
    assert names == ["urgent", "older", "one", "both", "begun"]
    assert best_first(everything)[0] == too_large
    assert best_first(everything, 200 * GIB)[0] == too_large


def test_advice_is_given_only_where_no_known_node_would_do() -> None:
    needed = memory(100 * GIB)
    assert none_is_large_enough(needed, []) == ""
    assert none_is_large_enough(needed, [8 * GIB, 0]) == ""
    assert none_is_large_enough(needed, [8 * GIB, 200 * GIB]) == ""
    assert "one of 16.0 GiB" in none_is_large_enough(needed, [8 * GIB, 16 * GIB])


# ---------------------------------------------------------------------------------------------- configs
def config_of(**fields: object) -> RunConfig:
    return SessionRequest.model_validate({"name": "n", **fields}).to_config("s")


def test_needs_are_read_from_the_config() -> None:
    needs = needs_of(dump_config(config_of(distributed={"nodes": 3, "minPeers": 2})))
    assert needs.min_peers == 2
    assert needs.memory is not None
    assert 0 < needs.memory.total_bytes < 8 * GIB
    giant = needs_of(dump_config(config_of(model={"type": "llama3", "size": "70B"})))
    assert too_small(giant.memory, 8 * GIB)


def test_nothing_is_known_of_a_config_that_cannot_be_read() -> None:
    assert needs_of("schema_version = 0") == Needs(memory=None, min_peers=1)


def test_the_same_data_has_the_same_key(tmp_path: Path) -> None:
    shared = SharedPaths(tmp_path)

    def key(**data: str) -> str:
        return dataset_key(config_of(data=data), shared)

    assert key() == ""
    assert key(dataPath="a/../book.txt") == key(dataPath="book.txt") != key(dataPath="other.txt")
    assert key(dataset="Some/Data") == key(dataset="some/data ") != key(dataset="some/more")
    assert len({key(dataPath="book.txt"), key(dataset="book.txt")}) == 2
    with pytest.raises(ConfigError):
        key(dataPath="../secret")
