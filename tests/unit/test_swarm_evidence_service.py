"""Evidence on its way to the checkpointer: bounded, judged by nobody's word, kept until it is delivered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from hypothesis import given, settings
from hypothesis import strategies as st

from cotrain.swarm import evidence_service
from cotrain.swarm.evidence import Body, Evidence, EvidenceError, FalsePart, TwoVotes, accuse
from cotrain.swarm.evidence import Testimony as WitnessTestimony
from cotrain.swarm.evidence_courier import MOST_PROOFS, MOST_TESTIMONIES, Outbox
from cotrain.swarm.evidence_service import (
    MOST_PER_ROUND,
    PIECE_BYTES,
    Answer,
    EvidenceService,
    Offer,
    Quota,
    collect_pieces,
    transfer_limit_s,
)
from cotrain.swarm.judgement import Judgement, SessionFacts, judge, terms_of
from cotrain.swarm.votes import Electorate
from tests.membership_fixtures import gate_and_caller
from tests.swarm_signers import signer
from tests.unit.audited_peers import NOW, NUMEL, Closed, Peers, noisy, part_of

FACTS = SessionFacts("test", (NUMEL,), "int4", "filter")
LIAR, WITNESS = 2, 0


def content_of(evidence: Evidence) -> bytes:
    return evidence.model_dump_json().encode()


HONEST = Peers(4).close()


def lie_of() -> Closed:
    """A round in which a reducer signs for an average that it did not make, after one in which nobody lied."""
    peers = Peers(3, round=3)
    peers.close()
    return peers.close(lies={LIAR: noisy()})


CLOSED = lie_of()


def proof(witness: int = WITNESS) -> Evidence:
    body = FalsePart(fault="wrong average", material=CLOSED.material(part_of(CLOSED, LIAR)))
    return accuse(body, signer(witness), now=NOW)


def complaint_of(accused: int = LIAR, witness: int = WITNESS) -> Evidence:
    part = HONEST.material(part_of(HONEST, accused)).part
    body = WitnessTestimony(terms=part.terms, claim=part.claim, complaint="no inputs")
    return accuse(body, signer(witness), now=NOW)


def two_votes(voter: int = LIAR, witness: int = WITNESS) -> Evidence:
    terms = Peers(3).terms()
    votes = [Electorate.of(terms).vote(signer(voter), "report", 0, letter * 64) for letter in "ab"]
    return accuse(TwoVotes(terms=terms, words=cast("Any", tuple(votes))), signer(witness), now=NOW)


# ---------------------------------------------------------------------------------------------- judging
def test_a_proof_is_judged_and_said_in_words() -> None:
    evidence = proof()
    _, judgement = judge(content_of(evidence), FACTS, witness=signer(WITNESS).peer_id, members=3)
    part = cast("FalsePart", evidence.body).material.part.claim.part
    assert judgement == Judgement(
        accused=signer(LIAR).peer_id, witness=signer(WITNESS).peer_id, verdict="proof", round=5,
        what=f"signed for an average of part {part} that its inputs do not give",
    )  # fmt: skip


def test_a_testimony_stays_one() -> None:
    _, judgement = judge(content_of(complaint_of()), FACTS, witness=signer(WITNESS).peer_id, members=4)
    assert (judgement.verdict, judgement.round) == ("testimony", 1)
    part = part_of(HONEST, LIAR)
    assert judgement.what == f"handed out no inputs of part {part}, or could not be reached any more"


def test_two_votes_are_said_in_words() -> None:
    _, judgement = judge(content_of(two_votes()), FACTS, witness=signer(WITNESS).peer_id, members=3)
    assert (judgement.verdict, judgement.what) == ("proof", "signed two votes that contradict each other")


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("codec", ["int4", "int8", "fp32"])
def test_real_evidence_is_within_its_bounds(count: int, codec: str) -> None:
    peers = Peers(count, codec=codec)
    first, second = peers.close(), peers.close(lies={0: noisy(codec)})
    material = second.material(part_of(second, 0), first)
    if codec != "fp32":
        assert material.residual is not None
    assert material.previous is not None
    evidence = accuse(FalsePart(fault="wrong average", material=material), signer(1), now=NOW)
    facts = replace(FACTS, codec=cast("Any", codec))
    assert len(content_of(evidence)) <= facts.most_bytes(count)
    assert content_of(evidence).count(b",") <= facts.most_commas(count)
    assert judge(content_of(evidence), facts, witness=signer(1).peer_id, members=count)[1].verdict == "proof"


def test_the_bound_follows_the_part_and_the_group_not_the_model() -> None:
    small, large = replace(FACTS, fragment_sizes=(2**20,)), replace(FACTS, fragment_sizes=(2**30,))
    assert large.most_bytes(8) - small.most_bytes(8) < 2**20
    assert 12_000_000 < small.most_bytes(4) < small.most_bytes(8) < 20_000_000


@pytest.mark.parametrize(
    "change",
    [
        {"session": "other"},
        {"fragment_sizes": (NUMEL + 1,)},
        {"fragment_sizes": (NUMEL, NUMEL)},
        {"codec": "int8"},
        {"aggregation": "mean"},
    ],
    ids=str,
)
def test_evidence_about_other_terms_is_refused_before_it_is_checked(change: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError, match="other terms"):
        judge(content_of(proof()), replace(FACTS, **change), witness=signer(WITNESS).peer_id, members=3)


def test_nobody_hands_in_what_another_found_nor_testifies_about_a_group_of_others() -> None:
    with pytest.raises(EvidenceError, match="found by another peer"):
        judge(content_of(proof()), FACTS, witness=signer(1).peer_id, members=3)
    outsider = complaint_of(witness=7)
    with pytest.raises(EvidenceError, match="not in the group"):
        judge(content_of(outsider), FACTS, witness=signer(7).peer_id, members=4)


def framed() -> dict[str, Evidence]:
    """What a liar might make up against an honest reducer."""
    honest = HONEST.material(part_of(HONEST, LIAR))
    false = CLOSED.material(part_of(CLOSED, LIAR))
    swapped = false.model_copy(update={"contributions": {**false.contributions, signer(1).peer_id: b"\0" * 10}})
    mixed = honest.model_copy(update={"part": honest.part.model_copy(update={"average": false.part.average})})
    bodies: dict[str, Body] = {
        "an honest part": FalsePart(fault="wrong average", material=honest),
        "another fault": FalsePart(fault="forged input", material=false),
        "other inputs": FalsePart(fault="wrong average", material=swapped),
        "another average": FalsePart(fault="wrong average", material=mixed),
    }
    found = {name: accuse(body, signer(WITNESS), now=NOW) for name, body in bodies.items()}
    found["another accused"] = proof().model_copy(update={"accused": signer(1).peer_id})
    found["no signature"] = proof().model_copy(update={"signature": "0" * 128})
    return found


FRAMED = framed()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("an honest part", "shows no wrong average"), ("another fault", "shows no forged input"),
        ("other inputs", "other inputs than"), ("another average", "has not signed for this average"),
        ("another accused", "is not signed by its witness"), ("no signature", "is not signed by its witness"),
    ],
)  # fmt: skip
def test_a_member_cannot_frame_another(name: str, why: str) -> None:
    with pytest.raises(EvidenceError, match=why):
        judge(content_of(FRAMED[name]), FACTS, witness=signer(WITNESS).peer_id, members=3)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"body": NaN}', content_of(proof())[:-1]],
    ids=["empty", "no fields", "null", "no text", "nested", "NaN", "cut"],
)
def test_what_is_no_evidence_is_refused(content: bytes) -> None:
    with pytest.raises(EvidenceError, match="is not evidence"):
        judge(content, FACTS, witness=signer(WITNESS).peer_id, members=3)


def test_many_small_wrong_values_are_refused_unread() -> None:
    weights = b",".join([b"-1"] * 100_000)
    content = b'{"body": {"kind": "two-votes", "terms": {"weights": [' + weights + b"]}}}"
    before = time.process_time()
    with pytest.raises(EvidenceError, match="is more than evidence about 3 members can be"):
        judge(content, replace(FACTS, fragment_sizes=(2**20,)), witness=signer(WITNESS).peer_id, members=3)
    assert time.process_time() - before < 0.5


@settings(max_examples=60, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_is_never_a_proof_against_somebody_else(at: int, change: int) -> None:
    content = bytearray(content_of(proof()))
    content[at % len(content)] ^= change
    try:
        _, judgement = judge(bytes(content), FACTS, witness=signer(WITNESS).peer_id, members=3)
    except EvidenceError:
        return
    assert judgement.accused == signer(LIAR).peer_id


def test_terms_of_the_neighbouring_rounds_are_looked_at_too() -> None:
    peers = Peers(3)
    first, second = peers.close(), peers.close(lies={LIAR: noisy()})
    body = FalsePart(fault="wrong average", material=second.material(part_of(second, LIAR), first))
    assert [terms.round for terms in terms_of(body)] == [1, 0]


# ---------------------------------------------------------------------------------------------- quota and pieces
def test_a_quota_is_each_members_own_and_begins_anew_with_the_round() -> None:
    quota = Quota(2)
    assert [quota.take("a", 3) for _ in range(3)] == [True, True, False]
    assert quota.take("b", 3)
    assert quota.take("a", 4)


async def _stream(*messages: bytes) -> AsyncIterator[BytesValue]:
    for message in messages:
        yield BytesValue(value=message)


@pytest.mark.parametrize(
    ("pieces", "size"),
    [([b"abc"], 2), ([b"a", b""], 2), ([b"a"], 2), ([bytes(PIECE_BYTES + 1)], 2 * PIECE_BYTES), ([], 1)],
    ids=["too much", "an empty piece", "too little", "too large a piece", "nothing"],
)
async def test_pieces_make_up_what_was_offered_or_nothing(pieces: list[bytes], size: int) -> None:
    with pytest.raises(EvidenceError, match="sends a piece of"):
        await collect_pieces(aiter(_stream(*pieces)), size)


async def test_pieces_are_put_together() -> None:
    assert await collect_pieces(aiter(_stream(b"ab", b"c", b"rest")), 3) == b"abc"


def test_a_slow_line_gets_its_time() -> None:
    assert 90 < transfer_limit_s(12_000_000) < 120


# ---------------------------------------------------------------------------------------------- the service
class Submissions:
    """A service and a witness that it knows; what it keeps."""

    def __init__(self, folder: Path, *, members: int = 3, **options: Any):
        self.kept: list[Judgement] = []
        self.round = 0
        self.disk_full = False
        gate, self.context = gate_and_caller(folder)
        self.service = EvidenceService(
            gate, FACTS, members=lambda: members, round_=lambda: self.round, keep=self._keep, **options
        )

    def _keep(self, content: bytes, judgement: Judgement) -> None:
        if self.disk_full:
            raise OSError("no space left")
        assert Evidence.model_validate_json(content).accused == judgement.accused
        self.kept.append(judgement)

    def hear(self, witness: str, messages: AsyncIterator[BytesValue]) -> AsyncGenerator[Answer, None]:
        return self.service._hear(witness, messages)

    async def submit(self, evidence: Evidence, *, witness: str | None = None) -> str:
        content = content_of(evidence)
        messages = _stream(offer_of(evidence), content)
        answers = [answer async for answer in self.hear(witness or evidence.witness, messages)]
        assert len(answers) == 1 or answers[0].result == "send"
        return answers[-1].result


def offer_of(evidence: Evidence, *, size: int | None = None) -> bytes:
    size = len(content_of(evidence)) if size is None else size
    return Offer(accused=evidence.accused, kind=evidence.body.kind, size_bytes=size).model_dump_json().encode()


@pytest.fixture
def submissions(tmp_path: Path) -> Submissions:
    return Submissions(tmp_path)


async def test_a_proof_is_kept_once_whoever_brings_it(submissions: Submissions) -> None:
    assert await submissions.submit(proof()) == "proof"
    assert await submissions.submit(proof(witness=1)) == "known"
    assert await submissions.submit(complaint_of()) == "known"  # it is convicted
    assert [judgement.verdict for judgement in submissions.kept] == ["proof"]


async def test_a_witness_testifies_against_a_peer_once(submissions: Submissions) -> None:
    for witness in (0, 0, 1):
        await submissions.submit(complaint_of(witness=witness))
    assert [judgement.witness for judgement in submissions.kept] == [signer(0).peer_id, signer(1).peer_id]
    assert await submissions.submit(proof()) == "proof"  # testimonies are in nobody's way


async def test_what_is_false_is_refused_and_counts(submissions: Submissions) -> None:
    false = list(FRAMED.values())[:MOST_PER_ROUND]
    assert [await submissions.submit(evidence) for evidence in false] == ["refused"] * MOST_PER_ROUND
    assert await submissions.submit(proof()) == "later"
    submissions.round += 1
    assert await submissions.submit(proof()) == "proof"
    assert len(submissions.kept) == 1


async def test_who_was_convicted_before_a_restart_is_known(tmp_path: Path) -> None:
    submissions = Submissions(tmp_path, convicted=[signer(LIAR).peer_id])
    assert await submissions.submit(proof()) == "known"
    assert submissions.kept == []


async def test_what_cannot_be_kept_is_to_come_again(submissions: Submissions) -> None:
    submissions.disk_full = True
    assert await submissions.submit(proof()) == "later"
    submissions.disk_full = False
    assert await submissions.submit(proof()) == "proof"


async def test_too_large_an_offer_is_refused_before_anything_is_sent(submissions: Submissions) -> None:
    async def never() -> AsyncIterator[BytesValue]:
        yield BytesValue(value=offer_of(proof(), size=FACTS.most_bytes(3) + 1))
        raise AssertionError("was asked for more")

    (answer,) = [answer async for answer in submissions.hear("witness", never())]
    assert answer.result == "refused"
    assert "larger than evidence about 3 members" in answer.reason


@pytest.mark.parametrize("first", [b"", b"{}", b'{"accused": "x"}', b"["], ids=["empty", "no fields", "bad", "cut"])
async def test_what_is_no_offer_is_refused(first: bytes, submissions: Submissions) -> None:
    (answer,) = [answer async for answer in submissions.hear("witness", _stream(first))]
    assert (answer.result, answer.reason) == ("refused", "offers nothing")


async def test_a_member_that_sends_nothing_is_in_its_own_way_only(
    submissions: Submissions, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()

    async def silent() -> AsyncIterator[BytesValue]:
        yield BytesValue(value=offer_of(proof()))
        await never.wait()

    monkeypatch.setattr(evidence_service, "transfer_limit_s", lambda size: 0.2)
    slow = submissions.hear("slow", silent())
    assert (await anext(slow)).result == "send"
    waiting = asyncio.ensure_future(anext(slow))
    await asyncio.sleep(0)
    assert await submissions.submit(proof(), witness="slow") == "later"
    assert await submissions.submit(proof()) == "proof"
    assert await waiting == Answer(result="later", reason="did not arrive in time")
    assert await submissions.submit(proof(), witness="slow") == "known"


async def test_a_stranger_is_not_even_read(submissions: Submissions, monkeypatch: pytest.MonkeyPatch) -> None:
    async def untouched() -> AsyncIterator[BytesValue]:
        raise AssertionError("was read")
        yield

    async def refuse(peer: object) -> bool:
        return False

    monkeypatch.setattr(submissions.service._gate, "admits", refuse)
    answers = submissions.service.rpc_submit_evidence(untouched(), submissions.context)
    assert [answer async for answer in answers] == []


# ---------------------------------------------------------------------------------------------- the outbox
def test_one_proof_against_each_waits_and_makes_testimonies_needless() -> None:
    outbox = Outbox()
    doubt, first, second = complaint_of(), proof(), two_votes()
    for evidence in (doubt, doubt):
        outbox.add(evidence)
    assert outbox.waiting() == [doubt]
    for evidence in (first, second, doubt):
        outbox.add(evidence)
    assert outbox.waiting() == [first]
    outbox.settle(second)
    assert len(outbox) == 1
    outbox.settle(first)
    assert not len(outbox)


def test_an_outbox_is_bounded_and_lets_the_oldest_go() -> None:
    outbox = Outbox()
    proofs = [two_votes().model_copy(update={"accused": f"{n}"}) for n in range(MOST_PROOFS + 2)]
    doubts = [complaint_of().model_copy(update={"accused": f"t{n}"}) for n in range(MOST_TESTIMONIES + 3)]
    for evidence in (*doubts, *proofs):
        outbox.add(evidence)
    assert outbox.waiting() == [*proofs[2:], *doubts[3:]]
