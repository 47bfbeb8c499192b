"""How many GETs a server answers in a second: many connections, one request after another on each.

aiohttp's own client takes longer for a request than the servers that it would measure, so this one does no more than it
must: it sends the same bytes again and counts answers by their announced length.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import cast
from urllib.parse import urlsplit

CONNECTIONS = 32


class Reader(asyncio.Protocol):
    """One connection that asks again as soon as it is answered."""

    def __init__(self, request: bytes):
        self._request = request
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self.answered = 0
        self.refused = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is no child of it
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self._received[:head_end]).lower()
        length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        if len(self._received) < head_end + 4 + length:
            return
        self.answered += 1
        self.refused += not head.startswith(b"http/1.1 200")
        self._received.clear()
        assert self._transport is not None
        self._transport.write(self._request)

    def close(self) -> None:
        """Ask no more."""
        if self._transport is not None:
            self._transport.close()


def _itself(reader: Reader) -> Reader:
    return reader


async def reads_per_s(url: str, duration_s: float) -> float:
    """Answers a second to GETs of this URL. Raises RuntimeError if one is refused."""
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    readers = [Reader(request) for _ in range(CONNECTIONS)]
    for reader in readers:
        await loop.create_connection(partial(_itself, reader), parts.hostname or "127.0.0.1", parts.port or 80)
    began, before = time.monotonic(), sum(reader.answered for reader in readers)
    await asyncio.sleep(duration_s)
    rate = (sum(reader.answered for reader in readers) - before) / (time.monotonic() - began)
    for reader in readers:
        reader.close()
    refused = sum(reader.refused for reader in readers)
    if refused or rate == 0:
        raise RuntimeError(f"{refused} requests of {url} were refused, {rate:.0f} a second answered")
    return rate
