"""The OpenAPI document: every route is in it, and it says what the handlers do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from coordinator.api.openapi import DOCUMENT, openapi_document, undocumented
from coordinator.app import create_app
from coordinator.settings import Settings
from cotrain.paths import SharedPaths


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> web.Application:
    shared = SharedPaths(tmp_path_factory.mktemp("shared")).create()
    return create_app(Settings(shared, public_url="https://train.example"))


@pytest.fixture(scope="module")
def document(app: web.Application) -> dict[str, Any]:
    return openapi_document(app.router, "https://train.example")


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [said for methods in document["paths"].values() for said in methods.values()]


def test_every_route_says_what_it_takes_and_answers(app: web.Application) -> None:
    assert undocumented(app.router) == []


def test_each_operation_has_its_own_id_and_a_summary(document: dict[str, Any]) -> None:
    ids = [said["operationId"] for said in operations(document)]
    assert len(ids) == len(set(ids)) > 20
    assert all(said["summary"] for said in operations(document))


def test_all_references_lead_somewhere(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    names = {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert names <= set(schemas)
    assert {"SessionRequest", "SessionView", "Problem"} <= names


def test_names_are_camel_case_and_every_error_is_a_problem(document: dict[str, Any]) -> None:
    assert "samplesCommitted" in document["components"]["schemas"]["SessionView"]["properties"]
    for path, methods in document["paths"].items():
        wanted = "application/json" if path.startswith("/v1/") else "application/problem+json"  # those in OpenAI's form
        for said in methods.values():
            for status, answer in said["responses"].items():
                if int(status) >= 400 and status != "503":
                    assert list(answer["content"]) == [wanted]


def test_the_page_shows_every_operation_without_a_script(app: web.Application, document: dict[str, Any]) -> None:
    page = app[DOCUMENT].page
    assert all(f'id="{said["operationId"]}"' in page for said in operations(document))
    assert "<script" not in page
    assert "http" not in page.replace("https://train.example", "")  # nothing is loaded from elsewhere


def test_the_document_is_made_once(app: web.Application) -> None:
    assert app[DOCUMENT].json is app[DOCUMENT].json
    assert Path(json.loads(app[DOCUMENT].json)["servers"][0]["url"]).name == "train.example"
