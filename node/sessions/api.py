"""The coordinator's REST API as those see it who open, watch and steer sessions."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import urlencode

from cotrain.answers import PreparingError, server_events
from cotrain.backoff import Backoff
from cotrain.errors import NotAuthorizedError, NotFoundError, RateLimitedError, UnreachableError
from cotrain.protocol import Hardware
from cotrain.sse import END, ServerEvent
from node.client import CoordinatorClient

PAGE_ITEMS = 200
"""What the coordinator answers at once, at most."""
STREAM_BACKOFF = Backoff(first_s=0.5, most_s=10.0, jitter=0.2)
_PASSING = (UnreachableError, PreparingError, RateLimitedError)


class SessionsApi(CoordinatorClient):
    """One coordinator, as an account or a visitor sees it. Use it as an asynchronous context manager.

    Args:
        base_url: public URL of the coordinator, without a slash at its end.
        token: of the account; empty for a visitor.
        invitation: token of an invitation to a private session; empty without one.
        on_wait: told in one line whenever a call has to wait.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str = "",
        invitation: str = "",
        on_wait: Callable[[str], None] = lambda line: None,
    ):
        super().__init__(base_url, on_wait=on_wait)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        if invitation:
            self._headers["Cotrain-Invitation"] = invitation

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        """What stands at `path` under /api/v1. Raises UnreachableError after 5 tries, and what it answers."""
        return await self._ask("GET", self._url(path, query))

    async def session_with_record(self, session: str) -> dict[str, Any]:
        """A session, and under `record` what of it stands on a chain; null of a coordinator that keeps no records."""
        view = await self.get(f"sessions/{session}")
        try:
            return {**view, "record": await self.get(f"sessions/{session}/record")}
        except NotFoundError:  # an older coordinator
            return {**view, "record": None}

    async def get_once(self, path: str, *, limit_s: float, **query: Any) -> dict[str, Any]:
        """The same in one try of `limit_s` seconds. Raises TimeoutError besides."""
        async with asyncio.timeout(limit_s):
            return await self._json("GET", self._url(path, query), headers=self._headers, allow_redirects=False)

    async def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask for something to be done, once, however often the answer gets lost. Raises as `get`."""
        repeats = {"Idempotency-Key": secrets.token_hex(16)}
        return await self._ask("POST", self._url(path, {}), headers=repeats, json=body)

    async def delete(self, path: str) -> None:
        """Take something away. Raises as `get`."""
        await self._ask("DELETE", self._url(path, {}))

    async def items(self, path: str, *, most: int, **query: Any) -> list[dict[str, Any]]:
        """The first `most` items of a list, in its order, page by page. Raises as `get`."""
        items: list[dict[str, Any]] = []
        cursor: dict[str, Any] = {}
        while len(items) < most:
            page = await self.get(path, limit=min(PAGE_ITEMS, most - len(items)), **query, **cursor)
            items += page["items"]
            if page.get("nextCursor") is None:
                break
            cursor = {"cursor": page["nextCursor"]}
        return items

    async def open_to(self, hardware: Hardware, *, most: int) -> list[dict[str, Any]]:
        """The first `most` sessions that a node with this hardware can join, the best first. Raises as `get`."""
        memory = {"memoryBytes": hardware.memory_bytes, "gpuMemoryBytes": hardware.gpu_memory_bytes}
        return await self.items("sessions/open", most=most, **memory)

    async def events(self, session: str, after: int | None = None) -> AsyncGenerator[ServerEvent, None]:
        """What happens in a session: a snapshot, then all events after number `after`, or those to come.

        A stream that breaks off is resumed after its last event, for ever; each time a snapshot comes first.
        Raises what the coordinator answers: NotFoundError for a session that is gone.
        """
        attempt = 0
        while True:
            reason = "the stream has ended"
            try:
                async with aclosing(self._stream(session, after)) as stream:
                    async for event in stream:
                        attempt, after = 0, after if event.number is None else event.number
                        yield event
            except _PASSING as error:
                reason = error.message
            self._on_wait(f"{self.base_url}: {reason}; resuming")
            await asyncio.sleep(STREAM_BACKOFF.delay_s(attempt))
            attempt += 1

    async def _stream(self, session: str, after: int | None) -> AsyncGenerator[ServerEvent, None]:
        url = self._url(f"sessions/{session}/events", {} if after is None else {"after": after})
        async with aclosing(server_events(self._session(), url, self._headers, allow_redirects=False)) as events:
            async for event in events:
                if event.kind == END:
                    return
                yield event

    async def _ask(
        self, method: str, url: str, *, headers: dict[str, str] | None = None, **options: Any
    ) -> dict[str, Any]:
        sent = self._headers | (headers or {})

        def call() -> Awaitable[dict[str, Any]]:
            # an invitation would go along to wherever a redirection leads
            return self._json(method, url, headers=sent, allow_redirects=False, **options)

        try:
            return await self._first_contact(call)
        except NotAuthorizedError as error:
            raise NotAuthorizedError(
                error.message, field=error.field, hint=f"sign in with: cotrain sessions login {self.base_url}",
                details=error.details,
            ) from error  # fmt: skip

    def _url(self, path: str, query: dict[str, Any]) -> str:
        return f"{self.base_url}/api/v1/{path}" + (f"?{urlencode(query)}" if query else "")
