"""/api/v1/catalog: the models and datasets to choose from by name, and one's own among them."""

from __future__ import annotations

from functools import partial
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter

from coordinator.api.callers import caller_of
from coordinator.api.operations import CURSOR, IDEMPOTENCY_KEY, LIMIT, NO_CONTENT, Answer, operation
from coordinator.api.repeats import once
from coordinator.api.requests import encode_cursor, json_answer, page_limit, parse_model, read_body, read_cursor
from coordinator.api.seen import hidden_folders
from coordinator.auth.permissions import Caller, require
from coordinator.catalog_entries import DATASETS, MODELS, DatasetEntryRequest, Kind, ModelEntryRequest
from coordinator.context import COORDINATOR
from coordinator.views import DatasetEntryView, ModelEntryView, Page, dataset_entry_view, model_entry_view
from cotrain.catalog import EntryId, EntryT

routes = web.RouteTableDef()

_POSITION: TypeAdapter[EntryId] = TypeAdapter(EntryId)


@routes.get("/api/v1/catalog/models")
@operation("catalog", answers={200: Answer("a page", Page[ModelEntryView])}, parameters=(LIMIT, CURSOR))
async def list_models(request: web.Request) -> web.Response:
    """The models to go on from: those that come with cotrain, then those that people have added, by id."""
    entries, following = await _page(request, MODELS)
    return json_answer(Page[ModelEntryView](items=[model_entry_view(e) for e in entries], next_cursor=following))


@routes.post("/api/v1/catalog/models")
@operation(
    "catalog", who="account", body=ModelEntryRequest, errors=(409,), parameters=(IDEMPOTENCY_KEY,),
    answers={201: Answer("added", ModelEntryView, names={"entry": "/id"})},
)  # fmt: skip
async def add_model(request: web.Request) -> web.Response:
    """201: everybody can name this model from now on; 409 if one of its names is taken."""
    return json_answer(model_entry_view(await _add(request, MODELS)), status=201)


@routes.get("/api/v1/catalog/models/{entry}")
@operation("catalog", answers={200: Answer("found", ModelEntryView)})
async def get_model(request: web.Request) -> web.Response:
    """One model, by id or name; 404 names near matches."""
    entry = await request.app[COORDINATOR].catalog.find(MODELS, request.match_info["entry"])
    return json_answer(model_entry_view(entry))


@routes.delete("/api/v1/catalog/models/{entry}")
@operation("catalog", who="account", answers=NO_CONTENT, errors=(409,))
async def delete_model(request: web.Request) -> web.Response:
    """204: by its id, whoever has added a model takes it away; sessions that were opened with it keep it."""
    return await _delete(request, MODELS)


@routes.get("/api/v1/catalog/datasets")
@operation("catalog", answers={200: Answer("a page", Page[DatasetEntryView])}, parameters=(LIMIT, CURSOR))
async def list_datasets(request: web.Request) -> web.Response:
    """The datasets to learn from: those that come with cotrain, then those that people have added, by id."""
    entries, following = await _page(request, DATASETS)
    return json_answer(Page[DatasetEntryView](items=[dataset_entry_view(e) for e in entries], next_cursor=following))


@routes.post("/api/v1/catalog/datasets")
@operation(
    "catalog", who="account", body=DatasetEntryRequest, errors=(409,), parameters=(IDEMPOTENCY_KEY,),
    answers={201: Answer("added", DatasetEntryView, names={"entry": "/id"})},
)  # fmt: skip
async def add_dataset(request: web.Request) -> web.Response:
    """201: everybody can name this dataset from now on; 409 if one of its names is taken."""
    return json_answer(dataset_entry_view(await _add(request, DATASETS)), status=201)


@routes.get("/api/v1/catalog/datasets/{entry}")
@operation("catalog", answers={200: Answer("found", DatasetEntryView)})
async def get_dataset(request: web.Request) -> web.Response:
    """One dataset, by id or name; 404 names near matches."""
    entry = await request.app[COORDINATOR].catalog.find(DATASETS, request.match_info["entry"])
    return json_answer(dataset_entry_view(entry))


@routes.delete("/api/v1/catalog/datasets/{entry}")
@operation("catalog", who="account", answers=NO_CONTENT, errors=(409,))
async def delete_dataset(request: web.Request) -> web.Response:
    """204: by its id, whoever has added a dataset takes it away; sessions that were opened with it keep it."""
    return await _delete(request, DATASETS)


async def _page(request: web.Request, kind: Kind[EntryT]) -> tuple[list[EntryT], str | None]:
    after = read_cursor(request, _POSITION)
    entries, following = await request.app[COORDINATOR].catalog.page(kind, after, page_limit(request))
    return entries, encode_cursor(following)


async def _add(request: web.Request, kind: Kind[EntryT]) -> EntryT:
    caller = await caller_of(request)
    require("add", caller)
    account = caller.account or ""
    wanted = parse_model(await read_body(request), kind.request)
    work = partial(request.app[COORDINATOR].catalog.add, kind, wanted, account, await hidden_folders(request))
    return await once(request, account, kind.entry, work)


async def _delete(request: web.Request, kind: Kind[Any]) -> web.Response:
    caller = await caller_of(request)
    if caller.account is None:
        require("withdraw", caller)  # without a sign-in nobody needs to know whether there is such an entry
    check = partial(_require_withdraw, caller)
    await request.app[COORDINATOR].catalog.delete(kind, request.match_info["entry"], check)
    return web.Response(status=204)


def _require_withdraw(caller: Caller, owner: str) -> None:
    require("withdraw", caller, owner=owner)
