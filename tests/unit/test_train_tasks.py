"""Laws of all tasks: what is random and from what, what counts; and of those that learn from a stream of tokens."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cotrain.errors import ConfigError
from cotrain.sections import FieldsSection, ModelSection, ModelType, TaskName
from cotrain.train.model import build_model, inference_mode
from cotrain.train.presets import supported_pairs
from cotrain.train.tasks.language import CORRUPTED_SHARE, keyed_uniforms, span_counts
from cotrain.train.tasks.metrics import IGNORE
from cotrain.train.tasks.registry import make_task
from tests.unit.task_fixtures import (
    CLS_ID,
    MASK_ID,
    ROWS,
    SEP_ID,
    SEQ_LENGTH,
    batch_of,
    collate,
    samples_of,
    spec_of,
    task_of,
)

FEWER = settings(max_examples=50)
KEYS = st.lists(st.integers(0, 2**60), min_size=1, max_size=6)
ALL_TASKS = [(name, False) for name in get_args(TaskName)] + [("seq2seq-lm", True)]
each_task = pytest.mark.parametrize(("name", "with_targets"), ALL_TASKS)


# ------------------------------------------------------------------------------------------------ all tasks
@each_task
def test_a_batch_is_int64_with_one_row_for_each_sample(name: TaskName, with_targets: bool):
    task = task_of(name, with_targets=with_targets)
    samples = samples_of(task)
    batch = collate(task, samples)
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
    assert {len(tensor) for tensor in batch.values()} == {len(samples)}
    assert batch["input_ids"].shape[1] <= task.spec.seq_length
    assert int(batch["input_ids"].max()) < task.spec.vocab_size
    assert set(samples[0]) == set(task.columns)


@each_task
def test_samples_hold_no_negative_number(name: TaskName, with_targets: bool):
    for sample in samples_of(task_of(name, with_targets=with_targets)):
        assert all(column.ndim == 1 and (column >= 0).all() for column in sample.values())


@each_task
def test_what_is_random_in_a_sample_follows_from_its_key_whatever_the_micro_batch(name: TaskName, with_targets: bool):
    task = task_of(name, with_targets=with_targets)
    samples = samples_of(task)
    keys = [7 + 3 * number for number in range(len(samples))]
    whole = collate(task, samples, keys)
    for number, (sample, key) in enumerate(zip(samples, keys, strict=True)):
        alone = collate(task, [sample], [key])
        for column, tensor in alone.items():
            row, rest = whole[column][number, ...].flatten(), tensor.flatten()
            assert torch.equal(row[: len(rest)], rest)


@each_task
def test_targets_are_what_is_counted(name: TaskName, with_targets: bool):
    task = task_of(name, with_targets=with_targets)
    batch = batch_of(task)
    targets = task.targets(batch)
    assert targets.ndim == 1
    assert len(targets) == task.count_targets(batch) > 0
    assert bool((targets >= 0).all())


@pytest.mark.parametrize(("kind", "name"), supported_pairs())
def test_predictions_have_the_batchs_targets_and_do_not_depend_on_the_padding(kind: ModelType, name: TaskName):
    task = task_of(name)
    samples = samples_of(task)
    model = build_model(ModelSection(type=kind, size="nano"), task.spec, seed=0)
    whole = collate(task, samples)
    with inference_mode(model):
        together = task.predictions(model, whole)
        alone = [task.predictions(model, collate(task, [sample], [key])) for key, sample in enumerate(samples)]
    targets = torch.cat([targets[targets != IGNORE] for _, targets in together])
    assert torch.equal(targets, task.targets(whole))
    for which, (logits, targets) in enumerate(together):
        assert logits.dtype == torch.float32
        whole_loss = F.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORE)
        losses = [F.cross_entropy(*part[which], reduction="sum", ignore_index=IGNORE) for part in alone]
        torch.testing.assert_close(torch.stack(losses).sum(), whole_loss, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", get_args(TaskName))
def test_a_task_asks_for_the_data_it_was_made_for(name: TaskName):
    other: TaskName = "causal-lm" if name != "causal-lm" else "masked-lm"
    with pytest.raises(ConfigError, match=f"prepared for {other}") as raised:
        make_task(name, spec_of(other), seed=0, fields=FieldsSection())
    assert raised.value.hint


def test_data_without_targets_is_not_taken_for_data_with_them():
    with pytest.raises(ConfigError, match="without targets"):
        make_task("seq2seq-lm", spec_of("seq2seq-lm"), seed=0, fields=FieldsSection(target="answer"))


def test_tasks_name_the_roles_they_read():
    plain, pairs = FieldsSection(), FieldsSection(pair="hypothesis")
    assert task_of("causal-lm").roles(plain) == ("text",)
    assert task_of("seq2seq-lm", with_targets=True).roles(plain) == ("source", "target")
    assert task_of("text-classification").roles(plain) == ("text", "label")
    assert task_of("text-classification").roles(pairs) == ("text", "pair", "label")
    assert task_of("token-classification").roles(plain) == ("tokens", "tags")
    assert task_of("question-answering").roles(plain) == ("question", "context", "answers")


def test_only_tasks_of_classes_find_classes_in_a_row():
    assert list(task_of("text-classification").label_of({"text": "", "label": 3})) == [3]
    assert list(task_of("token-classification").label_of({"tags": ["O", "B-LOC"]})) == ["O", "B-LOC"]
    assert list(task_of("question-answering").label_of(ROWS["question-answering"][0])) == []


# ------------------------------------------------------------------------------------------ next token
def test_each_token_is_to_be_predicted_from_those_before_it():
    task = task_of("causal-lm")
    assert (task.window, task.stride) == (SEQ_LENGTH + 1, SEQ_LENGTH)
    batch = collate(task, [{"tokens": np.arange(SEQ_LENGTH + 1, dtype=np.uint8)}])
    assert batch["input_ids"].tolist() == [list(range(SEQ_LENGTH))]
    assert batch["labels"].tolist() == [list(range(1, SEQ_LENGTH + 1))]


# ------------------------------------------------------------------------------------------ masked tokens
@FEWER
@given(keys=KEYS, seed=st.integers(0, 2**31 - 1))
def test_a_masked_text_and_its_targets_give_the_text_back(keys: list[int], seed: int):
    task = task_of("masked-lm", seed=seed)
    samples = samples_of(task, count=len(keys))
    batch = collate(task, samples, keys)
    restored = torch.where(batch["labels"] == IGNORE, batch["input_ids"], batch["labels"]).numpy()
    expected = np.stack([sample["tokens"] for sample in samples])
    assert (restored[:, 0] == CLS_ID).all()
    assert (restored[:, 1:-1] == expected).all()
    assert (restored[:, -1] == SEP_ID).all()
    assert (batch["labels"] != IGNORE).any(dim=1).all()


def test_the_shares_of_masked_random_and_kept_tokens_are_berts():
    task = task_of("masked-lm", seq_length=512)
    samples = samples_of(task, count=400)
    batch = collate(task, samples)
    chosen = batch["labels"] != IGNORE
    inputs, labels = batch["input_ids"][chosen], batch["labels"][chosen]
    share = int(chosen.sum()) / (len(samples) * task.window)
    masked = (inputs == MASK_ID).float().mean().item()
    kept = (inputs == labels).float().mean().item()
    assert share == pytest.approx(CORRUPTED_SHARE, abs=0.005)
    assert masked == pytest.approx(0.8, abs=0.01)
    assert kept == pytest.approx(0.1 + 0.1 * (36 + 1) / 292, abs=0.01)  # a special or the same token may be drawn
    replaced = inputs[(inputs != MASK_ID) & (inputs != labels)]
    assert int(replaced.max()) < 256
    assert len(replaced.unique()) > 250


def test_another_key_or_seed_masks_other_tokens():
    task, other = task_of("masked-lm"), task_of("masked-lm", seed=1)
    samples = samples_of(task, count=1) * 2
    labels = collate(task, samples, [1, 2])["labels"]
    assert not torch.equal(labels[0], labels[1])
    assert not torch.equal(labels, collate(other, samples, [1, 2])["labels"])


def test_uniforms_are_spread_evenly():
    numbers = keyed_uniforms(3, np.arange(1000), 100)
    counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
    assert counts.min() > 4700
    assert counts.max() < 5300
    assert len(np.unique(numbers)) == numbers.size


# ------------------------------------------------------------------------------------------ spans cut out
def put_back(inputs: list[int], labels: list[int], sentinels: tuple[int, ...]) -> list[int]:
    """The text that a T5 model was given with the spans that it was to write in their places."""
    spans: dict[int, list[int]] = {}
    for token in labels:
        if token in sentinels:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    return [token for item in inputs for token in (spans[item] if item in sentinels else [item])]


@FEWER
@given(keys=KEYS, seq_length=st.sampled_from([8, 9, 32, 100]))
def test_a_corrupted_text_and_its_targets_give_the_text_back(keys: list[int], seq_length: int):
    task = task_of("seq2seq-lm", seq_length=seq_length)
    samples = samples_of(task, count=len(keys))
    batch = collate(task, samples, keys)
    assert batch["input_ids"].shape[1] <= seq_length
    for inputs, labels, sample in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), samples, strict=True):
        assert (inputs[0], inputs[-1], labels[-1]) == (CLS_ID, SEP_ID, SEP_ID)
        sentinels = task.spec.sentinel_ids
        assert put_back(inputs[1:-1], labels[:-1], sentinels) == sample["tokens"].tolist()
        used = [token for token in inputs if token in sentinels]
        assert used == list(sentinels[: len(used)]) == [token for token in labels if token in sentinels]


@pytest.mark.parametrize(
    ("length", "sentinels", "expected"), [(100, 32, (15, 5)), (6, 32, (1, 1)), (2000, 32, (300, 32))]
)
def test_a_seventh_of_the_text_is_cut_out_in_spans_of_three(length: int, sentinels: int, expected: tuple[int, int]):
    assert span_counts(length, sentinels) == expected


def test_another_key_cuts_out_other_spans():
    task = task_of("seq2seq-lm", seq_length=100)
    samples = samples_of(task, count=1) * 2
    labels = collate(task, samples, [1, 2])["labels"]
    assert not torch.equal(labels[0], labels[1])
