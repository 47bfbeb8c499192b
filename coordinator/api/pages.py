"""The web page, the pages about the API, and the addresses of sessions for people."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from coordinator.api.openapi import DOCUMENT
from coordinator.api.operations import Answer, operation
from coordinator.context import COORDINATOR

routes = web.RouteTableDef()

STATIC = Path(__file__).resolve().parent.parent / "static"


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


@routes.get("/link")
@operation("pages", answers={200: Answer("the page", media="text/html")})
async def link_page(_request: web.Request) -> web.FileResponse:
    """The page on which a wallet lets a node in that has none."""
    return web.FileResponse(STATIC / "link.html", headers={"Cache-Control": "no-cache"})


@routes.get("/")
@operation("pages", answers={200: Answer("the page", media="text/html")})
async def index(_request: web.Request) -> web.FileResponse:
    """The web page."""
    return web.FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})
