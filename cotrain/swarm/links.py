"""What members of a group say to each other after the reduction, and how they reach each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.utils.asyncio import aiter_with_timeout
from pydantic import Field

from cotrain.swarm.all_reduce import Traffic
from cotrain.swarm.terms import MOST_MEMBERS, Statement
from cotrain.swarm.votes import Ballot, Decision, Promise, SignedVote, WireManifest

Op = Literal["report", "prepare", "accept", "decide", "ask"]


class Vote(Statement):
    """A control message of the agreement.

    `manifest` is what is reported or proposed, `signed` the sender's vote for it; an accept shows the promises that
    allow the proposal, a decide the decision. `ask` is a contributor's: it wants the decision.
    """

    group: Annotated[str, Field(pattern=r"^[0-9a-f]{1,128}$")]
    op: Op
    ballot: Ballot = 0
    manifest: WireManifest = Field(default_factory=list)
    signed: SignedVote | None = None
    promises: Annotated[list[Promise], Field(max_length=MOST_MEMBERS)] = Field(default_factory=list)
    decision: Decision | None = None


class Answer(Statement):
    """The answer to a vote, which carries the decision if there is one already.

    To a prepare: the promise, what is held, and the manifest that was accepted. To an accept: the signed vote.
    """

    op: Op
    promise: Promise | None = None
    held: WireManifest = Field(default_factory=list)
    accepted: WireManifest | None = None
    signed: SignedVote | None = None
    decision: Decision | None = None


class PartsRequest(Statement):
    """Members ask for the bytes of parts of their group."""

    group: Annotated[str, Field(pattern=r"^[0-9a-f]{1,128}$")]
    indices: Annotated[list[Annotated[int, Field(ge=0, le=100_000)]], Field(max_length=100_000)]


@dataclass(frozen=True)
class Links:
    """How a member reaches the reducers of its group.

    Attributes:
        call: send a vote to a reducer and return its answer; raises on failure or after its own timeout.
        fetch: ask a reducer for the averages of parts; yields (index, bytes), unchecked.
    """

    call: Callable[[str, Vote], Awaitable[Answer]]
    fetch: Callable[[str, Sequence[int]], AsyncIterator[tuple[int, bytes]]]


def links_over(stub_of: Callable[[str], Any], group: str, traffic: Traffic, timeout_s: float) -> Links:
    """Links through the averagers' RPCs. `stub_of`: peer -> its stub; `timeout_s`: for each answer."""

    async def call(peer: str, vote: Vote) -> Answer:
        message = BytesValue(value=vote.model_dump_json().encode())
        traffic.sent += message.ByteSize()
        answer = await stub_of(peer).rpc_vote(message, timeout=timeout_s)
        traffic.received += answer.ByteSize()
        return Answer.model_validate_json(answer.value)

    async def fetch(peer: str, indices: Sequence[int]) -> AsyncIterator[tuple[int, bytes]]:
        request = PartsRequest(group=group, indices=list(indices))
        call = stub_of(peer).rpc_fetch_parts(BytesValue(value=request.model_dump_json().encode()))
        async with aclosing(await call) as stream:
            messages = aiter_with_timeout(stream, timeout_s)
            for _ in indices:
                message = await anext(messages)
                traffic.received += message.ByteSize()
                yield int.from_bytes(message.value[:4], "big"), message.value[4:]

    return Links(call, fetch)
