"""Votes and decisions count for what their signatures bear out; who signs what contradicts is found out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotrain.errors import SwarmError
from cotrain.swarm.commit import Agreement
from cotrain.swarm.links import Answer, Vote
from cotrain.swarm.parts import Manifest, digest_of
from cotrain.swarm.votes import (
    Decision,
    Electorate,
    ForgedVoteError,
    Promise,
    SignedVote,
    contradict,
    decision_of,
    manifest_hash,
)
from tests.swarm_signers import signer
from tests.unit.agreement_network import (
    COMPLETE,
    GROUP,
    PARTS,
    TIMEOUT_S,
    Faults,
    Network,
    electorate,
    run_on_virtual_time,
)


def report(number: int, manifest: Manifest = COMPLETE, *, ballot: int = 0, voters: Electorate | None = None) -> Vote:
    signed = (voters or electorate(3)).vote(signer(number), "report", 0, manifest_hash(manifest))
    return Vote(group=GROUP, op="report", ballot=ballot, manifest=list(manifest), signed=signed)


def promises(
    ballot: int, *numbers: int, accepted: SignedVote | None = None, reported: str | None = None
) -> list[Promise]:
    return [electorate(3).promise(signer(number), ballot, reported, accepted) for number in numbers]


def proposal(number: int, ballot: int, manifest: Manifest = COMPLETE, shown: Sequence[Promise] = ()) -> Vote:
    signed = electorate(3).vote(signer(number), "accept", ballot, manifest_hash(manifest))
    return Vote(
        group=GROUP, op="accept", ballot=ballot, manifest=list(manifest), signed=signed, promises=list(shown)
    )  # fmt: skip


def answers_of(*messages: tuple[int, Vote], at: int = 0, contributors: int = 0) -> list[Answer]:
    """What one member answers to messages of (caller, vote), one after the other."""

    async def main() -> list[Answer]:
        network = Network(3, contributors=contributors).assemble()
        member = network.members[network.names[at]]
        return [await member.handle(network.names[caller], vote) for caller, vote in messages]

    return run_on_virtual_time(main())


def votes(op: str, ballot: int, manifest: Manifest, *numbers: int, voters: Electorate | None = None) -> Decision:
    chosen = voters or electorate(3)
    signed = [chosen.vote(signer(n), op, ballot, manifest_hash(manifest)) for n in numbers]  # type: ignore[arg-type]
    return decision_of(manifest, signed)


def told(decision: Decision) -> Vote:
    return Vote(group=GROUP, op="decide", ballot=decision.ballot, decision=decision)


@pytest.mark.parametrize("op", ["prepare", "accept"])
@pytest.mark.parametrize("ballot", [0, 1, 3, 4])
def test_only_its_leader_speaks_for_a_ballot_and_each_leads_one(op: str, ballot: int) -> None:
    with pytest.raises(SwarmError, match=f"does not lead ballot {ballot}"):
        answers_of((2, Vote(group=GROUP, op=op, ballot=ballot, manifest=list(COMPLETE))))  # type: ignore[arg-type]


@pytest.mark.parametrize("op", ["report", "accept"])
@pytest.mark.parametrize("parts", [1, PARTS - 1, PARTS + 1])
def test_a_wrong_number_of_parts_is_refused(op: str, parts: int) -> None:
    with pytest.raises(SwarmError, match=f"a vote about {parts} parts, there are {PARTS}"):
        answers_of((1, Vote(group=GROUP, op=op, ballot=1, manifest=[None] * parts)))  # type: ignore[arg-type]
    short = (None,) * parts
    with pytest.raises(SwarmError, match=f"a decision about {parts} parts"):
        answers_of((1, told(votes("accept", 1, short, 1, 2))))


def test_a_contributor_may_only_ask() -> None:
    for op in ("report", "prepare", "accept", "decide"):
        with pytest.raises(SwarmError, match="it may only ask"):
            answers_of((3, Vote(group=GROUP, op=op, manifest=list(COMPLETE))), contributors=1)  # type: ignore[arg-type]
    (answer,) = answers_of((3, Vote(group=GROUP, op="ask")), contributors=1)
    assert answer.decision is None
    with pytest.raises(SwarmError, match="takes no votes"):
        answers_of((1, report(1)), at=3, contributors=1)


def test_a_report_counts_only_with_the_reporters_own_signature_over_what_it_reports() -> None:
    other: Manifest = (*COMPLETE[:3], None)
    mine, theirs = report(1), report(2)
    forged = [
        mine.model_copy(update={"signed": theirs.signed}),  # another's
        mine.model_copy(update={"manifest": list(other)}),  # over something else
        mine.model_copy(update={"signed": theirs.signed.model_copy(update={"voter": signer(1).peer_id})}),  # type: ignore[union-attr]
    ]
    for message in forged:
        with pytest.raises(ForgedVoteError):
            answers_of((1, message))


ELSEWHERE = [
    electorate(3, group="cd"),
    electorate(3, terms="d" * 64),
    electorate(3, round_=4),
]


@pytest.mark.parametrize("elsewhere", ELSEWHERE, ids=["group", "terms", "round"])
def test_votes_of_another_group_terms_or_round_count_for_nothing(elsewhere: Electorate) -> None:
    with pytest.raises(ForgedVoteError, match="false signature"):
        answers_of((1, report(1, voters=elsewhere)))
    with pytest.raises(ForgedVoteError, match="0 of 3 signatures hold"):
        answers_of((1, told(votes("accept", 1, COMPLETE, 0, 1, 2, voters=elsewhere))))
    promised = [elsewhere.promise(signer(n), 1, None, None) for n in (1, 2)]
    with pytest.raises(ForgedVoteError, match="without the promises"):
        answers_of((1, proposal(1, 1, shown=promised)))


@pytest.mark.parametrize(
    ("op", "ballot", "voters", "believed"),
    [
        ("report", 0, (0, 1, 2), True),
        ("report", 0, (0, 1), False),  # the fast path takes everybody
        ("report", 1, (0, 1, 2), False),
        ("accept", 1, (1, 2), True),
        ("accept", 1, (1,), False),
        ("accept", 1, (1, 1), False),
        ("accept", 1, (1, 3), False),  # m3 is none of them
        ("accept", 1, (1, 2, 3), False),  # nor may anything stand in a decision that is no vote
        ("accept", 3, (1, 2), False),  # there is no such ballot
    ],
)
def test_a_decision_is_believed_for_its_quorum_only(
    op: str, ballot: int, voters: tuple[int, ...], believed: bool
) -> None:
    message = told(votes(op, ballot, COMPLETE, *voters))
    if believed:
        _, asked = answers_of((2, message), (2, Vote(group=GROUP, op="ask")))
        assert asked.decision == message.decision
    else:
        with pytest.raises(ForgedVoteError):
            answers_of((2, message))


def test_a_decisions_signatures_hold_for_its_own_manifest_only() -> None:
    decision = votes("accept", 1, COMPLETE, 1, 2).model_copy(update={"manifest": [None] * PARTS})
    with pytest.raises(ForgedVoteError, match="0 of 2 signatures hold"):
        answers_of((1, told(decision)))


def test_a_contributor_believes_no_forged_decision() -> None:
    class Liar(Agreement):
        async def handle(self, caller: str, vote: Vote) -> Answer:
            return Answer(op=vote.op, decision=votes("accept", 1, (None,) * PARTS, 0))

    async def main() -> Manifest:
        network = Network(2, contributors=1).assemble()
        network.members[network.names[0]].__class__ = Liar
        honest = network.members[network.names[1]]
        honest._take_decision(votes("report", 0, COMPLETE, 0, 1, voters=electorate(2)))  # type: ignore[union-attr]
        return await network.members[network.names[2]].decide()

    assert run_on_virtual_time(main()) == COMPLETE


def test_an_accept_below_a_promise_changes_nothing() -> None:
    promised, refused, accepted = answers_of(
        (2, Vote(group=GROUP, op="prepare", ballot=2)),
        (1, proposal(1, 1, shown=promises(1, 1, 2))),
        (2, proposal(2, 2, shown=promises(2, 1, 2))),
    )
    assert promised.promise is not None
    assert electorate(3).has_promised(promised.promise)
    assert refused.signed is None
    assert accepted.signed is not None
    assert electorate(3).has_voted(accepted.signed)


def test_nobody_promises_twice_for_a_ballot_or_below_one() -> None:
    prepare = [(ballot, Vote(group=GROUP, op="prepare", ballot=ballot)) for ballot in (2, 2, 1)]
    assert [answer.promise is None for answer in answers_of(*prepare)] == [False, True, True]


def test_what_cannot_be_had_from_anybody_is_not_accepted() -> None:
    invented = (*COMPLETE[:3], digest_of(b"nobody has this"))
    (answer,) = answers_of((1, proposal(1, 1, invented, promises(1, 1, 2))))
    assert answer.signed is None


OTHER: Manifest = (*COMPLETE[:3], None)
"""Another manifest whose bytes everybody holds."""


def test_a_proposer_must_show_promises_that_leave_it_the_choice() -> None:
    earlier = electorate(3).vote(signer(0), "accept", 0, manifest_hash(COMPLETE))
    not_leaders = electorate(3).vote(signer(2), "accept", 0, manifest_hash(OTHER))
    all_reported = promises(1, 1, 2, reported=manifest_hash(COMPLETE))
    for shown, why in [
        (promises(1, 1), "without the promises"),
        (promises(1, 1) * 2, "without the promises"),
        (promises(2, 1, 2), "without the promises"),
        (promises(1, 1, 2, accepted=not_leaders), "without the promises"),
        (promises(1, 1) + promises(1, 2, accepted=earlier), "another manifest"),
        (all_reported, "another manifest"),
    ]:
        with pytest.raises(ForgedVoteError, match=why):
            answers_of((1, proposal(1, 1, OTHER, shown)))
    for shown in (promises(1, 1, 2), promises(1, 1) + promises(1, 2, reported=manifest_hash(COMPLETE))):
        (answer,) = answers_of((1, proposal(1, 1, OTHER, shown)))
        assert answer.signed is not None


# ---------------------------------------------------------------------------------------------- a liar among them
class Proposer:
    """A liar, m0 or another, which has its own key and says what it likes; the others are honest."""

    def __init__(self, network: Network, number: int):
        self.network, self.number, self.key = network, number, signer(number)
        self.promises: list[Promise] = []
        self.accepts: dict[str, list[SignedVote]] = {}

    async def send(self, to: int, vote: Vote) -> Answer | None:
        member = self.network.members[self.network.names[to]]
        try:
            return await member.handle(self.key.peer_id, vote)
        except SwarmError:
            return None

    async def prepare(self, to: int) -> None:
        answer = await self.send(to, Vote(group=GROUP, op="prepare", ballot=self.number))
        if answer is not None and answer.promise is not None:
            self.promises.append(answer.promise)

    async def propose(self, to: int, manifest: Manifest, before: SignedVote | None, reported: str | None) -> None:
        """With what it likes to say of itself among the promises."""
        body = self.network.electorate
        mine = body.promise(self.key, self.number, reported, before)
        signed = body.vote(self.key, "accept", self.number, manifest_hash(manifest))
        message = Vote(
            group=GROUP, op="accept", ballot=self.number, manifest=list(manifest), signed=signed,
            promises=[mine, *self.promises],
        )  # fmt: skip
        answer = await self.send(to, message)
        if answer is not None and answer.signed is not None:
            self.accepts.setdefault(answer.signed.manifest, [signed]).append(answer.signed)

    async def tell(self, to: int, manifest: Manifest) -> None:
        found = self.accepts.get(manifest_hash(manifest), [])
        if found:
            decision = decision_of(manifest, found)
            await self.send(to, Vote(group=GROUP, op="decide", ballot=self.number, decision=decision))


def test_a_leader_that_tells_two_stories_is_found_out() -> None:
    async def main() -> Network:
        network = Network(3).assemble()
        liar = Proposer(network, 0)
        for to in (1, 2):
            await liar.prepare(to)
        for to, manifest in ((1, COMPLETE), (2, OTHER)):
            await liar.propose(to, manifest, None, None)
            await liar.tell(to, manifest)
        await asyncio.sleep(10 * TIMEOUT_S)  # what the honest pass on arrives
        return network

    network = run_on_virtual_time(main())
    decided = [network.members[name].decision for name in network.names[1:]]
    assert [tuple(decision.manifest) for decision in decided if decision] == [COMPLETE, OTHER]
    assert network.contradictions
    for first, second in network.contradictions:
        assert first.voter == second.voter == network.names[0]
        assert network.electorate.has_voted(first)  # type: ignore[arg-type]
        assert network.electorate.has_voted(second)  # type: ignore[arg-type]
        assert contradict(first, second)


liars_acts = st.lists(
    st.tuples(
        st.sampled_from(["prepare", "propose", "tell", "decide"]),
        st.integers(0, 4),  # to whom, or who decides
        st.sampled_from([COMPLETE, OTHER]),
        st.sampled_from([None, COMPLETE, OTHER]),  # what the liar says that it accepted, or reported
        st.booleans(),
    ),
    max_size=14,
)


@settings(max_examples=250, derandomize=True)
@given(st.integers(3, 5), st.integers(0, 4), liars_acts, st.integers(0, 2**32))
def test_one_liar_makes_two_decisions_only_at_the_price_of_two_signatures_that_contradict(
    count: int, number: int, acts: list[tuple[str, int, Manifest, Manifest | None, bool]], seed: int
) -> None:
    number %= count

    async def main() -> Network:
        network = Network(count, Faults(missing=frozenset({(1, 3), (2, 3)})), seed).assemble()
        liar = Proposer(network, number)
        honest = [i for i in range(count) if i != number]
        deciding = []
        for act, to, manifest, claim, about_accept in acts:
            to = honest[to % len(honest)]
            if act == "prepare":
                await liar.prepare(to)
            elif act == "propose":
                said = None if claim is None else manifest_hash(claim)
                before = network.electorate.vote(liar.key, "accept", number, said) if said and about_accept else None
                await liar.propose(to, manifest, before, None if about_accept else said)
            elif act == "tell":
                await liar.tell(to, manifest)
            else:
                deciding.append(asyncio.create_task(network._decide(network.names[to])))
                await asyncio.sleep(TIMEOUT_S)
        await asyncio.gather(*deciding)
        await asyncio.sleep(20 * TIMEOUT_S)
        return network

    network = run_on_virtual_time(main())
    liar_id = network.names[number]
    decided = {tuple(m.decision.manifest) for n, m in network.members.items() if n != liar_id and m.decision}
    accused = {word.voter for pair in network.contradictions for word in pair}
    assert accused <= {liar_id}, "an honest member is accused"
    assert len(decided) <= 1 or accused == {liar_id}
