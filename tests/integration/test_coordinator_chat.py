"""Chats through a coordinator: a small model in real processes, the official client unchanged, what is kept."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import true

from coordinator.chat_log import ChatLog
from coordinator.config import ChatSection, CoordinatorConfig
from coordinator.retention import Retention
from cotrain.paths import SharedPaths
from tests.integration.coordinator_fixtures import (
    STRANGER,
    Client,
    acting_as,
    anonymous,
    coordinator_client,
    get_json,
    post_json,
    services,
    settings_for,
    sign_in,
    until,
)
from tests.integration.registry_fixtures import MODELS, finished_session
from tests.serve_fixtures import ASKED, chat_model

__all__ = ["chat_model"]

TOKENS = 24
CONSENTED = {"consent": True}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with coordinator_client(settings_for(tmp_path)) as client:
        yield client


@pytest.fixture
async def model(client: Client, tmp_path: Path, chat_model: Path) -> str:
    return await finished_session(client, tmp_path, chat_model)


def openai_client(client: Client, key: str | None = None) -> openai.AsyncOpenAI:
    """The official client; with the test's own account if no key is given. It tries nothing twice."""
    own = client.session.headers["Authorization"].removeprefix("Bearer ")
    return openai.AsyncOpenAI(base_url=str(client.make_url("/v1")), api_key=key or own, max_retries=0)


async def say(chats: openai.AsyncOpenAI, model: str, **fields: Any) -> Any:
    body = {"model": model, "messages": ASKED, "max_tokens": TOKENS, "seed": 5} | fields
    return await chats.chat.completions.create(**body)


async def resolved(client: Client, name: str) -> list[int]:
    """Versions that a name stands for: the one that is meant, and who may answer in its place."""
    return [found.version for found in await services(client).chat_models.resolve(name, true())]


async def chat_measures(client: Client) -> dict[tuple[str, ...], float]:
    """By name and label, those that were counted."""
    async with client.get("/metrics") as response:
        families = list(text_string_to_metric_families(await response.text()))
    samples = [sample for family in families for sample in family.samples if family.name.startswith("cotrain_chat")]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def kept(client: Client) -> ChatLog:
    return services(client).chat_log


async def test_the_official_client_chats_with_a_model_of_the_registry(client: Client, model: str) -> None:
    async with openai_client(client, "none") as chats:
        assert [listed.id for listed in (await chats.models.list()).data] == [model, f"{model}:1"]
        assert (await chats.models.retrieve(f"{model}:1")).object == "model"
        assert services(client).chat.processes == {}
        whole = await say(chats, model)
        assert whole.model == f"{model}:1"
        assert whole.usage.completion_tokens == TOKENS
        pieces = [piece async for piece in await say(chats, model, stream=True)]
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole.choices[0].message.content
        assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
        with pytest.raises(openai.NotFoundError):
            await say(chats, f"{model}:2")
        with pytest.raises(openai.BadRequestError, match="less than"):
            await say(chats, model, temperature=3)
    with pytest.raises(openai.AuthenticationError):
        await say(openai_client(client, "somebody's"), model)
    assert await kept(client).count() == 0
    measures = await chat_measures(client)
    assert measures["cotrain_chats_total", "refused"] == 3
    assert measures["cotrain_chats_total", "answered"] == 2
    assert measures["cotrain_chat_tokens_total", "completion"] == 2 * TOKENS


async def test_what_is_kept_has_consent_and_no_personal_data(client: Client, model: str) -> None:
    asked = [
        {"role": "user", "content": "an earlier question"},
        {"role": "assistant", "content": "an earlier answer"},
        {"role": "user", "content": "Write to me at jane.doe@example.org, please"},
    ]
    chats = openai_client(client)
    await say(chats, model, messages=asked)
    assert await kept(client).count() == 0
    answer = await say(chats, model, messages=asked, extra_body=CONSENTED)
    (logged,) = await kept(client).oldest(10)
    assert logged.id == answer.id
    assert (logged.model, logged.version, logged.language) == (model, 1, "en")
    assert logged.question == "Write to me at [email], please"
    streamed = [
        piece async for piece in await say(chats, model, stream=True, extra_headers={"Cotrain-Consent": "true"})
    ]
    assert [chat.id for chat in await kept(client).oldest(10)] == [answer.id, streamed[0].id]


async def test_whoever_has_an_answer_rates_it_and_an_account_has_its_own(client: Client, model: str) -> None:
    mine = await say(openai_client(client), model, extra_body=CONSENTED)
    nobodys = await say(openai_client(client, "-"), model, extra_body=CONSENTED)
    with anonymous(client):
        noted = {"id": nobodys.id, "rating": -1}
        assert await post_json(client, "/v1/feedback", noted) == noted
        missing = await post_json(client, "/v1/feedback", {"id": "chatcmpl-x", "rating": 1}, status=404)
        assert set(missing["error"]) == {"message", "type", "code", "param"}
        wrong = await post_json(client, "/v1/feedback", {"id": mine.id, "rating": 2}, status=400)
        assert wrong["error"]["param"] == "rating"
        await get_json(client, "/v1/chats", status=401)
    assert [chat.rating for chat in await kept(client).oldest(10)] == [0, -1]
    page = await get_json(client, "/v1/chats")
    assert [item["id"] for item in page["items"]] == [mine.id]
    assert page["nextCursor"] is None
    with acting_as(client, await sign_in(client, STRANGER)):
        assert (await get_json(client, "/v1/chats"))["items"] == []
        async with client.delete("/v1/chats") as response:
            assert await response.json() == {"deleted": 0}
    async with client.delete("/v1/chats") as response:
        assert await response.json() == {"deleted": 1}
    with anonymous(client):
        for status in (204, 404):
            async with client.delete(f"/v1/chats/{nobodys.id}") as response:
                assert response.status == status
    assert await kept(client).count() == 0


async def test_nobody_computes_on_for_a_client_that_has_gone(client: Client, model: str) -> None:
    pool = services(client).chat
    await say(openai_client(client), model)
    for stream in (False, True):
        body = {"model": model, "messages": ASKED, "stream": stream, "temperature": 2}

        async def ask(body: dict[str, Any] = body) -> None:
            async with client.post("/v1/chat/completions", json=body) as response:
                await response.read()

        asked = asyncio.create_task(ask())
        await until(lambda: pool.in_use(f"{model}:1") == 1)
        asked.cancel()
        await until(lambda: pool.in_use(f"{model}:1") == 0)
    assert (await chat_measures(client))["cotrain_chats_total", "abandoned"] == 2


async def test_an_answer_that_breaks_off_says_so_and_is_not_kept(client: Client, model: str) -> None:
    chats, pool = openai_client(client, "none"), services(client).chat

    async def kill_the_process_that_answers() -> None:
        async for piece in await say(chats, model, stream=True, max_tokens=450, extra_body=CONSENTED):
            pid = pool.processes.get(f"{model}:1")
            if piece.choices[0].delta.content and pid is not None:
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(openai.APIError, match="broke off"):
        await kill_the_process_that_answers()
    assert await kept(client).count() == 0
    assert (await chat_measures(client))["cotrain_chats_total", "failed"] == 1
    assert (await say(chats, model)).model == f"{model}:1"


async def test_errors_have_openais_form_wherever_they_come_from(client: Client, model: str) -> None:
    for path, status in (("/v1/nothing", 404), ("/v1/models/nothing", 404), ("/v1/chat/completions", 405)):
        answer = await get_json(client, path, status=status)
        assert set(answer["error"]) == {"message", "type", "code", "param"}
    unknown = {"model": model, "messages": ASKED, "tools": []}
    answer = await post_json(client, "/v1/chat/completions", unknown, status=400)
    assert answer["error"]["param"] == "tools"


async def test_strangers_do_not_chat_with_what_is_private(client: Client, tmp_path: Path, chat_model: Path) -> None:
    hidden = await finished_session(client, tmp_path, chat_model, visibility="private")
    with pytest.raises(openai.NotFoundError):
        await say(openai_client(client, "none"), hidden)
    assert (await openai_client(client, "none").models.list()).data == []
    assert (await say(openai_client(client), hidden)).model == f"{hidden}:1"


async def test_a_coordinator_may_offer_no_chats(tmp_path: Path, chat_model: Path) -> None:
    config = CoordinatorConfig(chat=ChatSection(enabled=False))
    async with coordinator_client(settings_for(tmp_path, config=config)) as client:
        model = await finished_session(client, tmp_path, chat_model)
        assert (await get_json(client, "/v1/models"))["data"] == []
        body = {"model": model, "messages": ASKED}
        answer = await post_json(client, "/v1/chat/completions", body, status=404)
        assert "offers no chats" in answer["error"]["message"]
        assert (await get_json(client, f"{MODELS}/{model}"))["answersChats"] is False


async def test_only_the_owner_promotes_and_only_what_can_be_served(
    client: Client, tmp_path: Path, model: str, chat_model: Path
) -> None:
    await finished_session(client, tmp_path, chat_model)
    path = f"{MODELS}/{model}/promote"
    with anonymous(client):
        await post_json(client, path, {"version": 1}, status=401)
    with acting_as(client, await sign_in(client, STRANGER)):
        await post_json(client, path, {"version": 1}, status=403)
    assert (await get_json(client, f"{MODELS}/{model}"))["promotedVersion"] is None
    assert await resolved(client, model) == [2, 1]
    assert (await post_json(client, path, {"version": 1}))["promotedVersion"] == 1
    assert await resolved(client, model) == [1, 2]
    assert await resolved(client, f"{model}:2") == [2]
    await post_json(client, path, {"version": 9}, status=404)
    await post_json(client, path, {"version": "1"}, status=422)
    view = await get_json(client, f"{MODELS}/{model}")
    assert [item["servable"] for item in view["items"]] == [True, True]
    # what is promoted stays, though newer ones alone are to be kept
    retention = Retention(services(client).store, SharedPaths(tmp_path), keep=1)
    assert await retention.apply() == ()
    await post_json(client, path, {"version": 2})
    assert [gone.version for gone in await retention.apply()] == [1]
    await post_json(client, path, {"version": 1}, status=409)
