"""WebSocket frames that are made once and written to many sockets, without a task that waits for each."""

from __future__ import annotations

import asyncio
import struct

from aiohttp import web

_TEXT = 0x81
"""The only fragment of a text message (RFC 6455, section 5.2)."""
_ROOM_BYTES = 64 * 1024
"""What may be waiting to be sent on a socket that still takes more."""


def text_frame(payload: bytes) -> bytes:
    """A text message as a server sends it: unmasked, uncompressed, in one frame (RFC 6455, section 5.2)."""
    length = len(payload)
    if length < 126:
        return struct.pack("!BB", _TEXT, length) + payload
    if length < 2**16:
        return struct.pack("!BBH", _TEXT, 126, length) + payload
    return struct.pack("!BBQ", _TEXT, 127, length) + payload


class FrameWriter:
    """Puts whole frames on an open socket, which must have been prepared without compression.

    aiohttp writes its own frames whole, too, so the two can take turns.
    """

    def __init__(self, socket: web.WebSocketResponse, request: web.Request):
        self._socket = socket
        self._transport: asyncio.Transport | None = request.transport

    @property
    def is_open(self) -> bool:
        """Whether nobody has begun to close it."""
        return self._transport is not None and not self._socket.closed and not self._transport.is_closing()

    @property
    def has_room(self) -> bool:
        """Whether it is open, and the other side reads what it is sent."""
        return self.is_open and self._transport is not None and self._transport.get_write_buffer_size() < _ROOM_BYTES

    def write(self, frame: bytes) -> None:
        """Send a frame without waiting; only while there is room."""
        assert self._transport is not None
        self._transport.write(frame)
