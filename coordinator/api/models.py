"""/api/v1/models: what sessions have made, compared, kept, downloaded. What private ones made is not for strangers."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated

from aiohttp import hdrs, web
from pydantic import Field, TypeAdapter
from sqlalchemy.sql import ColumnElement

from coordinator.api.callers import caller_of
from coordinator.api.operations import CURSOR, LIMIT, Answer, Parameter, operation
from coordinator.api.requests import encode_cursor, json_answer, page_limit, parse_model, read_body, read_cursor
from coordinator.api.seen import versions_seen
from coordinator.auth.permissions import Act, require
from coordinator.comparison import ComparisonView, compare
from coordinator.context import COORDINATOR
from coordinator.downloads import close_files, in_threads, open_model, zip_chunks
from coordinator.model_views import ModelDetailView, ModelView, VersionDetailView, VersionView
from coordinator.registry import Position
from coordinator.views import Page
from cotrain.errors import InvalidRequestError, NotFoundError
from cotrain.request import CamelModel

routes = web.RouteTableDef()

_logger = logging.getLogger(__name__)

_POSITION: TypeAdapter[Position] = TypeAdapter(Position)
_MOST_DIGITS = 9
_VERSION_POSITION: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(ge=0, lt=10**_MOST_DIGITS)])
_MOST_COMPARED = 10
_IDS = Parameter(
    "ids", {"type": "string", "pattern": f"^[^,]+(,[^,]+){{1,{_MOST_COMPARED - 1}}}$"},
    f"2 to {_MOST_COMPARED} models with commas between them; each stands for its newest version, or has the version's "
    "number behind a colon",
)  # fmt: skip
_ARCHIVE = Answer("a ZIP archive", media="application/zip", headers={"Content-Disposition": "its name"})


@routes.get("/api/v1/models")
@operation("models", answers={200: Answer("a page", Page[ModelView])}, parameters=(LIMIT, CURSOR))
async def list_models(request: web.Request) -> web.Response:
    """The models that sessions have made, newest first; of what private ones made, what the caller may see."""
    before, limit = read_cursor(request, _POSITION), page_limit(request)
    items, following = await request.app[COORDINATOR].registry.models(before, limit, await versions_seen(request))
    return json_answer(Page[ModelView](items=items, next_cursor=encode_cursor(following)))


@routes.get("/api/v1/models/compare")
@operation("models", answers={200: Answer("metric by metric", ComparisonView)}, parameters=(_IDS,), errors=(404,))
async def compare_models(request: web.Request) -> web.Response:
    """Which version is better in what, and by how much; what was measured on other data is not compared."""
    references = _references(request.query.get("ids", ""))
    registry, seen = request.app[COORDINATOR].registry, await versions_seen(request)
    return json_answer(compare([await registry.version(name, number, seen) for name, number in references]))


@routes.get("/api/v1/models/{model}")
@operation("models", answers={200: Answer("found", ModelDetailView)}, parameters=(LIMIT, CURSOR))
async def get_model(request: web.Request) -> web.Response:
    """One model, by id or name, with a page of its versions, newest first."""
    before = read_cursor(request, _VERSION_POSITION)
    name, limit = request.match_info["model"], page_limit(request)
    seen = await versions_seen(request)
    coordinator = request.app[COORDINATOR]
    view, following = await coordinator.registry.model(name, before, limit, seen)
    facts = {"next_cursor": encode_cursor(following), "answers_chats": coordinator.settings.config.chat.enabled}
    return json_answer(view.model_copy(update=facts))


@routes.get("/api/v1/models/{model}/download")
@operation("models", answers={200: _ARCHIVE})
async def download_newest(request: web.Request) -> web.StreamResponse:
    """The files of the newest version that has any."""
    return await _download(request, None)


@routes.get("/api/v1/models/{model}/versions/{version}")
@operation("models", answers={200: Answer("found", VersionDetailView)})
async def get_version(request: web.Request) -> web.Response:
    """One version, with the config that it was trained from."""
    registry, seen = request.app[COORDINATOR].registry, await versions_seen(request)
    return json_answer(await registry.version(request.match_info["model"], _version(request), seen))


@routes.get("/api/v1/models/{model}/versions/{version}/download")
@operation("models", answers={200: _ARCHIVE})
async def download_version(request: web.Request) -> web.StreamResponse:
    """Weights (safetensors), config and tokenizer: unpacked, they load with `from_pretrained`."""
    return await _download(request, _version(request))


@routes.post("/api/v1/models/{model}/versions/{version}/pin")
@operation("models", who="account", answers={200: Answer("pinned", VersionView)}, errors=(409,))
async def pin(request: web.Request) -> web.Response:
    """The files of this version stay, however many newer ones there are; 409 if they are gone."""
    return await _pin(request, pinned=True)


@routes.delete("/api/v1/models/{model}/versions/{version}/pin")
@operation("models", who="account", answers={200: Answer("no longer pinned", VersionView)})
async def unpin(request: web.Request) -> web.Response:
    """The files of this version may go once there are enough newer ones."""
    return await _pin(request, pinned=False)


class Promotion(CamelModel):
    """Which version is to answer chats."""

    version: Annotated[int, Field(ge=1, lt=10**_MOST_DIGITS)]


@routes.post("/api/v1/models/{model}/promote")
@operation("models", who="account", body=Promotion, answers={200: Answer("promoted", ModelView)}, errors=(409,))
async def promote(request: web.Request) -> web.Response:
    """This version answers chats with the model from now on, an older one as well; 409 if it cannot be chatted with."""
    seen = await _require_owner(request, "promote")
    wanted = parse_model(await read_body(request), Promotion)
    return json_answer(
        await request.app[COORDINATOR].registry.promote(request.match_info["model"], wanted.version, seen)
    )


async def _pin(request: web.Request, *, pinned: bool) -> web.Response:
    seen = await _require_owner(request, "pin")
    registry = request.app[COORDINATOR].registry
    return json_answer(await registry.pin(request.match_info["model"], _version(request), seen, pinned=pinned))


async def _require_owner(request: web.Request, act: Act) -> ColumnElement[bool]:
    """Which versions are there for the caller, who may do this to the model. Raises as `require`, NotFoundError."""
    caller = await caller_of(request)
    if caller.account is None:
        require(act, caller)  # without a sign-in nobody needs to know whether there is such a model
    seen = await versions_seen(request)
    require(act, caller, owner=await request.app[COORDINATOR].registry.owner(request.match_info["model"], seen))
    return seen


async def _download(request: web.Request, number: int | None) -> web.StreamResponse:
    seen = await versions_seen(request)
    version, folder = await request.app[COORDINATOR].registry.folder(request.match_info["model"], number, seen)
    response = web.StreamResponse(headers={
        "Content-Type": "application/zip", "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="{version.model}-{version.version}.zip"',
    })  # fmt: skip
    await _send_archive(request, response, folder)
    return response


async def _send_archive(request: web.Request, response: web.StreamResponse, folder: Path) -> None:
    """Raises NotFoundError if the files are gone. What fails later ends the connection: the archive is not whole."""
    files = await asyncio.to_thread(open_model, folder)
    try:
        await response.prepare(request)
        if request.method == hdrs.METH_HEAD:
            return
        async for chunk in in_threads(zip_chunks(files)):
            await response.write(chunk)
        await response.write_eof()
    except ConnectionError:
        raise
    except OSError as error:
        _logger.error("%s could not be read to its end: %s", folder, error)
        if request.transport is not None:
            request.transport.abort()
    finally:
        close_files(files)


def _version(request: web.Request) -> int:
    text = request.match_info["version"]
    if not _is_number(text):
        raise NotFoundError("the number of a version is expected here", field="version", hint="they are whole numbers")
    return int(text)


def _references(text: str) -> list[tuple[str, int | None]]:
    """`a,b:3` -> the newest version of a, the third of b. Raises InvalidRequestError."""
    named = text.split(",")
    if not 2 <= len(named) <= _MOST_COMPARED or not all(named):
        raise InvalidRequestError(
            f"expected 2 to {_MOST_COMPARED} models with commas between them", field="ids",
            hint="?ids=MODEL,OTHER or ?ids=MODEL:1,MODEL:2",
        )  # fmt: skip
    return [_reference(name) for name in named]


def _reference(name: str) -> tuple[str, int | None]:
    model, _, number = name.rpartition(":")
    return (model, int(number)) if model and _is_number(number) else (name, None)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
