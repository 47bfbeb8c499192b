"""The catalog and previews of a real coordinator: what can be asked for, and what it would mean."""

from __future__ import annotations

from typing import Any

import pytest

from cotrain.config import parse_config
from tests.integration.coordinator_fixtures import Client, anonymous, client, get_json, post_json

__all__ = ["client"]

CATALOG = "/api/v1/catalog"
PREVIEW = "/api/v1/configs/preview"
SESSIONS = "/api/v1/sessions"


async def test_the_catalog_is_read_without_a_sign_in(client: Client) -> None:
    with anonymous(client):
        models = await get_json(client, f"{CATALOG}/models")
        datasets = await get_json(client, f"{CATALOG}/datasets")
        one = await get_json(client, f"{CATALOG}/datasets/farstail")
    assert (len(models["items"]), len(datasets["items"]), models["nextCursor"]) == (5, 8, None)
    assert models["items"][0]["sizeBytes"] == 1_200_000_000
    assert (one["huggingFaceId"], one["fields"]["pair"]) == ("azarijafari/FarsTail", "hypothesis")
    assert one in datasets["items"]


@pytest.mark.parametrize(("path", "near"), [("models/brt-fa", "bert-fa"), ("datasets/farstale", "farstail")])
async def test_what_is_not_in_the_catalog_is_told_with_near_matches(client: Client, path: str, near: str) -> None:
    problem = await get_json(client, f"{CATALOG}/{path}", status=404)
    assert f"did you mean {near}" in problem["hint"]
    assert near in problem["near"]


async def test_a_preview_says_all_and_stores_nothing(client: Client) -> None:
    body = {"name": "x", "distributed": {"nodes": 2}, "training": {"batchSize": 4}}
    with anonymous(client):
        found = await post_json(client, PREVIEW, body)
    config = parse_config(found["config"])
    assert (config.distributed.nodes, config.train.batch_size) == (2, 4)
    assert found["estimate"]["parameters"] == 940_416
    assert found["estimate"]["memory"]["totalBytes"] > 940_416 * 16
    assert found["estimate"]["traffic"]["averagingBytes"] == pytest.approx(0.508 * 940_416, rel=0.01)
    assert (found["advice"], found["shortage"]) == ([], "")
    assert (await get_json(client, SESSIONS))["items"] == []


async def test_a_preview_explains_why_a_node_is_too_small(client: Client) -> None:
    body = {"name": "x", "model": {"type": "llama3", "size": "70B"}}
    found = await post_json(client, f"{PREVIEW}?memoryBytes={8 * 2**30}", body)
    assert "one of 8.0 GiB can give 7.2 GiB" in found["shortage"]
    assert "take a smaller model.size" in found["shortage"]
    assert any("--shm-size" in advice["hint"] for advice in found["advice"])
    await post_json(client, f"{PREVIEW}?memoryBytes=-1", body, status=422)


@pytest.mark.parametrize("path", [PREVIEW, SESSIONS])
@pytest.mark.parametrize(
    ("fields", "field", "word"),
    [
        ({"model": {"source": "brt-fa"}, "training": {"task": "masked-lm"}}, "model.source", "did you mean bert-fa"),
        ({"data": {"dataset": "persian poems"}}, "data.dataset", "did you mean persian-poetry"),
        ({"data": {"tokenizer": "gpt2-fe"}}, "data.tokenizer", "did you mean gpt2-fa"),
        ({"data": {"dataPath": "../../etc"}}, "data.dataPath", "relative to that folder"),
        ({"data": {"tokenizer": "/etc"}}, "data.tokenizer", "relative to that folder"),
        (
            {"training": {"enableDistillation": True}, "distillation": {"teacher": "t5-fx"}}, "distillation.teacher",
            "did you mean t5-fa",
        ),
        ({"data": {"dataPath": "x" * 300}}, "data.dataPath", "name a file"),
        ({"data": {"tokenizer": "x" * 300}}, "data.tokenizer", "name a file"),
        ({"training": {"batchSize": 0}}, "training.batchSize", ""),
        ({"distributed": {"nodes": 1, "minPeers": 2}}, "distributed.minPeers", "expect more nodes"),
        ({"model": {"type": "llama2", "size": "8B"}}, "model.size", "7B"),
    ],
)  # fmt: skip
async def test_wrong_requests_are_refused_alike_before_anything_is_stored(
    client: Client, path: str, fields: dict[str, Any], field: str, word: str
) -> None:
    problem = await post_json(client, path, {"name": "x", **fields}, status=422)
    assert problem["field"] == field
    assert word in problem["hint"]
    assert (await get_json(client, SESSIONS))["items"] == []


@pytest.mark.parametrize(
    ("fields", "field", "word"),
    [
        ({"model": {"source": "gpt2-fa"}, "training": {"task": "causal-lm"}}, "model.source", "could not be verified"),
        ({"model": {"source": "t5-fa"}, "training": {"task": "seq2seq-lm"}}, "model.source", "licence"),
        ({"model": {"source": "org/name"}, "training": {"task": "causal-lm"}}, "model.source", "not in the catalog"),
        ({"data": {"dataset": "farstail"}, "training": {"task": "question-answering"}}, "training.task", "is made for"),
        ({"data": {"dataPath": "poems"}}, "data.dataPath", "is not there yet"),
        ({"data": {"tokenizer": "org/name"}}, "data.tokenizer", "assumed"),
        ({"training": {"maxSteps": 5}}, "diloco.innerSteps", "the run 5"),
        ({"distributed": {"nodes": 3, "aggregation": "mean"}}, "distributed.aggregation", "one that lies"),
    ],
)
async def test_what_is_worth_knowing_is_said(client: Client, fields: dict[str, Any], field: str, word: str) -> None:
    found = await post_json(client, PREVIEW, {"name": "x", **fields})
    assert any(advice["field"] == field and word in advice["message"] for advice in found["advice"])


async def test_a_new_session_comes_with_its_estimate(client: Client) -> None:
    opened = await post_json(client, SESSIONS, {"name": "x", "data": {"dataset": "farstail"}}, status=201)
    assert opened["status"] == "draft"
    assert opened["estimate"]["memory"]["totalBytes"] > 0
    assert any(advice["field"] == "data.dataset" for advice in opened["advice"])
    assert "estimate" not in await get_json(client, f"{SESSIONS}/{opened['id']}")
