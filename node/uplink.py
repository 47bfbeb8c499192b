"""The uplink: sends the spool to the coordinator, takes acknowledgements and wishes, reconnects for ever.

The coordinator may be away for as long as it likes: training goes on, and what happened meanwhile is sent in
order once it is back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import aiohttp
from pydantic import ValidationError

from cotrain.backoff import Backoff
from cotrain.errors import CotrainError, ForbiddenError, ProtocolError
from cotrain.protocol import (
    DOWNLINK_MESSAGE,
    PROTOCOL_VERSION,
    Ack,
    ErrorMessage,
    Hello,
    Welcome,
    WishMessage,
)
from cotrain.status import WishName, now
from node.client import CoordinatorClient, version_mismatch
from node.spool_file import SpoolFile

RECONNECT_BACKOFF = Backoff(first_s=0.5, most_s=30.0)
_WELCOME_TIMEOUT_S = 15.0
_SEND_INTERVAL_S = 0.06  # the coordinator takes 20 messages a second from one socket
_STEADY_S = 30.0

_log = logging.getLogger(__name__)

OnWish = Callable[[WishName, str], None]
Reauthorize = Callable[[], Awaitable[tuple[str, str]]]


class Uplink:
    """One participant's uplink.

    Args:
        client: an open client of the coordinator.
        session: the session's id.
        credentials: participant id and its token.
        spool: where events come from; it may be filled while the coordinator is away.
        on_wish: called with each wish of the coordinator, repeated ones included.
        on_issuer: called with the coordinator's newest public key at each connection.
        reauthorize: registers again and returns new credentials; called when the old ones are refused.
    """

    def __init__(
        self,
        client: CoordinatorClient,
        session: str,
        credentials: tuple[str, str],
        spool: SpoolFile,
        *,
        on_wish: OnWish,
        reauthorize: Reauthorize,
        on_issuer: Callable[[str], None] = lambda key: None,
        backoff: Backoff = RECONNECT_BACKOFF,
    ):
        self._client = client
        self._session = session
        self._credentials = credentials
        self._spool = spool
        self._on_wish = on_wish
        self._reauthorize = reauthorize
        self._on_issuer = on_issuer
        self._backoff = backoff
        self._connected = False
        self._heard_at = 0.0

    @property
    def credentials(self) -> tuple[str, str]:
        """Participant id and token that are in use now."""
        return self._credentials

    @property
    def heard_at(self) -> float:
        """When the coordinator was last heard here, in Unix seconds; 0.0 if never."""
        return now() if self._connected else self._heard_at

    async def run(self) -> None:
        """Connect, send and receive; and again, until cancelled.

        Raises ForbiddenError once the coordinator says that this account may take no further part.
        """
        attempt = 0
        while True:
            began = time.monotonic()
            try:
                await self._connect()
                reason = "the coordinator closed the uplink"
            except aiohttp.WSServerHandshakeError as error:
                reason = f"the uplink was refused with status {error.status}"
                if error.status == 401:
                    await self._renew_credentials()
            except (aiohttp.ClientError, OSError, TimeoutError, CotrainError) as error:
                reason = str(error) or type(error).__name__
            attempt = 0 if time.monotonic() - began > _STEADY_S else attempt + 1
            delay = self._backoff.delay_s(max(0, attempt - 1))
            _log.warning("%s; %d events wait, next try in %.1f s", reason, len(self._spool), delay)
            await asyncio.sleep(delay)

    async def _renew_credentials(self) -> None:
        try:
            self._credentials = await self._reauthorize()
        except ForbiddenError:
            raise
        except CotrainError as error:
            _log.warning("registering again failed: %s", error)

    async def _connect(self) -> None:
        """One connection's life: Hello, Welcome, then both directions until it ends."""
        async with self._client.stream(self._session, *self._credentials) as socket:
            await socket.send_str(Hello().model_dump_json(by_alias=True))
            welcome = await asyncio.wait_for(_receive(socket), _WELCOME_TIMEOUT_S)
            if not isinstance(welcome, Welcome):
                raise ProtocolError(f"the coordinator did not welcome the uplink: {welcome}")
            if welcome.protocol != PROTOCOL_VERSION:
                raise version_mismatch(welcome.protocol)
            for run, seq in welcome.acknowledged.items():
                self._spool.acknowledge(run, seq)
            self._on_issuer(welcome.issuer)
            self._on_wish(welcome.wish, "")
            self._connected = True
            sending = asyncio.create_task(self._send_events(socket))
            receiving = asyncio.create_task(self._receive_messages(socket))
            try:
                done, _ = await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._connected, self._heard_at = False, now()
                sending.cancel()
                receiving.cancel()
                await asyncio.gather(sending, receiving, return_exceptions=True)
            for task in done:
                task.result()

    async def _send_events(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Everything in the spool once, in order, and then what is added to it."""
        place = -1
        while True:
            entry = self._spool.next_after(place)
            if entry is None:
                await self._spool.wait_changed()
                continue
            await socket.send_str(entry.event.model_dump_json(by_alias=True))
            place = entry.place
            await asyncio.sleep(_SEND_INTERVAL_S)

    async def _receive_messages(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while (message := await _receive(socket)) is not None:
            match message:
                case Ack():
                    self._spool.acknowledge(message.run, message.seq)
                case WishMessage():
                    self._on_wish(message.wish, message.reason)
                case ErrorMessage():
                    _log.warning("the coordinator refused a message: %s (%s)", message.message, message.code)
                case Welcome():
                    raise ProtocolError("the coordinator sent a second welcome")


async def _receive(
    socket: aiohttp.ClientWebSocketResponse,
) -> Welcome | Ack | WishMessage | ErrorMessage | None:
    """The next message, or None once the socket is closed. Raises ProtocolError."""
    raw = await socket.receive()
    if raw.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED):
        return None
    if raw.type is aiohttp.WSMsgType.ERROR:
        raise ProtocolError(f"the uplink broke: {raw.data}")
    try:
        return DOWNLINK_MESSAGE.validate_json(raw.data)
    except ValidationError as error:
        raise ProtocolError("the coordinator sent a message that this node does not know") from error
