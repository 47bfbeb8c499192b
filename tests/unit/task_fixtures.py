"""Nano models, a few rows of each task, and the samples and batches made from them with the byte tokenizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from cotrain.sections import PRETRAINING_TASK, FieldsSection, ModelSection, ModelType, TaskName
from cotrain.train.model import build_model
from cotrain.train.spec import DataSpec
from cotrain.train.tasks.base import Sample, Task
from cotrain.train.tasks.metrics import Batch
from cotrain.train.tasks.registry import make_task
from cotrain.train.tokenizer import describe_tokenizer, load_tokenizer

CLS_ID, SEP_ID, MASK_ID = 257, 258, 259
TOKENIZER = load_tokenizer("bytes", "masked-lm")
"""The special form of the byte tokenizer."""
SEQ_LENGTH = 32
BYTES = DataSpec(task="causal-lm", vocab_size=256, seq_length=SEQ_LENGTH)
"""Plain bytes, for the next token."""
LABELS: dict[TaskName, tuple[str, ...]] = {
    "text-classification": ("negative", "positive"),
    "token-classification": ("O", "B-LOC", "B-PER", "I-PER"),
}
ROWS: dict[TaskName, list[dict[str, Any]]] = {
    "text-classification": [
        {"text": "a good film", "label": "positive"},
        {"text": "bad", "label": "negative"},
        {"text": "so long that it goes on over the end of a sample", "label": "negative"},
    ],
    "token-classification": [
        {"tokens": ["Ada", "Byron", "in", "Rome"], "tags": ["B-PER", "I-PER", "O", "B-LOC"]},
        {"tokens": ["سلام", "تهران"], "tags": ["O", "B-LOC"]},
    ],
    "question-answering": [
        {
            "question": "where?",
            "context": "Ada lives in Rome, the capital.",
            "answers": {"text": ["Rome"], "answer_start": [13]},
        },
        {"question": "why?", "context": "Ada.", "answers": {"text": [], "answer_start": []}},
    ],
    "seq2seq-lm": [{"source": "one two", "target": "1 2"}, {"source": "three", "target": "3"}],
}


def spec_of(task: TaskName, *, seq_length: int = SEQ_LENGTH, with_targets: bool = False) -> DataSpec:
    return describe_tokenizer(
        load_tokenizer("bytes", task),
        task=task,
        seq_length=seq_length,
        labels=LABELS.get(task, ()),
        with_targets=with_targets,
    )


def task_of(name: TaskName, *, seed: int = 0, seq_length: int = SEQ_LENGTH, with_targets: bool = False) -> Task:
    fields = FieldsSection(target="target") if with_targets else FieldsSection()
    spec = spec_of(name, seq_length=seq_length, with_targets=with_targets)
    return make_task(name, spec, seed=seed, fields=fields)


def samples_of(task: Task, *, count: int = 4) -> list[Sample]:
    """Windows of random bytes for a packed task, else the samples of its rows."""
    if task.packed:
        stream = np.random.default_rng(0).integers(0, 256, (count, task.window)).astype(np.uint8)
        return [{"tokens": window} for window in stream]
    return [sample for row in ROWS[task.name] for sample in task.encode(row, TOKENIZER, task.spec)]


def batch_of(task: Task) -> Batch:
    return collate(task, samples_of(task))


def encode(
    name: TaskName, row: dict[str, Any], *, seq_length: int = SEQ_LENGTH, with_targets: bool = False
) -> list[Sample]:
    task = task_of(name, seq_length=seq_length, with_targets=with_targets)
    return task.encode(row, TOKENIZER, task.spec)


def collate(task: Task, samples: list[Sample], keys: list[int] | None = None) -> Batch:
    numbers = range(len(samples)) if keys is None else keys
    return task.collate(samples, np.array(list(numbers), dtype=np.int64))


def nano(kind: ModelType = "llama3", *, seed: int = 0, **section: Any) -> PreTrainedModel:
    spec = BYTES if PRETRAINING_TASK[kind] == "causal-lm" else spec_of(PRETRAINING_TASK[kind])
    return build_model(ModelSection(type=kind, size="nano", **section), spec, seed=seed)


def nano_for(kind: ModelType, task: TaskName, **section: Any) -> PreTrainedModel:
    return build_model(ModelSection(type=kind, size="nano", **section), spec_of(task), seed=0)


def random_tokens(batch: int = 2, length: int = SEQ_LENGTH) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (batch, length)))
