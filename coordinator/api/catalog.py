"""/api/v1/catalog: the models and datasets to choose from by name."""

from __future__ import annotations

from aiohttp import web

from coordinator.api.operations import Answer, operation
from coordinator.api.requests import json_answer
from coordinator.views import DatasetEntryView, ModelEntryView, Page, dataset_entry_view, model_entry_view
from cotrain.catalog import find_dataset, find_model, load_datasets, load_models

routes = web.RouteTableDef()


@routes.get("/api/v1/catalog/models")
@operation("catalog", answers={200: Answer("all of them", Page[ModelEntryView])})
async def list_models(request: web.Request) -> web.Response:
    """The models to go on from."""
    return json_answer(Page[ModelEntryView](items=[model_entry_view(entry) for entry in load_models()]))


@routes.get("/api/v1/catalog/models/{entry}")
@operation("catalog", answers={200: Answer("found", ModelEntryView)})
async def get_model(request: web.Request) -> web.Response:
    """One model, by id or name; 404 names near matches."""
    return json_answer(model_entry_view(find_model(request.match_info["entry"])))


@routes.get("/api/v1/catalog/datasets")
@operation("catalog", answers={200: Answer("all of them", Page[DatasetEntryView])})
async def list_datasets(request: web.Request) -> web.Response:
    """The datasets to learn from."""
    return json_answer(Page[DatasetEntryView](items=[dataset_entry_view(entry) for entry in load_datasets()]))


@routes.get("/api/v1/catalog/datasets/{entry}")
@operation("catalog", answers={200: Answer("found", DatasetEntryView)})
async def get_dataset(request: web.Request) -> web.Response:
    """One dataset, by id or name; 404 names near matches."""
    return json_answer(dataset_entry_view(find_dataset(request.match_info["entry"])))
