"""Serving the outer state to those who join or fell behind, and downloading it.

The state lives in shared memory, in two slots that alternate: the outer step reads one and writes the other, so what is
served is always a whole snapshot taken at a round's boundary, its digest known beforehand, without a copy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Annotated, AsyncIterator  # noqa: UP035 - hivemind knows a stream by typing's name

import torch
from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.p2p import P2P, P2PContext, PeerID, ServicerBase
from hivemind.utils import get_logger
from hivemind.utils.asyncio import aiter_with_timeout
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cotrain.errors import IntegrityError, SwarmError
from cotrain.swarm.gate import Gate
from cotrain.swarm.send_rate import SendRate
from cotrain.swarm.streams import await_hang_up
from cotrain.train.diloco import OuterState

logger = get_logger(__name__)

CHUNK_BYTES = 256 * 1024
MOST_DOWNLOADS = 2
"""Downloads that a donor serves at a time."""
CHUNK_TIMEOUT_S = 10.0

_EMPTY = -1


class StateHeader(BaseModel):
    """Which state a donor serves; the first message of a download."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    numel: Annotated[int, Field(ge=1, le=2**40)]
    round: Annotated[int, Field(ge=0, le=2**40)]
    samples: Annotated[int, Field(ge=0, le=2**60)]
    cursor: Annotated[int, Field(ge=0, le=2**60)]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class StateRequest(BaseModel):
    """A download: of the round that is wanted (None: the newest), from a byte offset on."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    round: Annotated[int, Field(ge=0, le=2**40)] | None = None
    offset: Annotated[int, Field(ge=0, le=2**44)] = 0


class SharedState:
    """The newest two outer states in memory that forked processes share. One process writes, any may read."""

    def __init__(self, numel: int):
        self.numel = numel
        self._values = torch.zeros(2, 2, numel).share_memory_()  # [slot, (parameters, momentum), n]
        self._headers = torch.full((2, 3), _EMPTY, dtype=torch.int64).share_memory_()  # [slot, round/samples/cursor]
        self._digests = torch.zeros(2, 32, dtype=torch.uint8).share_memory_()
        self._newest = torch.zeros(1, dtype=torch.int64).share_memory_()

    def next_buffers(self) -> tuple[Tensor, Tensor]:
        """Parameters and momentum of the slot that the next state is to be written to; its old state is withdrawn."""
        slot = 1 - int(self._newest)
        self._headers[slot, 0] = _EMPTY
        return self._values[slot, 0], self._values[slot, 1]

    def publish(self, state: OuterState, digest: str) -> OuterState:
        """Serve this state from now on; returns it as stored (copied, unless it lies in `next_buffers()` already)."""
        slot = 1 - int(self._newest)
        parameters, momentum = self._values[slot, 0], self._values[slot, 1]
        if state.parameters.data_ptr() != parameters.data_ptr():
            self._headers[slot, 0] = _EMPTY
            parameters.copy_(state.parameters)
            momentum.copy_(state.momentum)
        self._digests[slot] = torch.frombuffer(bytearray.fromhex(digest), dtype=torch.uint8)
        self._headers[slot, 1], self._headers[slot, 2] = state.samples, state.cursor
        self._headers[slot, 0] = state.round  # last: a reader takes a slot with a round for whole
        self._newest[0] = slot
        return OuterState(parameters, momentum, state.round, state.samples, state.cursor)

    def header(self, round_: int | None) -> tuple[int, StateHeader] | None:
        """Slot and header of a round's state, or of the newest; None if it is not held."""
        newest = int(self._newest)
        for slot in (newest, 1 - newest):
            held, samples, cursor = (int(value) for value in self._headers[slot])
            if held != _EMPTY and (round_ is None or held == round_):
                digest = bytes(self._digests[slot].tolist()).hex()
                return slot, StateHeader(numel=self.numel, round=held, samples=samples, cursor=cursor, digest=digest)
        return None

    def chunk(self, slot: int, round_: int, offset: int) -> bytes | None:
        """Bytes of a slot (parameters, then momentum) from `offset`; None if the slot no longer holds the round."""
        values = self._values[slot].view(-1).view(torch.uint8)
        content = values[offset : offset + CHUNK_BYTES].numpy().tobytes()
        return content if int(self._headers[slot, 0]) == round_ else None


class StateService(ServicerBase):
    """What a donor answers over libp2p, under the session's name."""

    def __init__(self, state: SharedState, gate: Gate, rate: SendRate | None = None):
        """`rate`: how fast it sends; absent: as fast as the line goes."""
        self._state, self._gate, self._downloads = state, gate, 0
        self._rate = rate or SendRate(None)

    async def rpc_fetch_state(self, request: BytesValue, context: P2PContext) -> AsyncIterator[BytesValue]:
        """A StateHeader as JSON, then the bytes; only an empty message if there is nothing for this caller now."""
        if not await self._gate.admits(context.remote_id):
            yield BytesValue()
            return
        wanted = StateRequest.model_validate_json(request.value)
        found = self._state.header(wanted.round)
        if found is None or self._downloads >= MOST_DOWNLOADS:
            yield BytesValue()
            return
        slot, header = found
        self._downloads += 1
        try:
            yield BytesValue(value=header.model_dump_json().encode())
            for offset in range(wanted.offset, 8 * header.numel, CHUNK_BYTES):
                await self._rate.take(CHUNK_BYTES)
                content = self._state.chunk(slot, header.round, offset)
                if content is None:
                    return  # overwritten by a newer round: the caller asks again
                yield BytesValue(value=content)
            await await_hang_up()
        finally:
            self._downloads -= 1


class StateDownload:
    """A download that several donors may contribute to, as long as they hold the same state."""

    def __init__(self, numel: int, progress: Callable[[float], None] = lambda share: None):
        self._numel = numel
        self._buffer = torch.empty(2 * numel)
        self._bytes = self._buffer.view(torch.uint8).numpy().data
        self._header: StateHeader | None = None
        self._received = 0
        self._progress = progress

    async def fetch(self, p2p: P2P, donor: PeerID, namespace: str, *, round_: int | None) -> OuterState | None:
        """Fetch from one donor, from where the last one ended; the state once it is whole and has its digest."""
        if self._header is not None and self._header.round != round_:
            self._header, self._received = None, 0
        request = StateRequest(round=round_, offset=self._received)
        stub = StateService.get_stub(p2p, donor, namespace=namespace)
        call = stub.rpc_fetch_state(BytesValue(value=request.model_dump_json().encode()))
        async with aclosing(await asyncio.wait_for(call, CHUNK_TIMEOUT_S)) as stream:
            messages = aiter_with_timeout(stream, CHUNK_TIMEOUT_S)
            first = await anext(messages, BytesValue())
            if not first.value or not self._accept_header(StateHeader.model_validate_json(first.value), donor):
                return None
            while self._received < len(self._bytes):
                message = await anext(messages, None)
                if message is None:
                    return None
                self._take(message.value, donor)
        return self._finish(donor)

    def _take(self, content: bytes, donor: PeerID) -> None:
        end = self._received + len(content)
        if end > len(self._bytes):
            raise IntegrityError("sent more bytes than the state has", field=str(donor))
        self._bytes[self._received : end] = content
        self._received = end
        self._progress(end / len(self._bytes))

    def _accept_header(self, header: StateHeader, donor: PeerID) -> bool:
        """Whether the bytes to come continue what is there; a donor of another state starts the download anew."""
        if header.numel != self._numel:
            raise IntegrityError(
                f"offers a state of {header.numel} parameters, the model has {self._numel}", field=str(donor)
            )
        if self._header in (None, header):
            self._header = header
            return True
        self._header, self._received = None, 0
        return False

    def _finish(self, donor: PeerID) -> OuterState:
        header = self._header
        assert header is not None
        self._header, self._received = None, 0
        state = OuterState(
            self._buffer[: self._numel],
            self._buffer[self._numel :],
            header.round,
            header.samples,
            header.cursor,
        )
        if not bool(torch.isfinite(self._buffer).all()):
            raise IntegrityError("sent a state with values that are not finite", field=str(donor))
        if state.digest() != header.digest:
            raise IntegrityError("sent a state that does not have its digest", field=str(donor))
        return state


async def download_state(
    p2p: P2P,
    donors: Callable[[], Sequence[tuple[str, int, str]]],
    namespace: str,
    numel: int,
    *,
    timeout_s: float,
    progress: Callable[[float], None] = lambda share: None,
    needed: Callable[[], bool] = lambda: True,
) -> OuterState:
    """The outer state that the swarm holds, from whichever donor delivers it first.

    Args:
        donors: who is believed to hold it now, best first: (peer id, round, digest). Asked again before each try,
            because the swarm goes on meanwhile.
        timeout_s: for the whole download.
        needed: asked before each try; False gives up.

    Raises SwarmError, naming what each donor did wrong, when the time is over or it is not needed any more.
    """
    started = time.monotonic()
    deadline = started + timeout_s
    download = StateDownload(numel, progress)
    complaints: dict[str, str] = {}
    while time.monotonic() < deadline and needed():
        for peer, round_, digest in donors():
            try:
                state = await download.fetch(p2p, PeerID.from_base58(peer), namespace, round_=round_)
                if state is not None and state.digest() == digest:
                    return state
                complaints[peer] = "does not serve the state it announced" if state is not None else "busy or moved on"
            except Exception as error:
                complaints[peer] = str(error) or type(error).__name__
                logger.info(f"donor {peer} failed: {error!r}")
        await asyncio.sleep(0.2)
    reasons = "; ".join(f"{peer}: {why}" for peer, why in complaints.items()) or "no peer announces a state"
    raise SwarmError(
        f"the outer state could not be downloaded in {time.monotonic() - started:.0f} s ({reasons})",
        hint="check that this machine reaches the coordinator's peer-to-peer port",
    )
