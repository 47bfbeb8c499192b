"""What aiohttp does by itself: answers with the bytes of a file, and counts what comes over a WebSocket.

    python -m benchmarks.coordinator_bare FILE

Prints its URL. `/answer` gives the file, which is read once; `/stream` takes messages, and answers `?` with how many
there were.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from cotrain.process import bind_to_parent


async def serve(body: bytes) -> None:
    """Until it is killed."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    async def stream(request: web.Request) -> web.WebSocketResponse:
        socket, count = web.WebSocketResponse(compress=False), 0
        await socket.prepare(request)
        async for message in socket:
            if message.data == "?":
                await socket.send_str(str(count))
            else:
                count += 1
        return socket

    app = web.Application()
    app.router.add_get("/answer", answer)
    app.router.add_get("/stream", stream)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    print(f"http://{host}:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    bind_to_parent()
    uvloop.run(serve(Path(sys.argv[1]).read_bytes()))
