from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from cotrain.config import RunConfig
from cotrain.sections import DataSection, ModelSection, TrainSection
from cotrain.train.data.prepare import PreparedDataset, prepare_dataset
from cotrain.train.data.samples import SampleWriter, TaskDataset
from cotrain.train.evaluate import bigram_loss, evaluate, generate_text, trivial_losses, unigram_loss
from cotrain.train.inner import InnerLoop, cross_entropy_sum
from cotrain.train.model import build_model
from cotrain.train.optim import learning_rate
from cotrain.train.parallel import ParallelGroup
from cotrain.train.spec import DataSpec
from cotrain.train.tasks.registry import make_task
from cotrain.train.tokenizer import byte_tokenizer

SEQ_LENGTH = 64
SPEC = DataSpec(task="causal-lm", vocab_size=256, seq_length=SEQ_LENGTH)
TASK = make_task(SPEC.task, SPEC, seed=0, fields=DataSection().fields)
CONFIG = RunConfig(
    data=DataSection(seq_length=SEQ_LENGTH),
    train=TrainSection(learning_rate=3e-3, warmup_steps=6, batch_size=8, gradient_accumulation_steps=1),
)


@pytest.fixture(scope="module")
def builtin(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return prepare_dataset(CONFIG, folder=tmp_path_factory.mktemp("builtin"))


@pytest.fixture
def model() -> PreTrainedModel:
    return build_model(ModelSection(), SPEC, seed=0)


def dataset_of(path: Path, tokens: np.ndarray) -> TaskDataset:
    with SampleWriter(path, SPEC) as writer:
        writer.add_tokens(tokens.astype(np.uint8))
        writer.finish({})
    return TaskDataset(path, TASK)


def inner_loop(model: PreTrainedModel, dataset: TaskDataset) -> InnerLoop:
    return InnerLoop(CONFIG, model, dataset, ParallelGroup(0, 1, torch.device("cpu")))


# ----------------------------------------------------------------------------------- trivial predictors
def test_the_trivial_losses_of_the_built_in_corpus_are_what_was_measured(builtin: PreparedDataset):
    losses = trivial_losses(*(TaskDataset(path, TASK) for path in (builtin.train, builtin.validation)))
    assert 3.0 <= losses["unigrams"] <= 3.3
    assert 2.2 <= losses["bigrams"] <= 2.7


def test_uniform_bytes_cost_the_logarithm_of_256():
    tokens = np.random.default_rng(0).integers(0, 256, 200_000).astype(np.uint8)
    assert unigram_loss(tokens, tokens, size=256) == pytest.approx(math.log(256), abs=0.01)


def test_alternating_bytes_are_known_from_the_one_before():
    tokens = np.tile(np.array([65, 66], dtype=np.uint8), 5000)
    assert unigram_loss(tokens, tokens, size=256) == pytest.approx(math.log(2), abs=0.01)
    assert bigram_loss(tokens, tokens, size=256) == pytest.approx(0.0, abs=0.01)


@given(st.binary(min_size=2, max_size=200), st.binary(min_size=2, max_size=200))
def test_trivial_losses_agree_with_counting_one_by_one(train: bytes, validation: bytes):
    def cost(context: bytes, following: int) -> float:
        """Of one byte after `context` (none or one byte), by definition."""
        size = len(context)
        places = [i for i in range(size, len(train)) if train[i - size : i] == context]
        hits = sum(train[i] == following for i in places)
        return -math.log((hits + 0.01) / (len(places) + 2.56))

    one = [cost(b"", byte) for byte in validation]
    two = [cost(validation[i - 1 : i], validation[i]) for i in range(1, len(validation))]
    arrays = np.frombuffer(train, np.uint8), np.frombuffer(validation, np.uint8)
    assert unigram_loss(*arrays, size=256) == pytest.approx(sum(one) / len(one))
    assert bigram_loss(*arrays, size=256) == pytest.approx(sum(two) / len(two))


# --------------------------------------------------------------------------------------------- evaluating
def test_evaluation_is_the_mean_over_its_samples_whatever_the_batch_size(model: PreTrainedModel, tmp_path: Path):
    tokens = np.random.default_rng(0).integers(0, 256, SEQ_LENGTH * 6 + 1)
    inner = inner_loop(model, dataset_of(tmp_path / "t", tokens))
    with torch.no_grad():
        batch = inner.dataset.batch(np.arange(6), np.arange(6))
        expected = float(cross_entropy_sum(inner.predictions(batch))) / (6 * SEQ_LENGTH)
    for batches, batch_size in ((6, 1), (2, 4), (100, 100)):
        result = evaluate(inner, inner.dataset, batches=batches, batch_size=batch_size)
        assert result.loss == pytest.approx(expected, abs=1e-5)
        assert result.targets == 6 * SEQ_LENGTH
        assert 0.0 <= result.accuracy <= 1.0


def test_evaluation_reads_samples_from_the_whole_split(model: PreTrainedModel, tmp_path: Path):
    """The text is one byte in its first half and another in its second; both halves must weigh alike."""
    halves = [np.full(SEQ_LENGTH * 50, byte) for byte in (65, 90)]
    parts = [dataset_of(tmp_path / f"{number}", half) for number, half in enumerate(halves)]
    both = dataset_of(tmp_path / "both", np.concatenate([*halves, [90]]))
    inner = inner_loop(model, both)
    losses = [evaluate(inner, part, batches=1, batch_size=4).loss for part in parts]
    result = evaluate(inner, both, batches=2, batch_size=5)
    assert abs(losses[0] - losses[1]) > 0.01
    assert result.loss == pytest.approx(sum(losses) / 2, abs=1e-4)
    assert result.targets == 10 * SEQ_LENGTH


def test_evaluation_leaves_the_model_as_it_was(model: PreTrainedModel, tmp_path: Path):
    inner = inner_loop(model, dataset_of(tmp_path / "t", np.zeros(SEQ_LENGTH * 2 + 1)))
    first = evaluate(inner, inner.dataset, batches=1, batch_size=2)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert evaluate(inner, inner.dataset, batches=1, batch_size=2) == first


def test_a_llama_learns_more_than_byte_frequencies_in_sixty_steps(model: PreTrainedModel, builtin: PreparedDataset):
    train, validation = (TaskDataset(path, TASK) for path in (builtin.train, builtin.validation))
    inner = inner_loop(model, train)
    before = evaluate(inner, validation, batches=2, batch_size=16)
    for step in range(60):
        inner.step(np.arange(step * 8, step * 8 + 8), learning_rate(CONFIG.train, progress=step / 60, total_steps=60))
    after = evaluate(inner, validation, batches=2, batch_size=16)
    assert after.loss < trivial_losses(train, validation)["unigrams"] < before.loss
    assert after.accuracy > before.accuracy


# --------------------------------------------------------------------------------------------- generation
def write(model: PreTrainedModel, prompt: str = "def f", *, seed: int = 0, length: int = 12) -> str:
    return generate_text(model, byte_tokenizer(), prompt, max_new_tokens=length, seed=seed)


def test_generated_text_depends_on_its_seed_only(model: PreTrainedModel):
    torch.manual_seed(1)
    first = write(model)
    torch.manual_seed(2)
    assert write(model) == first
    assert write(model, seed=1) != first


def test_generation_leaves_random_state_and_mode_alone(model: PreTrainedModel):
    model.train()
    before = torch.random.get_rng_state()
    write(model)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.training


def test_an_empty_prompt_and_one_longer_than_the_model_are_continued(model: PreTrainedModel):
    assert write(model, "")
    long = "abc" * SEQ_LENGTH
    room = SEQ_LENGTH - 12
    assert write(model, long) == write(model, long[-room:])


def test_more_than_the_model_has_places_for_is_not_written():
    section = ModelSection(type="gpt2", size="nano")
    model = build_model(section, DataSpec(task="causal-lm", vocab_size=256, seq_length=SEQ_LENGTH), seed=0)
    places = model.config.max_position_embeddings
    assert 0 < len(write(model, "x", length=2 * places).encode("utf-8", "replace")) <= 4 * places
    assert write(model, "x" * 2 * places, length=2 * places)
