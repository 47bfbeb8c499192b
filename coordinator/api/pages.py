"""Health, the web page, and the addresses of sessions for people."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from aiohttp import web
from sqlalchemy import text

from coordinator.api.openapi import DOCUMENT
from coordinator.api.operations import Answer, operation
from coordinator.api.requests import json_answer
from coordinator.context import COORDINATOR
from cotrain.request import CamelModel

routes = web.RouteTableDef()

STATIC = Path(__file__).resolve().parent.parent / "static"


class Health(CamelModel):
    """That the process answers."""

    status: Literal["ok"] = "ok"


class Readiness(CamelModel):
    """What a coordinator that is ready has, and whether it is there."""

    status: Literal["ready", "starting"]
    database: bool
    checkpointer: bool


@routes.get("/healthz")
@operation("operations", answers={200: Answer("it does", Health)})
async def healthz(_request: web.Request) -> web.Response:
    """The process answers."""
    return json_answer(Health())


@routes.get("/readyz")
@operation("operations", answers={200: Answer("ready", Readiness), 503: Answer("not yet", Readiness)})
async def readyz(request: web.Request) -> web.Response:
    """The database and the checkpointer are there; 503 with what is missing otherwise."""
    coordinator = request.app[COORDINATOR]
    async with coordinator.store.read() as rows:
        await rows.execute(text("SELECT 1"))
    ready = coordinator.checkpointer.ready is not None
    found = Readiness(status="ready" if ready else "starting", database=True, checkpointer=ready)
    return json_answer(found, status=200 if ready else 503)


@routes.get("/openapi.json")
@operation("operations", answers={200: Answer("OpenAPI 3.1", media="application/json")})
async def openapi(request: web.Request) -> web.Response:
    """What this API takes and answers, for programs."""
    return web.Response(text=request.app[DOCUMENT].json, content_type="application/json")


@routes.get("/docs")
@operation("operations", answers={200: Answer("the page", media="text/html")})
async def docs(request: web.Request) -> web.Response:
    """What this API takes and answers, for people."""
    return web.Response(text=request.app[DOCUMENT].page, content_type="text/html")


@routes.get("/s/{id}")
@operation("pages", answers={302: Answer("to the page of the session", headers={"Location": "where it is"})})
async def session_page(request: web.Request) -> web.Response:
    """The page of a session. 404 if there is no such session."""
    row = await request.app[COORDINATOR].sessions.row(request.match_info["id"])
    raise web.HTTPFound(f"/#/s/{row.id}")


@routes.get("/")
@operation("pages", answers={200: Answer("the page", media="text/html")})
async def index(_request: web.Request) -> web.FileResponse:
    """The web page."""
    return web.FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})
