"""What all tasks share: the shape of samples, batches and predictions, and how samples become a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from cotrain.sections import FieldsSection, TaskName
from cotrain.train.data.permutation import Indices
from cotrain.train.spec import DataSpec
from cotrain.train.tasks.metrics import IGNORE, AccuracyMetric, Batch, Metric, Prediction

PAD_MULTIPLE = 8
"""Padded lengths are multiples of this: kernels are fast there, and compiled ones see few shapes."""

Sample = dict[str, NDArray[Any]]
"""Ragged columns of one sample: 1-D arrays of integers, none of them negative."""
Row = dict[str, Any]
"""One record of a row format, by the roles of FieldsSection, already checked for type."""


class Task(ABC):
    """One kind of learning: how samples are made, batched, predicted and judged.

    A packed task learns from one long stream of tokens, cut into windows of `window` tokens that begin every
    `stride` tokens; each window is a sample with the column `tokens`. The others make samples of rows by `encode`.
    """

    name: ClassVar[TaskName]
    packed: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]]
    """Columns of its samples in the data file."""

    def __init__(self, spec: DataSpec, *, seed: int):
        """`seed` and a sample's key decide what is random in the sample (masks, spans)."""
        self.spec, self.seed = spec, seed

    @property
    def window(self) -> int:
        """Tokens of the stream in a sample of a packed task; 0 for a task of rows."""
        return 0

    @property
    def stride(self) -> int:
        """Tokens between the beginnings of two windows."""
        return self.window

    @abstractmethod
    def roles(self, fields: FieldsSection) -> tuple[str, ...]:
        """Roles of FieldsSection that a row must have."""

    def label_of(self, row: Row) -> Iterable[str | int]:
        """Class names found in a row; none for tasks without classes."""
        return ()

    def encode(self, row: Row, tokenizer: PreTrainedTokenizerFast, spec: DataSpec) -> list[Sample]:
        """The samples of a row. Raises ValueError with the reason if it cannot be used."""
        raise NotImplementedError(f"{self.name} learns from packed text, not from rows")

    @abstractmethod
    def collate(self, samples: Sequence[Sample], keys: Indices) -> Batch:
        """One batch of samples, CPU tensors [samples, ...] int64.

        `keys` (int64 [samples]) are the samples' positions in the run's data order: a sample's part of the batch,
        padding aside, depends on the sample, its key and the seed alone.
        """

    def predictions(self, model: PreTrainedModel, batch: Batch) -> list[Prediction]:
        """(logits, targets) of one forward pass; model (wrapped or not) and batch are on one device.

        Question answering has two, starts and ends; the other tasks one.
        """
        logits = model(**model_inputs(model, batch)).logits
        return [(logits.float().flatten(0, -2), batch["labels"].flatten())]

    def targets(self, batch: Batch) -> Tensor:
        """All targets of a batch that are not IGNORE, 1-D int64."""
        labels = batch["labels"]
        return labels[labels != IGNORE]

    def count_targets(self, batch: Batch) -> int:
        """Number of targets of a batch that are not IGNORE."""
        return int((batch["labels"] != IGNORE).sum())

    def new_metric(self, tokenizer: PreTrainedTokenizerFast | None = None) -> Metric:
        """A metric that has seen nothing; with a tokenizer, answers are compared as text."""
        return AccuracyMetric()


class PackedTask(Task):
    """Learns from a stream of tokens."""

    packed = True
    columns = ("tokens",)

    def roles(self, fields: FieldsSection) -> tuple[str, ...]:
        return ("text",)


# ---------------------------------------------------------------------------------------------- batches
def model_config(model: PreTrainedModel) -> PretrainedConfig:
    """The config of a model, also when data-parallel training has wrapped it."""
    return getattr(model, "module", model).config


def model_inputs(model: PreTrainedModel, batch: Batch) -> dict[str, Any]:
    """Arguments of the forward pass. The key-value cache is off: nothing is generated, and it would hold memory."""
    config = model_config(model)
    inputs: dict[str, Any] = {name: batch[name] for name in ("input_ids", "attention_mask") if name in batch}
    if "token_type_ids" in batch and getattr(config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = batch["token_type_ids"]
    if hasattr(config, "use_cache"):
        inputs["use_cache"] = False
    return inputs


def stack_windows(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """The windows of a packed task: [samples, window]."""
    return np.stack([sample["tokens"] for sample in samples]).astype(np.int64)


def padded_length(lengths: Iterable[int], seq_length: int) -> int:
    """The longest, rounded up to a multiple of PAD_MULTIPLE, at most `seq_length`."""
    longest = max(lengths)
    return max(longest, min(seq_length, -(-longest // PAD_MULTIPLE) * PAD_MULTIPLE))


def pad_column(samples: Sequence[Sample], column: str, *, length: int, value: int) -> NDArray[np.int64]:
    """One column of all samples, filled up with `value` on the right: [samples, length]."""
    padded = np.full((len(samples), length), value, dtype=np.int64)
    for row, sample in zip(padded, samples, strict=True):
        row[: len(sample[column])] = sample[column]
    return padded


def pad_tokens(samples: Sequence[Sample], spec: DataSpec, *, column: str = "tokens") -> Batch:
    """`input_ids` and `attention_mask`, padded on the right; `token_type_ids` where the samples have `types`."""
    assert spec.pad_id is not None
    lengths = np.array([len(sample[column]) for sample in samples])
    length = padded_length(lengths.tolist(), spec.seq_length)
    batch = {
        "input_ids": torch.from_numpy(pad_column(samples, column, length=length, value=spec.pad_id)),
        "attention_mask": torch.from_numpy((np.arange(length) < lengths[:, None]).astype(np.int64)),
    }
    if len(samples[0].get("types", ())):
        batch["token_type_ids"] = torch.from_numpy(pad_column(samples, "types", length=length, value=0))
    return batch


def token_types(encoding: Any, tokenizer: PreTrainedTokenizerFast) -> NDArray[np.int64]:
    """The token types of an encoded text; empty if models of this tokenizer take none."""
    has_types = "token_type_ids" in tokenizer.model_input_names
    return np.array(encoding.type_ids if has_types else [], dtype=np.int64)
