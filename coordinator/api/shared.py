"""GETs that answer many alike: many readers at once cost little more than one."""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable

from aiohttp import web
from pydantic import BaseModel

from coordinator.api.callers import reader_of
from coordinator.auth.permissions import Caller
from coordinator.context import COORDINATOR

_Handler = Callable[[web.Request], Awaitable[web.Response]]


def shared(handler: Callable[[web.Request], Awaitable[BaseModel]]) -> _Handler:
    """Answer with the model as JSON. It may depend on path and query, and on nothing else of the request.

    What the path stands for counts, not how it was written: a private session's id is another one for strangers.
    """

    @functools.wraps(handler)
    async def answer(request: web.Request) -> web.Response:
        return await _answer(request, "", lambda: handler(request))

    return answer


def shared_by_reader(handler: Callable[[web.Request, Caller], Awaitable[BaseModel]]) -> _Handler:
    """The same, for what may depend on who reads, too: all visitors are one reader."""

    @functools.wraps(handler)
    async def answer(request: web.Request) -> web.Response:
        reader = await reader_of(request)
        return await _answer(request, f"{reader.account} {reader.operator}", lambda: handler(request, reader))

    return answer


async def _answer(request: web.Request, reader: str, handle: Callable[[], Awaitable[BaseModel]]) -> web.Response:
    async def work() -> bytes:
        return (await handle()).model_dump_json(by_alias=True).encode()

    resource = request.match_info.route.resource
    asked = json.dumps(
        ["" if resource is None else resource.canonical, dict(request.match_info), request.query_string, reader]
    )
    body = await request.app[COORDINATOR].shared_answers.get(asked, work)
    return web.Response(body=body, content_type="application/json", charset="utf-8")
