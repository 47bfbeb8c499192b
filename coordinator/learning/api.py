"""The coordinator's own REST API, as a learning cycle uses it: like anybody else, for a model's owner."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, Self

import aiohttp

from cotrain.answers import PreparingError, ask_json, server_events
from cotrain.backoff import Backoff
from cotrain.errors import ConflictError, RateLimitedError, UnreachableError
from cotrain.sse import END
from cotrain.status import FINAL_STATES

_BACKOFF = Backoff(first_s=0.5, most_s=15.0)
_JOB_INTERVAL_S = 0.5
"""Between two questions about a job, of which no stream of events tells."""
_PASSING = (UnreachableError, PreparingError, RateLimitedError)


class OwnApi:
    """One coordinator. Use it as an asynchronous context manager.

    A coordinator that does not answer is asked again, for ever: it may be restarted while a session trains for days.

    Args:
        base_url: without a slash at its end.
        token: gives a token that is alive.
        say: told in one line whenever a call has to wait.
        backoff: between the tries.
    """

    def __init__(
        self, base_url: str, token: Callable[[], Awaitable[str]], say: Callable[[str], None],
        backoff: Backoff = _BACKOFF,
    ):  # fmt: skip
        self._root = f"{base_url}/api/v1"
        self._token = token
        self._say = say
        self._backoff = backoff

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def get(self, path: str) -> dict[str, Any]:
        """What stands at `path` under /api/v1. Raises what the coordinator answers."""
        return await self._ask("GET", path, {}, None)

    async def post(self, path: str, body: dict[str, Any] | None = None, *, key: str = "") -> dict[str, Any]:
        """Ask for something to be done; with a key once, however often it is asked. Raises as `get`."""
        return await self._ask("POST", path, {"Idempotency-Key": key} if key else {}, body)

    async def session_end(self, session: str) -> dict[str, Any]:
        """The session, once it is in a final state. Raises NotFoundError if it is deleted."""
        while True:
            view = await self.get(f"sessions/{session}")
            if view["status"] in FINAL_STATES:
                return view
            # the stream breaks off whenever the coordinator restarts; then the session is looked at again
            with suppress(UnreachableError):
                await self._next_state(session)

    async def job_end(self, job: str) -> dict[str, Any]:
        """The result of a job, once it is completed. Raises ConflictError that says why it failed."""
        while True:
            view = await self.get(f"jobs/{job}")
            if view["status"] == "completed":
                result: dict[str, Any] = view["result"]
                return result
            if view["status"] == "failed":
                raise ConflictError(view["message"], field=f"job {job}", hint=view["hint"])
            await asyncio.sleep(_JOB_INTERVAL_S)

    async def _next_state(self, session: str) -> None:
        """Return once the session has changed its state, or its stream ends."""
        stream = server_events(self._http, f"{self._root}/sessions/{session}/events", await self._headers())
        async with aclosing(stream) as events:
            async for event in events:
                if event.kind in ("session.state", END):
                    return
                if event.kind == "snapshot" and event.message["data"]["session"]["status"] in FINAL_STATES:
                    return  # it ended between the question and the stream

    async def _ask(
        self, method: str, path: str, headers: dict[str, str], body: dict[str, Any] | None
    ) -> dict[str, Any]:  # fmt: skip
        attempt = 0
        while True:
            try:
                return await self._once(method, f"{self._root}/{path}", headers, body)
            except _PASSING as error:
                delay_s = max(self._backoff.delay_s(attempt), float(getattr(error, "retry_after_s", 0.0)))
                self._say(f"{self._root}/{path}: {error.message}; asking again in {delay_s:.1f} s")
            await asyncio.sleep(delay_s)
            attempt += 1

    async def _once(
        self, method: str, url: str, headers: dict[str, str], body: dict[str, Any] | None
    ) -> dict[str, Any]:  # fmt: skip
        return await ask_json(self._http, method, url, headers={**await self._headers(), **headers}, json=body)

    async def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {await self._token()}"}
