"""Whom a round owes what, as a peer that was not in it can tell from the round's decision. Pure.

What is known. The reducers of the group, a majority of them by their signatures, agreed on the terms, which hold each
member's weight, and on the averages' bytes, which hold each reducer's claim of whose contributions it had. The bytes
lead to the outer state that the swarm holds. Donors are not believed: the reducers must be all members that the
coordinator certified as such, and the members more than half of the trainers in view, as in every round.

What is not known. The weight is the samples that the peer said it had trained on, at most four times the group's lower
median (`rounds.counted_samples`): nobody can prove training. A claim names the contributions that arrived, also those
that the filter then left out or shortened, and nothing shows that a reducer has left out one that arrived. A donor with
a false decision gets nobody any credit; it can only keep the others from theirs, for that round.
"""

from __future__ import annotations

from collections.abc import Mapping

from cotrain.errors import SwarmError
from cotrain.membership.certificate import Role
from cotrain.swarm.results import FetchedRound
from cotrain.swarm.votes import Electorate


class UncreditedRoundError(SwarmError):
    """A round whose decision does not bear out who was in it."""


def credits_of(
    fetched: FetchedRound, *, session: str, state: str, roles: Mapping[str, Role], trainers: int
) -> dict[str, int]:
    """Samples by peer: its weight, times the share of the averaged values that its contribution was in, rounded down.

    Nothing for parts that counted as zero, or in whose average its contribution was not; who has nothing is left out.

    Args:
        state: digest of the outer state that the round started from.
        roles: of the members whose certificates hold; the others get nothing.
        trainers: in view when the round was fetched.

    Raises UncreditedRoundError, or ForgedVoteError.
    """
    terms, decision = fetched.header.terms, fetched.header.decision
    if (terms.session, terms.state) != (session, state):
        raise UncreditedRoundError("the decision is about another session or state")
    members = [member for member in terms.members if member in roles]
    if 2 * len(members) <= trainers:
        raise UncreditedRoundError(f"{len(members)} certified members are no majority of {trainers} trainers")
    if set(terms.reducers) != {member for member in members if roles[member] == "reduce"}:
        raise UncreditedRoundError("the decision's voters are not the certified reducers among the members")
    if sum(terms.weights) > fetched.header.samples:
        raise UncreditedRoundError("the weights are more than the round's samples")
    Electorate.of(terms).check_decision(decision)
    shares = zip(terms.members, terms.weights, fetched.values_in, strict=True)
    credits = {member: weight * values // terms.numel for member, weight, values in shares if member in roles}
    return {member: samples for member, samples in credits.items() if samples}
