"""The aiohttp application: routes, middleware, and what lives as long as it does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from coordinator.api import (
    assets,
    auth,
    catalog,
    chat,
    contributors,
    events,
    invitations,
    jobs,
    learning,
    links,
    models,
    monitoring,
    pages,
    participants,
    records,
    sessions,
    trained,
    uplink,
)
from coordinator.api.monitoring import observe
from coordinator.api.openapi import DOCUMENT, ApiDocument
from coordinator.api.requests import MAX_BODY_BYTES
from coordinator.auth.origins import origin_allowed
from coordinator.context import COORDINATOR, Coordinator, build_coordinator
from coordinator.ingest import CHECKPOINTER
from coordinator.metrics import thin_forever
from coordinator.problem import REQUEST_ID, REQUEST_ID_HEADER, problems
from coordinator.settings import Settings
from cotrain.errors import ForbiddenError, NotFoundError
from cotrain.watch import StatusWatcher

_logger = logging.getLogger(__name__)

_SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_RETRY_S = 1.0
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def create_app(settings: Settings) -> web.Application:
    """The coordinator, ready to be run; nothing is opened or started before it is."""
    app = web.Application(
        middlewares=[observe, problems, _guard],
        client_max_size=MAX_BODY_BYTES,
    )
    app[COORDINATOR] = build_coordinator(settings)
    for module in (
        auth, links, sessions, assets, catalog, models, chat, jobs, learning, trained, participants, contributors,
        invitations, records, uplink, events, monitoring, pages,
    ):  # fmt: skip
        app.router.add_routes(module.routes)
    app.router.add_routes(sessions.action_routes)
    app.router.add_static("/static", pages.STATIC)
    app[DOCUMENT] = ApiDocument(app.router, settings.public_url)
    app.on_response_prepare.append(_add_headers)
    app.on_shutdown.append(_say_goodbye)
    # each context is ended before the ones above it
    app.cleanup_ctx.extend((_store, _chain, _ingest, _progress, _metrics, _certificates, _leftovers))
    app.cleanup_ctx.extend((_checkpointer, _evaluations, _chat, _learning, _status_files, _finishing))
    return app


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What holds for every resource alike."""
    _check_path(request)
    _check_origin(request)
    await invitations.hide_private_session(request)
    return await handler(request)


def _check_path(request: web.Request) -> None:
    """Nothing here has a name with characters that a database refuses."""
    if _UNSTORABLE.search(request.path):
        raise NotFoundError("there is no such thing", hint="GET /docs says what there is")


def _check_origin(request: web.Request) -> None:
    """Web pages of other hosts may neither change anything here nor open a socket."""
    if request.method in _SAFE_METHODS and "Upgrade" not in request.headers:
        return
    public_url = request.app[COORDINATOR].settings.public_url
    if not origin_allowed(request.headers.get("Origin"), request.host, public_url):
        raise ForbiddenError(
            "web pages of other hosts may not do this", field="Origin",
            hint="use the coordinator's own page; --public-url says where it is",
        )  # fmt: skip


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_SECURITY_HEADERS)
    if request.path.startswith("/static/"):
        # asked for again each time (304 mostly): an upgrade must not mix old scripts with new ones
        response.headers["Cache-Control"] = "no-cache"
    if REQUEST_ID in request:
        response.headers[REQUEST_ID_HEADER] = request[REQUEST_ID]


async def _say_goodbye(app: web.Application) -> None:
    app[COORDINATOR].hub.close()
    app[COORDINATOR].uplinks.close()


async def _store(app: web.Application) -> AsyncIterator[None]:
    coordinator = app[COORDINATOR]
    coordinator.settings.shared.create()
    await coordinator.store.migrate()
    await coordinator.participants.forget_connections()
    await coordinator.registry.catch_up()
    yield
    await coordinator.contract_wallets.close()
    await coordinator.store.close()


async def _chain(app: web.Application) -> AsyncIterator[None]:
    coordinator = app[COORDINATOR]
    if not coordinator.settings.config.chain.enabled:
        yield
        return
    await coordinator.recorder.start()
    async with _background("chain", coordinator.recorder.run):
        yield
    await coordinator.recorder.close()


async def _ingest(app: web.Application) -> AsyncIterator[None]:
    async with _background("ingest", app[COORDINATOR].ingest.run):
        yield


async def _progress(app: web.Application) -> AsyncIterator[None]:
    async with _background("progress", app[COORDINATOR].pump.run):
        yield


async def _metrics(app: web.Application) -> AsyncIterator[None]:
    async with _background("metrics", partial(thin_forever, app[COORDINATOR].store)):
        yield


async def _certificates(app: web.Application) -> AsyncIterator[None]:
    async with _background("certificates", app[COORDINATOR].certificates.refresh_forever):
        yield


async def _leftovers(app: web.Application) -> AsyncIterator[None]:
    """Removes what may go by now, and what was set aside before a crash, beside everything else."""
    coordinator = app[COORDINATOR]

    async def remove() -> None:
        try:
            await coordinator.retention.apply()
            await coordinator.cleanup.finish()
        except Exception:
            _logger.exception("what was left over could not be removed; it is tried again at the next start")

    task = asyncio.create_task(remove(), name="leftovers")
    yield
    await task


async def _checkpointer(app: web.Application) -> AsyncIterator[None]:
    async with _background("checkpointer", app[COORDINATOR].checkpointer.run):
        yield


async def _evaluations(app: web.Application) -> AsyncIterator[None]:
    async with _background("evaluations", app[COORDINATOR].evaluations.run):
        yield


async def _learning(app: web.Application) -> AsyncIterator[None]:
    async with _background("auto-learning", app[COORDINATOR].learning.run):
        yield


async def _chat(app: web.Application) -> AsyncIterator[None]:
    yield
    await app[COORDINATOR].chat.close()


async def _status_files(app: web.Application) -> AsyncIterator[None]:
    async with _background("status files", partial(_apply_status_files, app[COORDINATOR])):
        yield


async def _finishing(app: web.Application) -> AsyncIterator[None]:
    yield
    app[COORDINATOR].sessions.close()


async def _apply_status_files(coordinator: Coordinator) -> None:
    """The checkpointer's snapshots; those of participants on this machine come by their uplinks."""
    async for change in StatusWatcher(coordinator.settings.shared.training_logs).changes():
        status, folder = change.status, change.path.parent
        own_place = folder.name == CHECKPOINTER and folder.parent.name == status.session
        if own_place and status.peer == CHECKPOINTER and not change.stale:
            await coordinator.ingest.checkpointer_status(status)


@contextlib.asynccontextmanager
async def _background(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Keep `work` running beside the application; the task is ended and awaited with the context."""
    task = asyncio.create_task(_keep_running(name, work), name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _keep_running(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """A fault (a full disk, a locked database) is logged and must not end what everybody depends on."""
    while True:
        try:
            await work()
        except Exception:
            _logger.exception("the coordinator's %s failed; it is taken up again", name)
        await asyncio.sleep(_RETRY_S)
