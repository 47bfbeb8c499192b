"""The chat service over HTTP, in OpenAI's form: one model, one engine."""

from __future__ import annotations

import asyncio
import http
import logging
import signal
from collections.abc import AsyncIterator, Callable
from functools import partial

from aiohttp import web
from aiohttp.typedefs import Handler

from cotrain.chat_protocol import (
    MAX_CHAT_BYTES,
    ServedModel,
    ServedModels,
    chat_error,
    chat_status,
    error_of,
    parse_chat,
)
from cotrain.errors import CotrainError, NotFoundError
from cotrain.serve.answers import RunningAnswer
from cotrain.serve.engine import Engine
from cotrain.serve.loading import LoadedModel
from cotrain.status import now

_logger = logging.getLogger(__name__)

_RETRY_AFTER_S = 1
_SHUTDOWN_S = 0.5
_OWNER = "cotrain"
_EXIT_CODES = {signal.SIGTERM: 0, signal.SIGINT: 130}

routes = web.RouteTableDef()


class Served:
    """The model that is served, under its name."""

    def __init__(self, name: str, loaded: LoadedModel, engine: Engine):
        self.name, self.loaded, self.engine = name, loaded, engine
        self.model = ServedModel(id=name, created=int(now()), owned_by=_OWNER)


SERVED = web.AppKey("served", Served)


def create_chat_app(name: str, loaded: LoadedModel, *, running: int, waiting: int) -> web.Application:
    """The application; its engine runs as long as the application does."""
    app = web.Application(middlewares=[_errors], client_max_size=MAX_CHAT_BYTES)
    app.add_routes(routes)

    async def engine(app: web.Application) -> AsyncIterator[None]:
        made = Engine(loaded, running=running, waiting=waiting)
        app[SERVED] = Served(name, loaded, made)
        yield
        await asyncio.to_thread(made.close)

    app.cleanup_ctx.append(engine)
    return app


async def serve_until_signal(
    app: web.Application, site: Callable[[web.AppRunner], web.BaseSite], on_ready: Callable[[], None]
) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. Handlers whose client has gone are cancelled."""
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def end(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    for number, code in _EXIT_CODES.items():
        asyncio.get_running_loop().add_signal_handler(number, partial(end, code))
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        await site(runner).start()
        on_ready()
        return await ended
    finally:
        await runner.cleanup()


@routes.get("/healthz")
async def healthz(request: web.Request) -> web.Response:
    """That it answers, and how much it has to do."""
    engine = request.app[SERVED].engine
    return web.json_response({"status": "ok", "underWay": engine.under_way, "steps": engine.steps})


@routes.get("/v1/models")
async def list_models(request: web.Request) -> web.Response:
    """The one model."""
    return web.json_response(text=ServedModels(data=[request.app[SERVED].model]).model_dump_json())


@routes.get("/v1/models/{model}")
async def get_model(request: web.Request) -> web.Response:
    """The same alone; 404 for others."""
    served = request.app[SERVED]
    _check_name(request.match_info["model"], served)
    return web.json_response(text=served.model.model_dump_json())


@routes.post("/v1/chat/completions")
async def complete(request: web.Request) -> web.StreamResponse:
    """Go on with a conversation; what is said is neither kept nor logged."""
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="send the header Content-Type: application/json")
    served = request.app[SERVED]
    wanted = parse_chat(await request.read())
    _check_name(wanted.model, served)
    answer = RunningAnswer(wanted, served.loaded, served.engine, name=served.name)
    try:
        if wanted.stream:
            return await _stream(request, answer)
        return web.json_response(text=(await answer.whole()).model_dump_json())
    finally:
        answer.cancel()


async def _stream(request: web.Request, answer: RunningAnswer) -> web.StreamResponse:
    response = web.StreamResponse(headers={
        "Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no",
    })  # fmt: skip
    await response.prepare(request)
    async for event in answer.events():
        await response.write(event)
    await response.write_eof()
    return response


def _check_name(name: str, served: Served) -> None:
    if name != served.name:
        raise NotFoundError(f"this service has no model {name!r}", field="model", hint=f"it has {served.name!r}")


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever is raised, in OpenAI's form."""
    try:
        return await handler(request)
    except CotrainError as error:
        status, body = chat_status(error.http_status), error_of(error)
    except web.HTTPException as error:
        phrase = http.HTTPStatus(error.status).phrase
        status, body = error.status, chat_error(error.status, phrase.lower().replace(" ", "-"), error.text or phrase)
    except ConnectionError:
        raise
    except Exception:
        _logger.exception("%s %s failed", request.method, request.path)
        status, body = 500, chat_error(500, "internal", "something went wrong on our side")
    response = web.json_response(text=body.model_dump_json(), status=status)
    if status == http.HTTPStatus.TOO_MANY_REQUESTS:
        response.headers["Retry-After"] = str(_RETRY_AFTER_S)
    return response
