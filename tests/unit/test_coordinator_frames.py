"""Frames that the coordinator writes itself, as a client reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer

from coordinator.frames import FrameWriter, text_frame

LENGTHS = (0, 1, 125, 126, 127, 2**16 - 1, 2**16, 2**16 + 1, 200_000)
LIMIT_S = 60.0


class Server:
    """Gives each that connects to it a socket, and its writer."""

    def __init__(self) -> None:
        self.opened: asyncio.Queue[tuple[web.WebSocketResponse, FrameWriter]] = asyncio.Queue()

    async def accept(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        self.opened.put_nowait((socket, FrameWriter(socket, request)))
        async for _ in socket:
            pass
        return socket


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[aiohttp.ClientWebSocketResponse, web.WebSocketResponse, FrameWriter]]:
    server, app = Server(), web.Application()
    app.router.add_get("/", server.accept)
    async with TestClient(TestServer(app)) as client, client.ws_connect("/") as here:
        there, writer = await server.opened.get()
        yield here, there, writer


async def test_messages_of_any_length_arrive_between_those_of_aiohttp() -> None:
    texts = ["متن"[: length % 3] + "x" * length for length in LENGTHS]
    async with connected() as (here, there, writer):
        for text in texts:
            writer.write(text_frame(text.encode()))
            await there.send_str("between")
        for text in texts:
            assert await here.receive_str(timeout=LIMIT_S) == text
            assert await here.receive_str(timeout=LIMIT_S) == "between"


async def test_there_is_no_room_while_nobody_reads_and_some_again_afterwards() -> None:
    filler = text_frame(b"x" * 50_000)
    async with connected() as (here, _, writer):
        written = 0
        while writer.has_room:
            writer.write(filler)
            written += 1
            await asyncio.sleep(0)
            assert written < 10_000
        assert writer.is_open
        for _ in range(written):
            assert len(await here.receive_str(timeout=LIMIT_S)) == 50_000
        assert writer.has_room


async def test_nothing_can_be_written_once_either_side_closes() -> None:
    async with connected() as (here, there, writer):
        closing = asyncio.create_task(there.close(code=1001))
        await asyncio.sleep(0)
        assert not writer.is_open
        assert (await here.receive(timeout=LIMIT_S)).type is WSMsgType.CLOSE
        await closing
    async with connected() as (here, there, writer):
        await here.close()
        async with asyncio.timeout(LIMIT_S):
            while writer.is_open:  # noqa: ASYNC110 - it is told by no event
                await asyncio.sleep(0.01)
        assert not writer.has_room
