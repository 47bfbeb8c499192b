"""GETs that answer everybody alike: many readers at once cost little more than one."""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable

from aiohttp import web
from pydantic import BaseModel

from coordinator.context import COORDINATOR


def shared(handler: Callable[[web.Request], Awaitable[BaseModel]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Answer with the model as JSON. It may depend on path and query, and on nothing else of the request.

    What the path stands for counts, not how it was written: a private session's id is another one for strangers.
    """

    @functools.wraps(handler)
    async def answer(request: web.Request) -> web.Response:
        async def work() -> bytes:
            return (await handler(request)).model_dump_json(by_alias=True).encode()

        resource = request.match_info.route.resource
        asked = json.dumps(
            ["" if resource is None else resource.canonical, dict(request.match_info), request.query_string]
        )
        body = await request.app[COORDINATOR].shared_answers.get(asked, work)
        return web.Response(body=body, content_type="application/json", charset="utf-8")

    return answer
