"""`cotrain serve` as its users have it: a process, and the official client unchanged."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.serve_fixtures import ASKED, CONTEXT_TOKENS, chat_model, serving
from tests.waiting import wait_until

__all__ = ["chat_model"]

NAME = "poet"
TOKENS = 40
LONG = CONTEXT_TOKENS - 64
PLACES, WAITING = 4, 1


@pytest.fixture(scope="module")
def url(chat_model: Path) -> Iterator[str]:
    with serving(chat_model, "--max-concurrent", str(PLACES), "--max-waiting", str(WAITING)) as facts:
        assert facts["model"] == NAME
        yield facts["url"]


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as made:
        yield made


def wanted(**fields: Any) -> dict[str, Any]:
    return {"model": NAME, "messages": ASKED, "max_tokens": TOKENS, "seed": 3} | fields


def health(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/healthz") as answer:
        return dict(json.load(answer))


def text_of(client: openai.OpenAI, **fields: Any) -> str:
    answer = client.chat.completions.create(**wanted(**fields))
    return answer.choices[0].message.content or ""


def test_the_official_client_works_unchanged(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    answer = client.chat.completions.create(**wanted())
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == TOKENS
    # byte tokens, of the plain form
    assert answer.usage.prompt_tokens == len(f"User: {ASKED[0]['content']}\nAssistant:")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + TOKENS
    assert text_of(client) == answer.choices[0].message.content
    assert text_of(client, seed=4) != answer.choices[0].message.content
    assert text_of(client, temperature=0, seed=1) == text_of(client, temperature=0, seed=2)
    parts = [{"role": "user", "content": [{"type": "text", "text": ASKED[0]["content"]}]}]
    assert text_of(client, messages=parts) == answer.choices[0].message.content


def test_a_stream_tells_what_comes_in_one_piece_otherwise(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(**wanted(), stream=True, stream_options={"include_usage": True}))
    told = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in told) == text_of(client)
    assert len(told) > TOKENS / 4  # bytes of one character come together
    assert [choice.finish_reason for choice in told[-2:]] == [None, "length"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == TOKENS
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stop_text_ends_the_answer_before_itself(client: openai.OpenAI) -> None:
    whole = text_of(client)
    stop = whole[len(whole) // 2 :][:3]
    answer = client.chat.completions.create(**wanted(stop=[stop, "never said"]))
    assert answer.choices[0].message.content == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    pieces = [
        chunk.choices[0].delta.content or ""
        for chunk in client.chat.completions.create(**wanted(stop=stop), stream=True)
    ]
    assert "".join(pieces) == whole[: whole.index(stop)]


def test_wrong_requests_are_answered_in_openais_form(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        text_of(client, model="another")
    assert missing.value.param == "model"
    for field, value in (("temperature", 3), ("top_p", 0), ("n", 2), ("messages", []), ("frequency_penalty", 1)):
        with pytest.raises(openai.BadRequestError) as refused:
            text_of(client, **{field: value})
        assert str(refused.value.param).startswith(field)
    with pytest.raises(openai.BadRequestError) as full:
        text_of(client, messages=[{"role": "user", "content": "x" * CONTEXT_TOKENS}])
    assert full.value.code == "context_length_exceeded"
    with pytest.raises(openai.APIStatusError) as large:
        text_of(client, messages=[{"role": "user", "content": "x" * 70_000}])
    assert large.value.status_code == 413


async def test_those_who_ask_at_once_share_the_steps(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        async def ask(seed: int) -> str:
            answer = await client.chat.completions.create(**wanted(seed=seed, max_tokens=LONG))
            return answer.choices[0].message.content or ""

        start = health(url)["steps"]
        alone = await ask(0)
        middle = health(url)["steps"]
        together = await asyncio.gather(*map(ask, range(PLACES)))
        end = health(url)["steps"]
    assert middle - start == LONG - 1
    assert end - middle < 2 * LONG
    assert together[0] == alone
    assert len(set(together)) == PLACES


def test_a_full_service_says_429_until_somebody_goes(url: str, client: openai.OpenAI) -> None:
    streams = [client.chat.completions.create(**wanted(max_tokens=LONG), stream=True) for _ in range(PLACES + WAITING)]
    assert health(url)["underWay"] == PLACES + WAITING
    with pytest.raises(openai.RateLimitError) as full:
        text_of(client)
    assert int(full.value.response.headers["Retry-After"]) >= 1
    for stream in streams:
        stream.close()
    wait_until(lambda: health(url)["underWay"] == 0, what="who has gone has freed its place")
    assert text_of(client)


def test_a_folder_without_a_model_is_explained(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cotrain.cli", "serve", str(tmp_path), "--port", "0", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 65
    error = json.loads(ended.stderr.splitlines()[-1])["error"]
    assert (error["code"], error["field"]) == ("unservable", str(tmp_path))
