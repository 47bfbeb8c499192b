"""Whom a round owes what: what the group's certified reducers have signed for, and nothing for anything else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cotrain.errors import SwarmError
from cotrain.swarm.credit import credits_of
from cotrain.swarm.results import FetchedRound, RoundHeader
from cotrain.swarm.terms import GroupTerms
from cotrain.swarm.votes import Electorate, decision_of, manifest_hash
from tests.swarm_signers import signer
from tests.unit.audited_peers import NUMEL, Peers

STATE = "a" * 64


def fetched(
    values_in: tuple[int, ...] = (NUMEL,) * 3, *, voters: tuple[int, ...] = (0, 1, 2), **terms: Any
) -> FetchedRound:
    """A round of three peers with 8 samples each, decided by these voters' reports."""
    made = GroupTerms.model_validate(Peers(3).terms().model_dump() | terms)
    manifest = tuple("b" * 64 for _ in made.parts)
    votes = [Electorate.of(made).vote(signer(n), "report", 0, manifest_hash(manifest)) for n in voters]
    header = RoundHeader(terms=made, decision=decision_of(manifest, votes), samples=24, positions=24)
    return FetchedRound(header, values_in)


def credits(found: FetchedRound, trainers: int = 3, **changed: Any) -> dict[str, int]:
    roles = dict.fromkeys(found.header.terms.members, "reduce") | changed.pop("roles", {})
    given = {"session": "test", "state": STATE, "roles": {k: v for k, v in roles.items() if v}} | changed
    return credits_of(found, trainers=trainers, **given)


def test_each_member_has_its_weight() -> None:
    members = fetched().header.terms.members
    assert credits(fetched(weights=(8, 4, 12))) == dict(zip(members, (8, 4, 12), strict=True))


def test_what_was_not_in_the_average_is_not_credited() -> None:
    """A member whose contribution reached one half of the values has half, whose reached none has nothing."""
    first, second, _ = fetched().header.terms.members
    assert credits(fetched((NUMEL, NUMEL // 2, 0))) == {first: 8, second: 4}
    assert credits(fetched((0, 0, 0))) == {}
    third = fetched().header.terms.members[2]
    assert third not in credits(fetched(weights=(8, 8, 0)))


def test_a_round_is_credited_only_where_it_continues_the_state_of_this_session() -> None:
    for wrong in ({"session": "other"}, {"state": "c" * 64}):
        with pytest.raises(SwarmError, match="another session or state"):
            credits(fetched(), **wrong)


def test_a_minority_credits_nothing() -> None:
    assert len(credits(fetched(), trainers=5)) == 3
    with pytest.raises(SwarmError, match="no majority of 6"):
        credits(fetched(), trainers=6)


def test_nobody_makes_up_a_group() -> None:
    """A member that signs alone for terms of its own is not believed, whatever it says of the others."""
    alone = signer(0).peer_id
    with pytest.raises(SwarmError, match="not the certified reducers"):
        credits(
            fetched(voters=(0,), reducers=(alone,), shares=tuple(int(m == alone) for m in Peers(3).terms().members))
        )
    stranger = fetched().header.terms.members[1]
    with pytest.raises(SwarmError, match="not the certified reducers"):
        credits(fetched(), roles={stranger: None})
    with pytest.raises(SwarmError, match="not the certified reducers"):
        credits(fetched(), roles={stranger: "contribute"})


def test_a_decision_that_its_signatures_do_not_bear_out_credits_nothing() -> None:
    with pytest.raises(SwarmError, match="signatures hold"):
        credits(fetched(voters=(0, 1)))
    found = fetched()
    raised = GroupTerms.model_validate(found.header.terms.model_dump() | {"weights": (0, 0, 24)})
    with pytest.raises(SwarmError, match="signatures hold"):
        credits(replace(found, header=found.header.model_copy(update={"terms": raised})))


def test_more_weight_than_the_round_has_samples_credits_nothing() -> None:
    with pytest.raises(SwarmError, match="more than the round's samples"):
        credits(fetched(weights=(8, 8, 9)))


def test_a_contributor_without_a_certificate_that_holds_gets_nothing_and_takes_nothing_from_others() -> None:
    members = Peers(3, contributors=1).terms()
    gone = next(member for member in members.members if member not in members.reducers)
    voters = (0, 1)
    found = fetched(voters=voters, reducers=members.reducers, shares=members.shares)
    assert credits(found, roles={gone: None}) == dict.fromkeys(members.reducers, 8)
