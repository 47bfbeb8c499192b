"""What a node makes of a coordinator's open sessions: its answer is checked, and the choice is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.errors import ConflictError, ProtocolError
from cotrain.protocol import Hardware
from node.choice import TurnedAwayError
from node.offers import Offer, choice_lines, nothing_open, read_offers

MACHINE = Hardware(memory_bytes=8 * 10**9)
NEAR = Offer("near", "Near", missing_peers=1, memory_bytes=10**9)
FULL = Offer("full", "Full", missing_peers=0, memory_bytes=0)


def item(**changes: Any) -> dict[str, Any]:
    return {"id": "tales", "name": "Tales", "missingPeers": 2, "memoryBytes": 10**9, "status": "waiting", **changes}


def test_the_coordinators_order_is_kept_and_what_else_it_says_is_passed_over() -> None:
    found = read_offers([item(), item(id="b-1", name="an\x1b[2Jother", missingPeers=0)])
    assert [offer.session for offer in found] == ["tales", "b-1"]
    assert found[0] == Offer("tales", "Tales", missing_peers=2, memory_bytes=10**9)
    assert found[1].name == "an�[2Jother"  # names come from strangers


@pytest.mark.parametrize(
    "wrong",
    [{"id": "../../etc"}, {"id": "a/b"}, {"id": ""}, {"id": "a\n"}, {"id": None}, {"name": 3}, {"missingPeers": "1"},
     {"memoryBytes": None}],
)  # fmt: skip
def test_what_is_no_offer_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="open sessions"):
        read_offers([item(), item(**wrong)])


def test_a_choice_is_told_with_its_reason_and_the_others() -> None:
    chosen, others = choice_lines(NEAR, [FULL, Offer("c", "C", 3, 0)])
    assert chosen == (
        "chosen: session near (Near): it lacks 1 node to begin; a node needs about 1.0 GB of memory"
    )  # fmt: skip
    assert others == "also open: full (Full); c (C, lacks 3 nodes)"
    chosen, others = choice_lines(FULL, [])
    assert "none that is open lacks nodes to begin" in chosen
    assert others == "no other session is open for this machine"


@given(st.integers(0, 60))
def test_of_many_others_few_are_named_and_all_counted(count: int) -> None:
    (_, told) = choice_lines(NEAR, [Offer(f"s{number}", "S", 0, 0) for number in range(count)])
    named = told.count("(S)")
    more = int(told.rpartition("; ")[2].removesuffix(" more")) if told.endswith(" more") else 0
    assert named + more == count
    assert named <= 5


def test_nothing_open_says_what_was_asked_and_what_to_do() -> None:
    error = nothing_open("https://c.example", MACHINE, {})
    assert str(error) == (
        "https://c.example: nothing open for this machine: the coordinator was asked for sessions for 8.0 GB of "
        "memory, no GPU (try again later; see all of its sessions with: cotrain sessions list --coordinator https://c.example)"
    )
    assert error.exit_code == 69
    with_gpu = nothing_open("https://c.example", Hardware(memory_bytes=1, gpu_memory_bytes=24 * 10**9), {})
    assert "a GPU of 24.0 GB" in with_gpu.message


def test_sessions_that_turned_the_node_away_are_named_with_their_reasons() -> None:
    reason = TurnedAwayError(ConflictError("a session that is stopped cannot be joined")).reason
    error = nothing_open("https://c.example", MACHINE, {"near": reason.message, "full": "removed"})
    assert "near: a session that is stopped cannot be joined; full: removed" in error.message
    assert error.exit_code == 69
