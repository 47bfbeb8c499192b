"""The present model's perplexity as a criterion: what it is, the process that tells it, and a cycle that goes by it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from coordinator.chat_log import Exchange
from coordinator.learning.likelihood import served_perplexity
from cotrain.errors import ConflictError
from cotrain.learn.quality import LIKELY_PERPLEXITY, judge
from cotrain.paths import SharedPaths
from cotrain.serve.likelihood import byte_perplexity
from cotrain.serve.loading import LoadedModel, load_served_model
from tests.integration.coordinator_fixtures import coordinator_for_nodes, services
from tests.integration.registry_fixtures import exported, finished_session
from tests.integration.test_learning_cli import learn
from tests.serve_fixtures import CONTEXT_TOKENS, chat_model, export_chat_model
from tests.system import own_children

__all__ = ["chat_model", "exported"]

QUESTION = "What is bread made of?"
ANSWER = "Bread is made of flour, water, salt and yeast, and somebody bakes it early in the morning."
TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}<answer>"


def by_transformers(loaded: LoadedModel, prompt: bytes, answer: bytes) -> float:
    """The same by the loss that transformers work out themselves; a byte is a token."""
    tokens = torch.tensor([list(prompt + answer)])
    labels = tokens.clone()
    labels[0, : len(prompt)] = -100
    with torch.inference_mode():
        return math.exp(loaded.model(input_ids=tokens, labels=labels).loss.item())


@pytest.mark.parametrize(
    ("template", "prompt", "answer"),
    [(None, f"User: {QUESTION}\nAssistant:", f" {ANSWER}"), (TEMPLATE, f"<user>{QUESTION}<answer>", ANSWER)],
)
def test_it_is_that_of_the_answer_in_the_form_that_is_served(
    tmp_path: Path, template: str | None, prompt: str, answer: str
) -> None:
    loaded = load_served_model(export_chat_model(tmp_path, template=template))
    expected = by_transformers(loaded, prompt.encode(), answer.encode())
    assert byte_perplexity(loaded, QUESTION, f"{ANSWER}\n") == pytest.approx(expected, rel=1e-4)
    assert byte_perplexity(loaded, "How old is the sea?", ANSWER) != pytest.approx(expected, rel=1e-4)


def test_what_the_context_has_no_room_for_is_left_out(chat_model: Path) -> None:
    loaded = load_served_model(chat_model)
    # the context holds a token to begin at, a space, and so many letters
    longest = ("flour and water " * CONTEXT_TOKENS)[: CONTEXT_TOKENS - 2]
    assert byte_perplexity(loaded, QUESTION, longest + "x") == byte_perplexity(loaded, QUESTION, longest + "yz")
    assert byte_perplexity(loaded, QUESTION, longest[:-1]) != byte_perplexity(loaded, QUESTION, longest + "x")
    shorter = "Flour. " * 20
    assert byte_perplexity(loaded, "a" * 5000 + QUESTION, shorter) == byte_perplexity(
        loaded, "b" * 5000 + "a" * CONTEXT_TOKENS + QUESTION, shorter
    )
    assert math.isfinite(byte_perplexity(loaded, "", "ا"))


def test_a_process_tells_it_and_ends_with_the_block(chat_model: Path) -> None:
    loaded = load_served_model(chat_model)
    before = own_children()
    with served_perplexity(chat_model) as perplexity:
        (child,) = own_children() - before
        for answer in (ANSWER, "نان از آرد و آب است.\n"):
            assert perplexity(QUESTION, answer) == pytest.approx(byte_perplexity(loaded, QUESTION, answer), rel=1e-4)
        assert math.isnan(perplexity(QUESTION, " "))
        child.kill()
        with pytest.raises(ConflictError, match="its process has ended"):
            perplexity(QUESTION, ANSWER)
    assert not child.is_running()


def test_a_model_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with (
        served_perplexity(tmp_path / "nothing") as perplexity,
        pytest.raises(ConflictError, match="is no folder with a config") as caught,
    ):
        perplexity(QUESTION, ANSWER)
    assert caught.value.field == str(tmp_path / "nothing")
    assert "learning.perplexity = false" in caught.value.hint


async def test_a_cycle_refuses_what_the_served_model_finds_absurd(tmp_path: Path, exported: Path) -> None:
    """The model has learnt nothing: to it each byte is as likely as any other."""
    threshold = 9.0
    config = tmp_path / "learning.toml"
    config.write_text(f'[learning]\nmodel = "Poet"\nthreshold = {threshold}\nmin_chats = 1\nperplexity = true\n')
    assert judge(QUESTION, ANSWER, "en").score >= threshold
    assert judge(QUESTION, ANSWER, "en", perplexity=lambda *_: LIKELY_PERPLEXITY).score >= threshold
    async with coordinator_for_nodes(tmp_path) as client:
        model = await finished_session(client, tmp_path, exported, name="Poet", data={"seqLength": 32})
        await services(client).chat_log.add(Exchange(QUESTION, ANSWER, consent="request", model=model, version=1))
        code, _, errors = await learn(tmp_path, "run", "--config", str(config))
        assert code == 0, errors
    (line,) = SharedPaths(tmp_path).enhancement_log.read_text().splitlines()
    told = json.loads(line)
    assert (told["outcome"], told["chats"], told["good"]) == ("not-significant", 1, 0)
    assert told["refused"] == {"low score": 1}
