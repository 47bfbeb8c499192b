"""The shared memory from which the outer state is served."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import torch
from google.protobuf.wrappers_pb2 import BytesValue
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cotrain.errors import SwarmError
from cotrain.swarm.state import (
    CHUNK_BYTES,
    MOST_DOWNLOADS,
    SharedState,
    StateHeader,
    StateRequest,
    StateService,
    download_state,
)
from cotrain.train.diloco import OuterState
from tests.membership_fixtures import gate_and_caller

if TYPE_CHECKING:
    from hivemind.p2p import P2P

NUMEL = 50_000  # 400 kB with its momentum: two chunks


def state(round_: int) -> OuterState:
    values = torch.arange(NUMEL, dtype=torch.float32)
    return OuterState(values + round_, values * round_, round=round_, samples=10 * round_, cursor=12 * round_)


def publish(shared: SharedState, round_: int) -> OuterState:
    return shared.publish(state(round_), state(round_).digest())


def served_bytes(shared: SharedState, round_: int | None = None) -> bytes:
    found = shared.header(round_)
    assert found is not None
    slot, header = found
    chunks = [shared.chunk(slot, header.round, offset) for offset in range(0, 8 * NUMEL, CHUNK_BYTES)]
    return b"".join(chunk for chunk in chunks if chunk is not None)


def test_nothing_is_served_before_the_first_state() -> None:
    assert SharedState(NUMEL).header(None) is None
    assert SharedState(NUMEL).header(0) is None


def test_the_newest_two_states_are_served_whole_with_their_digests() -> None:
    shared = SharedState(NUMEL)
    for round_ in (0, 1, 2):
        stored = publish(shared, round_)
        assert stored.digest() == state(round_).digest()
    for wanted, round_ in ((None, 2), (2, 2), (1, 1)):
        found = shared.header(wanted)
        assert found is not None
        assert found[1] == StateHeader(
            numel=NUMEL, round=round_, samples=10 * round_, cursor=12 * round_, digest=state(round_).digest()
        )
        expected = state(round_)
        assert (
            served_bytes(shared, wanted) == expected.parameters.numpy().tobytes() + expected.momentum.numpy().tobytes()
        )
    assert shared.header(0) is None


def test_a_state_written_in_place_is_not_copied() -> None:
    shared = SharedState(NUMEL)
    publish(shared, 0)
    parameters, momentum = shared.next_buffers()
    parameters.fill_(3.0)
    stored = shared.publish(OuterState(parameters, momentum, round=1), "a" * 64)
    assert stored.parameters.data_ptr() == parameters.data_ptr()
    assert served_bytes(shared)[:4] == torch.tensor([3.0]).numpy().tobytes()


def test_the_slot_that_is_written_to_is_withdrawn_and_the_other_stays() -> None:
    shared = SharedState(NUMEL)
    publish(shared, 0)
    publish(shared, 1)
    shared.next_buffers()
    assert shared.header(0) is None
    found = shared.header(None)
    assert found is not None
    assert found[1].round == 1


def test_a_reader_notices_that_its_slot_was_overwritten() -> None:
    shared = SharedState(NUMEL)
    publish(shared, 0)
    found = shared.header(None)
    assert found is not None
    slot, header = found
    assert shared.chunk(slot, header.round, 0) is not None
    publish(shared, 1)
    assert shared.chunk(slot, header.round, 0) is not None  # the other slot was written
    publish(shared, 2)
    assert shared.chunk(slot, header.round, CHUNK_BYTES) is None


@settings(max_examples=30)
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_any_sequence_of_outer_steps_serves_its_last_two_states(in_place: list[bool]) -> None:
    shared = SharedState(NUMEL)
    for round_, direct in enumerate(in_place):
        if direct:
            parameters, momentum = shared.next_buffers()
            parameters.copy_(state(round_).parameters)
            momentum.copy_(state(round_).momentum)
            counters = state(round_)
            stepped = OuterState(parameters, momentum, counters.round, counters.samples, counters.cursor)
            shared.publish(stepped, counters.digest())
        else:
            publish(shared, round_)
    held = {round_ for round_ in range(len(in_place)) if shared.header(round_) is not None}
    assert held == set(range(max(0, len(in_place) - 2), len(in_place)))


# ---------------------------------------------------------------------------------------------- the service
class Donor:
    """A service that one peer is let in to, and calls of that peer."""

    def __init__(self, folder: Path, shared: SharedState):
        gate, self._caller = gate_and_caller(folder)
        self._service = StateService(shared, gate)

    def call(self, request: bytes = b"{}") -> AsyncGenerator[BytesValue, None]:
        stream = self._service.rpc_fetch_state(BytesValue(value=request), self._caller)
        return cast("AsyncGenerator[BytesValue, None]", stream)


async def answers(donor: Donor, request: StateRequest, most: int = 100) -> list[bytes]:
    messages = []
    async for message in donor.call(request.model_dump_json().encode()):
        messages.append(message.value)
        if len(messages) == most:
            break
    return messages


async def test_a_download_starts_with_its_header_and_goes_on_from_an_offset(tmp_path: Path) -> None:
    shared = SharedState(NUMEL)
    publish(shared, 3)
    donor = Donor(tmp_path, shared)
    header, *chunks = await answers(donor, StateRequest())
    assert StateHeader.model_validate_json(header).round == 3
    whole = b"".join(chunks)
    assert whole == served_bytes(shared)
    _, *rest = await answers(donor, StateRequest(round=3, offset=1000))
    assert b"".join(rest) == whole[1000:]
    assert await answers(donor, StateRequest(round=4)) == [b""]


async def test_a_donor_serves_only_so_many_at_a_time(tmp_path: Path) -> None:
    shared = SharedState(NUMEL)
    publish(shared, 0)
    donor = Donor(tmp_path, shared)
    running = [donor.call() for _ in range(MOST_DOWNLOADS)]
    for stream in running:
        assert (await anext(stream)).value
    assert await answers(donor, StateRequest()) == [b""]
    await running[0].aclose()
    assert len(await answers(donor, StateRequest())) == 3


async def test_a_state_overwritten_while_it_is_served_ends_the_stream_early(tmp_path: Path) -> None:
    shared = SharedState(NUMEL)
    publish(shared, 0)
    stream = Donor(tmp_path, shared).call()
    assert (await anext(stream)).value
    publish(shared, 1)
    publish(shared, 2)
    assert [message.value async for message in stream] == []


@pytest.mark.parametrize("request_", [b"", b"[]", b'{"offset": -1}', b'{"round": "1"}', b'{"path": "/etc"}', b"\xff"])
async def test_a_malformed_request_is_refused(request_: bytes, tmp_path: Path) -> None:
    stream = Donor(tmp_path, SharedState(NUMEL)).call(request_)
    with pytest.raises(ValidationError):
        await anext(stream)


async def test_a_download_that_is_needed_no_longer_is_given_up_at_once() -> None:
    """Whoever was ahead has left: without this a checkpointer would ask for a minute, and serve nobody meanwhile."""
    asked: list[float] = []

    def needed() -> bool:
        asked.append(time.monotonic())
        return len(asked) < 3

    p2p = cast("P2P", None)  # nobody is dialled: there are no donors
    with pytest.raises(SwarmError, match="no peer announces a state"):
        await download_state(p2p, list, "session", NUMEL, timeout_s=60.0, needed=needed)
    assert asked[-1] - asked[0] < 10.0
