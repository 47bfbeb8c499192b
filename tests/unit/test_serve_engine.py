"""The engine: what several conversations get is what each gets alone, in fewer steps; places are few, and come free."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cotrain.chat_protocol import BusyError, ChatRequest, ChatUnavailableError, ContextFullError, parse_chat
from cotrain.errors import InvalidRequestError
from cotrain.sections import ModelType
from cotrain.serve.answer_text import AnswerText
from cotrain.serve.batch import Batch
from cotrain.serve.engine import Engine, Job, Piece
from cotrain.serve.loading import LoadedModel, load_served_model
from cotrain.serve.model_folder import UnservableError
from cotrain.serve.prompts import prompt_of
from cotrain.serve.sampling import Sampling, choose_token, generator_for
from tests.serve_fixtures import CONTEXT_TOKENS, export_chat_model
from tests.waiting import wait_until

PROMPTS = [b"one", b"a longer prompt than the first", b"three", b"4"]
LIMIT_S = 60.0
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<answer>"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_served_model(export_chat_model(tmp_path_factory.mktemp("engine") / "poet"), device="cpu")


@pytest.fixture
def engine(loaded: LoadedModel) -> Iterator[Engine]:
    made = Engine(loaded, running=4, waiting=2)
    yield made
    made.close()


class Asked:
    """A job, and what comes of it."""

    def __init__(self, loaded: LoadedModel, prompt: bytes, most_tokens: int, *, seed: int = 1):
        self.pieces: queue.Queue[Piece] = queue.Queue()
        text = AnswerText(lambda tokens: str(loaded.tokenizer.decode(list(tokens))), (), strip_start=False)
        self.job = Job(list(prompt), most_tokens, Sampling(seed=seed), text, self.pieces.put)

    def first(self) -> Piece:
        return self.pieces.get(timeout=LIMIT_S)

    def whole(self) -> tuple[str, Piece]:
        texts = []
        while True:
            piece = self.first()
            texts.append(piece.text)
            if piece.finish is not None or piece.error is not None:
                return "".join(texts), piece


@pytest.mark.parametrize("kind", ["llama3", "gpt2"])
def test_rows_of_a_batch_get_the_logits_that_each_gets_alone(tmp_path: Path, kind: ModelType) -> None:
    loaded = load_served_model(export_chat_model(tmp_path / "poet", kind=kind), device="cpu")
    assert loaded.batches
    assert loaded.context_tokens == CONTEXT_TOKENS
    together = Batch(loaded)
    for prompt in PROMPTS:
        together.add(list(prompt))
    together.step([65] * len(PROMPTS))
    together.keep([0, 2, 3])
    together.add(list(PROMPTS[1]))
    logits = together.step([66] * len(PROMPTS))
    for row, prompt in enumerate([PROMPTS[0], PROMPTS[2], PROMPTS[3]]):
        with torch.inference_mode():
            alone = loaded.model(input_ids=torch.tensor([[*prompt, 65, 66]])).logits[0, -1]
        torch.testing.assert_close(logits[row], alone, rtol=1e-4, atol=1e-4)
    together.keep([])
    assert len(together) == 0
    assert together.add(list(b"anew")).shape == (256,)


def test_concurrent_jobs_share_their_steps_and_get_what_each_gets_alone(loaded: LoadedModel, engine: Engine) -> None:
    alone = []
    for prompt in PROMPTS:
        asked = Asked(loaded, prompt, 40)
        engine.submit(asked.job)
        alone.append(asked.whole()[0])
    assert engine.most_rows == 1
    before = engine.steps
    together = [Asked(loaded, prompt, 40) for prompt in PROMPTS]
    for asked in together:
        engine.submit(asked.job)
    assert [asked.whole()[0] for asked in together] == alone
    assert engine.most_rows == len(PROMPTS)
    # 39 each after the first token; a few more where one joined later
    assert engine.steps - before < 2 * 40


def test_a_full_engine_says_so_and_a_cancelled_job_frees_its_place(loaded: LoadedModel, engine: Engine) -> None:
    jobs = [Asked(loaded, b"talk", CONTEXT_TOKENS - 8, seed=seed) for seed in range(6)]
    for asked in jobs:
        engine.submit(asked.job)
    extra = Asked(loaded, b"me, too", 4)
    with pytest.raises(BusyError):
        engine.submit(extra.job)
    for asked in jobs[:3]:
        asked.job.cancelled.set()
    wait_until(lambda: engine.under_way <= 3, limit_s=LIMIT_S, what="the cancelled ones are gone")
    engine.submit(extra.job)
    assert extra.whole()[1].finish == "length"


def test_whoever_has_an_answer_can_ask_again_at_once(loaded: LoadedModel) -> None:
    engine = Engine(loaded, running=2, waiting=0)
    other = Asked(loaded, b"talk", CONTEXT_TOKENS - 8)
    engine.submit(other.job)
    for number in range(20):
        asked = Asked(loaded, b"and", 1 + number % 3)
        engine.submit(asked.job)
        assert asked.whole()[1].finish == "length"
    engine.close()


def test_an_engine_that_ends_says_so_to_all(loaded: LoadedModel) -> None:
    engine = Engine(loaded, running=1, waiting=1)
    jobs = [Asked(loaded, b"talk", CONTEXT_TOKENS - 8) for _ in range(2)]
    for asked in jobs:
        engine.submit(asked.job)
    engine.close()
    assert all(isinstance(asked.whole()[1].error, ChatUnavailableError) for asked in jobs)
    with pytest.raises(ChatUnavailableError):
        engine.submit(jobs[0].job)


def test_a_step_that_fails_fails_its_jobs_and_no_later_one(loaded: LoadedModel, engine: Engine) -> None:
    broken = Asked(loaded, b"x", 4)
    broken.job.prompt = [10**6]  # no such token
    engine.submit(broken.job)
    assert isinstance(broken.whole()[1].error, ChatUnavailableError)
    fine = Asked(loaded, b"x", 4)
    engine.submit(fine.job)
    assert fine.whole()[1].tokens == 4


# ------------------------------------------------------------------------------------------- sampling
def test_sampling_follows_seed_temperature_and_top_p() -> None:
    logits = torch.tensor([1.0, 3.0, 2.0, -1.0])

    def drawn(sampling: Sampling, count: int = 50) -> list[int]:
        generator = generator_for(sampling)
        return [choose_token(logits, sampling, generator) for _ in range(count)]

    assert set(drawn(Sampling(temperature=0.0))) == {1}
    assert set(drawn(Sampling(temperature=1e-9))) == {1}
    assert set(drawn(Sampling(top_p=0.6))) == {1}
    assert set(drawn(Sampling(top_p=0.8, seed=1), 200)) == {1, 2}
    assert set(drawn(Sampling(temperature=2.0, seed=1), 500)) == {0, 1, 2, 3}
    assert drawn(Sampling(seed=7)) == drawn(Sampling(seed=7))
    assert drawn(Sampling(seed=7)) != drawn(Sampling(seed=8))
    assert drawn(Sampling(seed=-7)) == drawn(Sampling(seed=-7))


# -------------------------------------------------------------------------------------------- prompts
def request(content: str = "hi", **fields: object) -> ChatRequest:
    return parse_chat(json.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **fields}).encode())


def test_the_plain_form_ends_where_the_answer_begins(loaded: LoadedModel) -> None:
    prompt = prompt_of(request(max_tokens=7), loaded)
    assert bytes(prompt.tokens) == b"User: hi\nAssistant:"
    assert (prompt.most_tokens, prompt.stops) == (7, ("\nUser:",))
    assert prompt_of(request(), loaded).most_tokens == CONTEXT_TOKENS - len(prompt.tokens)
    with pytest.raises(ContextFullError, match=str(CONTEXT_TOKENS)):
        prompt_of(request("x" * CONTEXT_TOKENS), loaded)


def test_a_models_own_template_goes_before(tmp_path: Path) -> None:
    refusing = "{{ raise_exception('roles must alternate') }}"
    own = load_served_model(export_chat_model(tmp_path / "own", template=TEMPLATE), device="cpu")
    assert bytes(prompt_of(request(), own).tokens) == b"<user>hi<answer>"
    own.tokenizer.chat_template = refusing
    with pytest.raises(InvalidRequestError, match="roles must alternate"):
        prompt_of(request(), own)


# -------------------------------------------------------------------------------------------- loading
def test_what_is_no_chat_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnservableError, match=r"config\.json"):
        load_served_model(tmp_path)
    folder = export_chat_model(tmp_path / "poet")
    weights = folder / "model.safetensors"
    kept = weights.read_bytes()
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(UnservableError, match="safetensors"):
        load_served_model(folder)
    weights.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(UnservableError, match="cannot be loaded"):
        load_served_model(folder)
    config = folder / "config.json"
    text = config.read_text()
    weights.write_bytes(kept)
    config.write_text(text.replace("LlamaForCausalLM", "LlamaForSequenceClassification"))
    with pytest.raises(UnservableError, match="goes on with a text"):
        load_served_model(folder)
    config.write_text(text.replace('"model_type": "llama"', '"model_type": "bert"'))
    with pytest.raises(UnservableError, match="goes on with a text"):
        load_served_model(folder)
