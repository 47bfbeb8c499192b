"""A member hands its evidence to the checkpointer, which repeats the check and believes nobody.

Offered first, sent then: who is no member, has offered too much in this round, or accuses somebody who is convicted
already is told so before a byte of it is read. What is read is bounded in size and time, and one piece of evidence is
checked at a time, beside everything else.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Annotated, Any, AsyncIterator, Literal  # noqa: UP035 - hivemind knows a stream by typing's name

from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.p2p import P2P, P2PContext, PeerID, ServicerBase
from hivemind.utils import get_logger
from pydantic import Field

from cotrain.errors import SwarmError
from cotrain.peer_key import PeerIdText
from cotrain.swarm.evidence import Evidence, EvidenceError
from cotrain.swarm.gate import Gate
from cotrain.swarm.judgement import Judgement, SessionFacts, judge
from cotrain.swarm.streams import await_hang_up
from cotrain.swarm.terms import Statement

logger = get_logger(__name__)

PIECE_BYTES = 2**20
ANSWER_TIMEOUT_S = 10.0
"""For the answer to an offer, and for the offer itself."""
CHECK_LIMIT_S = 180.0
"""For the checks of all that has been handed in at the same time."""
SLOWEST_BYTES_PER_S = 125_000
MOST_PER_ROUND = 4
"""What a member may hand in in a round: an audit finds one thing, and votes may be found out besides."""
MOST_AT_ONCE = 4
"""Members whose evidence is received or waits for its check."""
LONGEST_REASON = 500

Result = Literal["send", "proof", "testimony", "known", "refused", "later"]
Keep = Callable[[bytes, Judgement], None]


class Offer(Statement):
    """First message: what the evidence that follows is."""

    accused: PeerIdText
    kind: Literal["false-part", "two-averages", "two-votes", "testimony"]
    size_bytes: Annotated[int, Field(ge=1, le=2**40)]


class Answer(Statement):
    """What comes of it.

    `send`: it may be sent. `proof`, `testimony`: it holds and is kept. `known`: nothing new. `refused`: it does not
    hold. `later`: not now, in another round perhaps.
    """

    result: Result
    reason: Annotated[str, Field(max_length=LONGEST_REASON)] = ""


class Quota:
    """How much each member has handed in in the present round. Pure."""

    def __init__(self, most: int = MOST_PER_ROUND) -> None:
        self._most, self._round = most, -1
        self._taken: Counter[str] = Counter()

    def take(self, member: str, round_: int) -> bool:
        """Whether the member may hand in one more in this round."""
        if round_ != self._round:
            self._round, self._taken = round_, Counter()
        if self._taken[member] >= self._most:
            return False
        self._taken[member] += 1
        return True


class EvidenceService(ServicerBase):
    """Takes evidence under the session's name."""

    def __init__(
        self, gate: Gate, facts: SessionFacts, *, members: Callable[[], int], round_: Callable[[], int],
        keep: Keep = lambda content, judgement: None, convicted: Collection[str] = (),
    ) -> None:  # fmt: skip
        """
        Args:
            members: how many a group may have now.
            round_: the swarm's round, for the quota.
            keep: called in the judge's thread with evidence that holds, before its witness hears of it; if it raises
                OSError, the witness will hand the evidence in again.
            convicted: peers against whom there is a proof already.
        """
        self._gate, self._facts, self._members, self._round, self._keep = gate, facts, members, round_, keep
        self._convicted = set(convicted)
        self._testified: set[tuple[str, str]] = set()
        self._quota = Quota()
        self._busy: set[str] = set()
        self._judge = ThreadPoolExecutor(1, "judge")

    async def rpc_submit_evidence(
        self, stream: AsyncIterator[BytesValue], context: P2PContext
    ) -> AsyncIterator[BytesValue]:
        """An Offer for an Answer; if that is `send`, the evidence in pieces for another. A stranger gets nothing."""
        if not await self._gate.admits(context.remote_id):
            return
        async with aclosing(self._hear(context.remote_id.to_base58(), aiter(stream))) as answers:
            async for answer in answers:
                yield BytesValue(value=answer.model_dump_json().encode())
        await await_hang_up()

    def close(self) -> None:
        """Check nothing more; a check that is under way ends by itself."""
        self._judge.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------------------------------------ one submission
    async def _hear(self, witness: str, messages: AsyncIterator[BytesValue]) -> AsyncGenerator[Answer, None]:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                first = await anext(messages, BytesValue())
            offer = Offer.model_validate_json(first.value)
        except (TimeoutError, ValueError):
            yield Answer(result="refused", reason="offers nothing")
            return
        if (answer := self._answer_to(witness, offer)) is not None:
            yield answer
            return
        self._busy.add(witness)
        try:
            yield Answer(result="send")
            answer = await self._receive(witness, offer, messages)
        finally:
            self._busy.discard(witness)
        yield answer

    def _answer_to(self, witness: str, offer: Offer) -> Answer | None:
        """Why an offer is not taken; None if it is."""
        members = self._members()
        if offer.size_bytes > self._facts.most_bytes(members):
            return Answer(result="refused", reason=f"is larger than evidence about {members} members can be")
        if self._is_known(offer.accused, witness, is_testimony=offer.kind == "testimony"):
            return Answer(result="known")
        if witness in self._busy or len(self._busy) >= MOST_AT_ONCE:
            return Answer(result="later", reason="other evidence is being received")
        if not self._quota.take(witness, self._round()):
            return Answer(result="later", reason=f"has handed in {MOST_PER_ROUND} in this round")
        return None

    def _is_known(self, accused: str, witness: str, *, is_testimony: bool) -> bool:
        return accused in self._convicted or (is_testimony and (accused, witness) in self._testified)

    async def _receive(self, witness: str, offer: Offer, messages: AsyncIterator[BytesValue]) -> Answer:
        try:
            async with asyncio.timeout(transfer_limit_s(offer.size_bytes)):
                content = await collect_pieces(messages, offer.size_bytes)
        except TimeoutError:
            return Answer(result="later", reason="did not arrive in time")
        except EvidenceError as error:
            return _refused(witness, error)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._judge, self._check, witness, content)
        except EvidenceError as error:
            return _refused(witness, error)
        except OSError as error:
            logger.error(f"evidence cannot be kept: {error}")
            return Answer(result="later", reason="cannot be kept now")
        except Exception:
            logger.warning(f"evidence of {witness} could not be checked", exc_info=True)
            return Answer(result="refused", reason="cannot be checked")

    def _check(self, witness: str, content: bytes) -> Answer:
        """In the judge's thread, one at a time."""
        evidence, judgement = judge(content, self._facts, witness=witness, members=self._members())
        is_testimony = judgement.verdict == "testimony"
        if self._is_known(judgement.accused, witness, is_testimony=is_testimony):
            return Answer(result="known")
        logger.warning(f"{evidence}: a {judgement.verdict}, brought by {witness}")
        self._keep(content, judgement)
        if is_testimony:
            self._testified.add((judgement.accused, witness))
        else:
            self._convicted.add(judgement.accused)
        return Answer(result=judgement.verdict)


def _refused(witness: str, error: EvidenceError) -> Answer:
    logger.warning(f"evidence of {witness} is refused: {error}")
    return Answer(result="refused", reason=str(error)[:LONGEST_REASON])


async def collect_pieces(messages: AsyncIterator[BytesValue], size_bytes: int) -> bytes:
    """Put exactly so many bytes together. Raises EvidenceError for anything else."""
    content = bytearray()
    while len(content) < size_bytes:
        piece = (await anext(messages, BytesValue())).value
        if not 0 < len(piece) <= min(PIECE_BYTES, size_bytes - len(content)):
            raise EvidenceError(f"sends a piece of {len(piece)} bytes after {len(content)} of {size_bytes}")
        content += piece
    return bytes(content)


def transfer_limit_s(size_bytes: int) -> float:
    """Seconds that evidence of this size may take to arrive."""
    return ANSWER_TIMEOUT_S + size_bytes / SLOWEST_BYTES_PER_S


# ---------------------------------------------------------------------------------------------- the witness's side
async def submit_evidence(p2p: P2P, observer: str, session: str, evidence: Evidence) -> Answer:
    """Hand evidence to the session's checkpointer. Raises SwarmError if it does not answer."""
    content = evidence.model_dump_json().encode()
    offer = Offer(accused=evidence.accused, kind=evidence.body.kind, size_bytes=len(content))
    try:
        return await _submit(p2p, observer, session, offer, content)
    except Exception as error:
        raise SwarmError(f"did not take evidence: {error!r}", field=observer) from error


async def _submit(p2p: P2P, observer: str, session: str, offer: Offer, content: bytes) -> Answer:
    wanted = asyncio.Event()

    async def messages() -> AsyncIterator[BytesValue]:
        yield BytesValue(value=offer.model_dump_json().encode())
        await wanted.wait()
        for start in range(0, len(content), PIECE_BYTES):
            yield BytesValue(value=content[start : start + PIECE_BYTES])

    stub: Any = EvidenceService.get_stub(p2p, PeerID.from_base58(observer), namespace=session)
    async with aclosing(await asyncio.wait_for(stub.rpc_submit_evidence(messages()), ANSWER_TIMEOUT_S)) as stream:
        answer = await _read(stream, ANSWER_TIMEOUT_S)
        if answer.result != "send":
            return answer
        wanted.set()
        return await _read(stream, transfer_limit_s(len(content)) + CHECK_LIMIT_S)


async def _read(stream: AsyncIterator[BytesValue], timeout_s: float) -> Answer:
    async with asyncio.timeout(timeout_s):
        message = await anext(stream, None)
    if message is None:
        raise SwarmError("gave no answer")
    return Answer.model_validate_json(message.value)
