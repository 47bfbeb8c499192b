"""Health, the web page, and the addresses of sessions for people."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web
from sqlalchemy import text

from coordinator.context import COORDINATOR

routes = web.RouteTableDef()

STATIC = Path(__file__).resolve().parent.parent / "static"


@routes.get("/healthz")
async def healthz(_request: web.Request) -> web.Response:
    """The process answers."""
    return web.json_response({"status": "ok"})


@routes.get("/readyz")
async def readyz(request: web.Request) -> web.Response:
    """The database and the checkpointer are there; 503 with what is missing otherwise."""
    coordinator = request.app[COORDINATOR]
    async with coordinator.store.read() as rows:
        await rows.execute(text("SELECT 1"))
    ready = coordinator.checkpointer.ready is not None
    body = {"status": "ready" if ready else "starting", "database": True, "checkpointer": ready}
    return web.json_response(body, status=200 if ready else 503)


@routes.get("/s/{id}")
async def session_page(request: web.Request) -> web.Response:
    """The page of a session. 404 if there is no such session."""
    row = await request.app[COORDINATOR].sessions.row(request.match_info["id"])
    raise web.HTTPFound(f"/#/s/{row.id}")


@routes.get("/")
async def index(_request: web.Request) -> web.FileResponse:
    """The web page."""
    return web.FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})
