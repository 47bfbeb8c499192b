"""The uplink: a participant's WebSocket. Snapshots come up, acknowledgements and wishes go down.

Three coroutines share a socket: one reads into a bounded inbox (so that a fast sender waits for the disk), one hands
what has gathered there to be committed and waits for it, one sends the outbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from aiohttp import WSMsgType, web
from pydantic import ValidationError

from coordinator.api.operations import Answer, operation
from coordinator.auth.tokens import bearer_token
from coordinator.context import COORDINATOR, Coordinator
from coordinator.ingest import check_status
from coordinator.joinable import check_protocol
from coordinator.models import ParticipantRow
from coordinator.uplinks import Close, Uplink
from cotrain.errors import CotrainError, NotFoundError, ProtocolError
from cotrain.protocol import (
    MAX_MESSAGE_BYTES,
    UPLINK_MESSAGE,
    Ack,
    ErrorMessage,
    Goodbye,
    Hello,
    StatusMessage,
)

routes = web.RouteTableDef()

_logger = logging.getLogger(__name__)

_MAX_BAD_MESSAGES = 3
_INBOX_LIMIT = 64
_HEARTBEAT_S = 20.0
_CLOSE_TIMEOUT_S = 2.0
_POLICY_VIOLATION = 1008
_LONGEST_MESSAGE = 500


@routes.get("/api/v1/sessions/{id}/participants/{participant}/stream")
@operation("participants", who="participant", answers={101: Answer("a WebSocket of JSON objects")}, errors=(400,))
async def stream(request: web.Request) -> web.StreamResponse:
    """Upgrade to the uplink; 401 before the upgrade without the participant's token."""
    coordinator = request.app[COORDINATOR]
    token = bearer_token(request.headers.get("Authorization"))
    session, participant = request.match_info["id"], request.match_info["participant"]
    row = await coordinator.participants.authenticate(session, participant, token)
    socket = web.WebSocketResponse(
        max_msg_size=MAX_MESSAGE_BYTES, heartbeat=_HEARTBEAT_S, timeout=_CLOSE_TIMEOUT_S, compress=False
    )
    await socket.prepare(request)
    await _Conversation(coordinator, socket, row).run()
    return socket


class _Conversation:
    """One uplink from Hello to its end."""

    def __init__(self, coordinator: Coordinator, socket: web.WebSocketResponse, row: ParticipantRow):
        self._coordinator = coordinator
        self._socket = socket
        self._session = row.session_id
        self._peer = row.peer_id
        self._uplink = Uplink(row.id)
        self._inbox: asyncio.Queue[StatusMessage | Goodbye | None] = asyncio.Queue(_INBOX_LIMIT)
        self._welcomed = False
        self._bad_messages = 0

    async def run(self) -> None:
        """Talk until either side ends it."""
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [group.create_task(self._send()), group.create_task(self._abort_when_stuck())]
                applying = group.create_task(self._apply())
                await self._read()
                await self._inbox.put(None)
                await applying
                for helper in helpers:
                    helper.cancel()
        except* NotFoundError:
            await self._socket.close(code=1000, message=b"the session is gone")
        finally:
            if self._welcomed:
                await self._coordinator.participants.disconnected(self._session, self._uplink)

    async def _read(self) -> None:
        """Messages into the inbox, until the socket closes; too many bad ones make the outbox close it."""
        async for message in self._socket:
            if message.type is WSMsgType.ERROR:  # aiohttp has closed it, with 1009 if the message was too large
                return
            if self._bad_messages >= _MAX_BAD_MESSAGES:
                continue  # it is being closed; reading on lets the other side's answer arrive
            try:
                await self._accept(message.data if message.type is WSMsgType.TEXT else "")
            except (ProtocolError, ValidationError) as error:
                self._refuse(error)

    async def _accept(self, text: str) -> None:
        """Take one message. Raises ProtocolError or ValidationError if it cannot be used."""
        message = UPLINK_MESSAGE.validate_json(text)
        if isinstance(message, Hello):
            await self._welcome(message)
            return
        if not self._welcomed:
            raise ProtocolError("the first message must be hello")
        if isinstance(message, StatusMessage):
            check_status(message.status, session=self._session, peer=self._peer, run=message.run)
        await self._inbox.put(message)

    async def _welcome(self, hello: Hello) -> None:
        check_protocol(hello.protocol)
        if self._welcomed:
            raise ProtocolError("hello comes once")
        self._welcomed = True
        welcome = await self._coordinator.participants.connected(self._session, self._uplink)
        # nothing is awaited between the registration and this, so that no wish can come before it
        self._uplink.push(welcome)

    def _refuse(self, error: ProtocolError | ValidationError) -> None:
        """Say what was wrong; close once it has been too often."""
        self._bad_messages += 1
        self._uplink.push(ErrorMessage(code=ProtocolError.code, message=_reason(error)[:_LONGEST_MESSAGE]))
        if self._bad_messages == _MAX_BAD_MESSAGES:
            self._uplink.push(Close(_POLICY_VIOLATION, "too many messages that are not of the protocol"))

    async def _apply(self) -> None:
        """Whatever has gathered is applied at once, and acknowledged after its commit."""
        ended = False
        while not ended:
            batch = [await self._inbox.get()]
            while not self._inbox.empty():
                batch.append(self._inbox.get_nowait())
            messages = [message for message in batch if message is not None]
            ended = len(messages) < len(batch)
            if not messages:
                return
            applied = await self._coordinator.ingest.participant_messages(self._session, self._uplink, messages)
            for run, seq in applied.items():
                self._uplink.push(Ack(run=run, seq=seq))

    async def _send(self) -> None:
        """The outbox to the socket, until it says to close."""
        with contextlib.suppress(ConnectionError):  # the reader sees that the other side is gone, too
            while True:
                message = await self._uplink.outbox.get()
                if isinstance(message, Close):
                    await self._socket.close(code=message.code, message=message.reason.encode())
                    return
                await self._socket.send_str(message.model_dump_json(by_alias=True))

    async def _abort_when_stuck(self) -> None:
        await self._uplink.aborted.wait()
        await self._socket.close(code=_POLICY_VIOLATION, message=b"the uplink is not read", drain=False)


def _reason(error: CotrainError | ValidationError) -> str:
    """What was wrong, without what was sent."""
    if isinstance(error, CotrainError):
        return str(error)
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
