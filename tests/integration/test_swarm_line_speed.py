"""The uplink is measured by what arrives at the other end, for members only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.p2p import P2PHandlerError, PeerID

from cotrain.errors import SwarmError
from cotrain.swarm.line_speed import MOST_BYTES, PIECE_BYTES, LineProbe, announced_uplink, measure_uplink
from tests.integration.p2p_pair import SESSION, observer_and_peer


async def test_a_fast_line_is_measured_with_more_until_it_takes_a_while(tmp_path: Path) -> None:
    async with observer_and_peer(tmp_path, LineProbe) as (peer, observer):
        speed = await measure_uplink(peer, observer, SESSION)
    assert speed > 200_000  # memory to memory, on however busy a machine


async def test_a_limited_peer_sends_and_announces_no_more_while_it_measures(tmp_path: Path) -> None:
    async with observer_and_peer(tmp_path, LineProbe) as (peer, observer):
        started = time.monotonic()
        assert 0 < await measure_uplink(peer, observer, SESSION, most_bytes_per_s=300_000) <= 300_000
        took_s = time.monotonic() - started
    assert took_s >= 3 * PIECE_BYTES / 300_000  # four pieces, the first at once


async def test_nobody_can_have_more_taken_than_the_bound(tmp_path: Path) -> None:
    sent = 0

    async def endless() -> AsyncIterator[BytesValue]:
        nonlocal sent
        while True:
            yield BytesValue(value=bytes(PIECE_BYTES))
            sent += PIECE_BYTES

    async with observer_and_peer(tmp_path, LineProbe) as (peer, observer):
        stub = LineProbe.get_stub(peer, PeerID.from_base58(observer), namespace=SESSION)
        with pytest.raises((P2PHandlerError, OSError)):
            await asyncio.wait_for(stub.rpc_take(endless()), 60.0)
    assert MOST_BYTES <= sent < 8 * MOST_BYTES  # what lies in buffers between the two counts, too


async def test_a_stranger_is_told_nothing(tmp_path: Path) -> None:
    async with observer_and_peer(tmp_path, LineProbe, certified=False) as (peer, observer):
        with pytest.raises(SwarmError, match="took 0 of"):
            await measure_uplink(peer, observer, SESSION)


def test_what_is_announced_is_a_power_of_two() -> None:
    assert [announced_uplink(speed) for speed in (0, 999, 1000, 12_500_000, 16_383_999, 16_384_000)] == [
        0, 0, 1, 8192, 8192, 16384,
    ]  # fmt: skip
