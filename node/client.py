"""The coordinator's REST API and uplink as a volunteer sees them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import parse_qs, urlsplit

import aiohttp
from pydantic import ValidationError

from cotrain.answers import PreparingError, ask_json, not_understood, raise_for_problem
from cotrain.backoff import Backoff
from cotrain.errors import ConfigError, InvalidRequestError, ProtocolError, UnreachableError
from cotrain.identity.challenge import Signer, sign_challenge
from cotrain.membership.document import MembershipDocument
from cotrain.protocol import (
    INVITATION_FORM,
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    ChallengeAnswer,
    ChallengeRequest,
    LinkAnswer,
    LinkPoll,
    LinkRequest,
    LinkState,
    LoginAnswer,
    LoginRequest,
    RegisterAnswer,
    RegisterRequest,
    RenewAnswer,
    ResumeRequest,
)
from cotrain.request import CamelModel

FIRST_CONTACT_TRIES = 5
FIRST_CONTACT_BACKOFF = Backoff(first_s=0.65, most_s=6.0, jitter=0.2)
PREPARATION_LIMIT_S = 120.0
_CONNECT_TIMEOUT_S = 5.0
_STALL_TIMEOUT_S = 30.0
_HEARTBEAT_S = 15.0

_SESSION_PATH = re.compile(r"^(?P<prefix>.*)/s/(?P<session>[a-z0-9][a-z0-9-]{0,62})/?$")
_URL_HINT = "it looks like https://coordinator.example/s/my-session"

_Answer = TypeVar("_Answer")
_ModelT = TypeVar("_ModelT", bound=CamelModel)


def parse_session_url(url: str) -> tuple[str, str]:
    """`https://host[:port][/prefix]/s/<session>` -> (base URL without a slash at its end, session id).

    Raises ConfigError that shows the right form.
    """
    origin, path = _split_url(url, _URL_HINT)
    match = _SESSION_PATH.match(path)
    if match is None:
        raise ConfigError("the address names no session", field="URL", hint=_URL_HINT)
    return origin + match["prefix"], match["session"]


def parse_join_url(url: str) -> tuple[str, str | None]:
    """A session's address as `parse_session_url` reads it, or a coordinator's, which names no session: None.

    Raises ConfigError that shows the right forms.
    """
    origin, path = _split_url(url, _URL_HINT)
    if "s" in path.split("/"):  # copied badly, rather than a coordinator whose prefix has an s of its own
        return parse_session_url(url)
    return origin + path.rstrip("/"), None


def invitation_token(given: str, url: str) -> str | None:
    """The token of an invitation: what is given, else what stands in the session's address behind `#invitation=`.

    None without one. Raises InvalidRequestError.
    """
    # what follows the # is sent to nobody, and so is in no log of a server
    token = given or parse_qs(urlsplit(url.strip()).fragment).get("invitation", [""])[0]
    if token and re.fullmatch(INVITATION_FORM, token) is None:
        raise InvalidRequestError("is not the token of an invitation", field="--invitation", hint="copy it again")
    return token or None


def parse_coordinator_url(url: str) -> str:
    """`https://host[:port][/prefix]`, without a slash at its end; a session's address stands for its coordinator's.

    Raises ConfigError that shows the right form.
    """
    origin, path = _split_url(url, "it looks like https://coordinator.example")
    match = _SESSION_PATH.match(path)
    return origin + (match["prefix"] if match else path.rstrip("/"))


def _split_url(url: str, hint: str) -> tuple[str, str]:
    """(scheme, host and port; path). Raises ConfigError."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"is not an address: {error}", field="URL", hint=hint) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("an address begins with http:// or https://", field="URL", hint=hint)
    if parts.username or parts.password:
        raise ConfigError("an address with a password in it is not taken", field="URL", hint=hint)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    authority = host if port is None else f"{host}:{port}"
    return f"{parts.scheme}://{authority}", parts.path


class CoordinatorClient:
    """One coordinator. Use it as an asynchronous context manager.

    Args:
        base_url: public URL of the coordinator, without a slash at its end.
        on_wait: told in one line whenever a call has to wait.
        backoff: between the tries of a first contact.
    """

    def __init__(
        self,
        base_url: str,
        *,
        on_wait: Callable[[str], None] = lambda line: None,
        backoff: Backoff = FIRST_CONTACT_BACKOFF,
    ):
        self.base_url = base_url
        self._on_wait = on_wait
        self._backoff = backoff
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(headers={"Accept": "application/json"})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._http is not None
        await self._http.close()

    async def get_session(self, session: str) -> dict[str, Any]:
        """The session as the coordinator shows it. Raises NotFoundError, UnreachableError."""
        return await self._first_contact(lambda: self._json("GET", self._session_url(session)))

    async def sign_in(self, wallet: Signer) -> str:
        """A token that acts for the wallet's account. Raises UnreachableError, or NotAuthorizedError."""
        wanted = ChallengeRequest(address=wallet.account.address, chain=wallet.account.chain)
        url = f"{self.base_url}/api/v1/auth"
        challenge = await self._first_contact(lambda: self._post(f"{url}/challenge", wanted, ChallengeAnswer))
        signature = sign_challenge(wallet, nonce=challenge.nonce, message=challenge.message, coordinator=self.base_url)
        answer = LoginRequest(nonce=challenge.nonce, signature=signature)
        return (await self._post(f"{url}/login", answer, LoginAnswer)).token

    async def sign_out(self, token: str) -> None:
        """End a token. Raises UnreachableError, or what the coordinator answers."""
        await self._json("POST", f"{self.base_url}/api/v1/auth/logout", headers=_bearer(token))

    async def start_link(self, request: LinkRequest) -> LinkAnswer:
        """Codes with which a wallet in a browser lets this node in. Waits, tries and raises as `register`."""
        url = f"{self.base_url}/api/v1/links"
        return await self._first_contact(lambda: self._prepared(lambda: self._post(url, request, LinkAnswer)))

    async def poll_link(self, device_code: str) -> LinkState:
        """Whether the wallet has signed.

        Raises NotFoundError for a code that is not known (any more), ForbiddenError once nobody will sign,
        RateLimitedError where this is asked too often, UnreachableError.
        """
        return await self._post(f"{self.base_url}/api/v1/links/poll", LinkPoll(device_code=device_code), LinkState)

    async def resume(self, session: str, participant: str, token: str, request: ResumeRequest) -> RegisterAnswer:
        """Go on as a participant that this token was given to. Waits, tries and raises as `register`."""
        url = f"{self._session_url(session)}/participants/{participant}/resume"
        return await self._let_in(url, request, token)

    async def renew(self, session: str, participant: str, token: str) -> MembershipDocument:
        """A certificate for the next days. Raises UnreachableError, NotAuthorizedError, ConflictError."""
        url = f"{self._session_url(session)}/participants/{participant}/renew"
        return _understood(RenewAnswer, await self._json("POST", url, headers=_bearer(token)), url).membership

    async def register(self, session: str, request: RegisterRequest, token: str) -> RegisterAnswer:
        """Take part in a session; waits up to 120 s while its data are being prepared.

        Raises UnreachableError after 5 tries (about 10 s), ProtocolError for another protocol version, and
        what the coordinator answers: NotFoundError, ConflictError for a session that has ended.
        """
        return await self._let_in(self._session_url(session) + "/participants", request, token)

    async def _let_in(self, url: str, request: ResumeRequest, token: str) -> RegisterAnswer:
        answer = await self._first_contact(
            lambda: self._prepared(lambda: self._post(url, request, RegisterAnswer, headers=_bearer(token)))
        )
        if answer.protocol != PROTOCOL_VERSION:
            raise version_mismatch(answer.protocol)
        return answer

    async def _post(self, url: str, request: CamelModel, answer: type[_ModelT], **options: Any) -> _ModelT:
        # what is not set is left out: an older coordinator would refuse even an empty field that it does not know
        body = request.model_dump(mode="json", by_alias=True, exclude_none=True)
        return _understood(answer, await self._json("POST", url, json=body, **options), url)

    async def leave(self, session: str, participant: str, token: str) -> None:
        """Take no further part. Raises UnreachableError, or what the coordinator answers."""
        url = f"{self._session_url(session)}/participants/{participant}"
        await self._json("DELETE", url, headers=_bearer(token))

    @asynccontextmanager
    async def open_asset(
        self, session: str, sha256: str, token: str, *, offset: int = 0
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An asset's bytes from `offset` on: a response of status 206, or 200 with all of them.

        Args:
            token: the participant's.
        """
        url = f"{self._session_url(session)}/assets/{sha256}"
        headers = _bearer(token)
        if offset:
            headers |= {"Range": f"bytes={offset}-", "If-Range": f'"{sha256}"'}
        timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_TIMEOUT_S, sock_read=_STALL_TIMEOUT_S)
        async with self._session().get(url, headers=headers, timeout=timeout) as response:
            await raise_for_problem(response)
            yield response

    def stream(
        self, session: str, participant: str, token: str
    ) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        """The participant's uplink; see cotrain.protocol. Raises aiohttp.ClientError."""
        return self._session().ws_connect(
            f"{self._session_url(session)}/participants/{participant}/stream",
            headers=_bearer(token), heartbeat=_HEARTBEAT_S, max_msg_size=MAX_MESSAGE_BYTES,
            timeout=aiohttp.ClientWSTimeout(ws_close=_CONNECT_TIMEOUT_S),
        )  # fmt: skip

    def _session(self) -> aiohttp.ClientSession:
        assert self._http is not None, "CoordinatorClient is used outside `async with`"
        return self._http

    def _session_url(self, session: str) -> str:
        return f"{self.base_url}/api/v1/sessions/{session}"

    async def _json(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        return await ask_json(self._session(), method, url, **options)

    async def _first_contact(self, call: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Try for about 10 s: the coordinator may just be starting, or a volunteer's line just coming up."""
        for attempt in range(FIRST_CONTACT_TRIES):
            try:
                return await call()
            except UnreachableError as error:
                reason = error.message
            if attempt + 1 < FIRST_CONTACT_TRIES:
                self._on_wait(f"{self.base_url} does not answer ({reason}), trying again")
                await asyncio.sleep(self._backoff.delay_s(attempt))
        raise UnreachableError(
            f"the coordinator did not answer in {FIRST_CONTACT_TRIES} tries: {reason}", field=self.base_url,
            hint="check the address and your network, or ask the operator whether it is running",
        )  # fmt: skip

    async def _prepared(self, call: Callable[[], Awaitable[_Answer]]) -> _Answer:
        deadline = time.monotonic() + PREPARATION_LIMIT_S
        while True:
            try:
                return await call()
            except PreparingError as error:
                if time.monotonic() + error.retry_after_s > deadline:
                    raise
                self._on_wait("waiting for the session's data")
                await asyncio.sleep(error.retry_after_s)


def version_mismatch(theirs: int) -> ProtocolError:
    """The error for another protocol version, with the command that upgrades the older side."""
    older = "here" if theirs > PROTOCOL_VERSION else "on the coordinator"
    return ProtocolError(
        f"the coordinator speaks protocol {theirs}, this node {PROTOCOL_VERSION}",
        hint=f"run {older}: pip install --upgrade cotrain",
    )


def _understood(model: type[_ModelT], answer: dict[str, Any], url: str) -> _ModelT:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        raise not_understood(url, error) from error


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
