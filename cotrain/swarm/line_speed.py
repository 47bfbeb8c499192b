"""How fast a peer can send: it streams a few pieces to the checkpointer, which says when all have arrived.

The answer decides how much of a round's vector the peer reduces (`shares.py`). What is accepted by the socket proves
nothing: p2pd and the kernel hold megabytes back, so only what has been acknowledged counts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator as PlainAsyncIterator
from typing import Any, AsyncIterator  # noqa: UP035 - hivemind knows a stream by typing's name

from google.protobuf.wrappers_pb2 import BytesValue, Int64Value
from hivemind.p2p import P2P, P2PContext, PeerID, ServicerBase
from hivemind.utils.asyncio import aiter_with_timeout

from cotrain.errors import SwarmError
from cotrain.swarm.gate import Gate
from cotrain.swarm.send_rate import SendRate

PIECE_BYTES = 64 * 1024
FIRST_BYTES = 4 * PIECE_BYTES
MOST_BYTES = 16 * 1024 * 1024
LONG_ENOUGH_S = 0.5
"""A trial that took this long says enough: connecting and waiting for the answer are a small part of it."""
PIECE_TIMEOUT_S = 10.0
TRIAL_TIMEOUT_S = 60.0


class LineProbe(ServicerBase):
    """Takes what members send to find out how fast they can; one member at a time."""

    def __init__(self, gate: Gate):
        self._gate = gate
        self._turn = asyncio.Lock()

    async def rpc_take(self, stream: AsyncIterator[BytesValue], context: P2PContext) -> Int64Value:
        """Bytes that have arrived; zero for a stranger. Ends with an error when there are more than MOST_BYTES."""
        if not await self._gate.admits(context.remote_id):
            return Int64Value()
        async with self._turn:
            arrived = 0
            async for piece in aiter_with_timeout(stream, PIECE_TIMEOUT_S):
                arrived += len(piece.value)
                if arrived > MOST_BYTES:
                    raise SwarmError(f"sent more than {MOST_BYTES} bytes", field=context.remote_id.to_base58())
            return Int64Value(value=arrived)


async def measure_uplink(p2p: P2P, observer: str, session: str, *, most_bytes_per_s: int | None = None) -> int:
    """What this peer can send to the observer, bytes a second. Raises SwarmError if it does not take it.

    `most_bytes_per_s` is not exceeded while it is measured, nor by the answer.
    """
    rate = SendRate(most_bytes_per_s)
    stub: Any = LineProbe.get_stub(p2p, PeerID.from_base58(observer), namespace=session)
    await _trial_s(stub, PIECE_BYTES, observer, rate)  # connecting and showing certificates is not the line's speed
    size = FIRST_BYTES
    while True:
        took_s = await _trial_s(stub, size, observer, rate)
        if took_s >= LONG_ENOUGH_S or size >= MOST_BYTES:
            return int(size / took_s) if most_bytes_per_s is None else min(int(size / took_s), most_bytes_per_s)
        size *= 4


async def _trial_s(stub: Any, size: int, observer: str, rate: SendRate) -> float:
    """Seconds until `size` bytes have arrived."""
    started = time.monotonic()
    try:
        arrived = await asyncio.wait_for(stub.rpc_take(rate.paced(_pieces(size))), TRIAL_TIMEOUT_S)
    except Exception as error:
        raise SwarmError(f"the speed of the line could not be measured: {error!r}", field=observer) from error
    if arrived.value < size:
        raise SwarmError(f"took {arrived.value} of {size} bytes", field=observer)
    return time.monotonic() - started


def announced_uplink(bytes_per_s: int) -> int:
    """What a peer announces, kB/s: a power of two, so that measuring again seldom moves the parts' boundaries."""
    kilobytes = bytes_per_s // 1000
    return 0 if kilobytes <= 0 else 1 << (kilobytes.bit_length() - 1)


async def _pieces(size: int) -> PlainAsyncIterator[BytesValue]:
    piece = BytesValue(value=bytes(PIECE_BYTES))
    for _ in range(size // PIECE_BYTES):
        yield piece
