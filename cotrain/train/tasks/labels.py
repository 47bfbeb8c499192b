"""Classes of texts (sentiment, pairs of sentences) and of words (named entities)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from cotrain.sections import FieldsSection
from cotrain.train.data.permutation import Indices
from cotrain.train.spec import DataSpec
from cotrain.train.tasks.base import Row, Sample, Task, pad_column, pad_tokens, token_types
from cotrain.train.tasks.metrics import IGNORE, Batch, EntityMetric, Metric


def class_number(name: str | int, spec: DataSpec) -> int:
    """The number of a class. Raises ValueError if the data has no such class."""
    try:
        return spec.labels.index(str(name))
    except ValueError:
        raise ValueError(f"{name!r} is not one of the {len(spec.labels)} classes") from None


class TextClassification(Task):
    """One class for a text, or for a pair of texts in the tokenizer's own form of a pair."""

    name = "text-classification"
    columns = ("tokens", "types", "label")

    def roles(self, fields: FieldsSection) -> tuple[str, ...]:
        return ("text", "label") if fields.pair is None else ("text", "pair", "label")

    def label_of(self, row: Row) -> Iterable[str | int]:
        return (row["label"],)

    def encode(self, row: Row, tokenizer: PreTrainedTokenizerFast, spec: DataSpec) -> list[Sample]:
        label = class_number(row["label"], spec)
        encoded = tokenizer(
            row["text"], row.get("pair"), truncation=True, max_length=spec.seq_length, split_special_tokens=True
        )
        (encoding,) = encoded.encodings
        types = token_types(encoding, tokenizer)
        return [{"tokens": np.array(encoding.ids), "types": types, "label": np.array([label])}]

    def collate(self, samples: Sequence[Sample], keys: Indices) -> Batch:
        labels = pad_column(samples, "label", length=1, value=IGNORE)[:, 0]
        return pad_tokens(samples, self.spec) | {"labels": torch.from_numpy(labels)}


class TokenClassification(Task):
    """One class for each word, predicted at the word's first token.

    Words are joined by spaces, so that a trained model reads them as it reads running text; a row that is longer
    than a sample goes on in the next one.
    """

    name = "token-classification"
    columns = ("tokens", "classes")
    """`classes`: for each token the class of the word that begins there + 1, 0 where none begins."""

    def roles(self, fields: FieldsSection) -> tuple[str, ...]:
        return ("tokens", "tags")

    def label_of(self, row: Row) -> Iterable[str | int]:
        return tuple(row["tags"])

    def encode(self, row: Row, tokenizer: PreTrainedTokenizerFast, spec: DataSpec) -> list[Sample]:
        words, tags = row["tokens"], row["tags"]
        if len(words) != len(tags):
            raise ValueError(f"{len(words)} words, but {len(tags)} tags")
        numbers = [class_number(tag, spec) for tag in tags]
        text = " ".join(words)
        encoded = tokenizer(
            text, truncation=True, max_length=spec.seq_length, return_overflowing_tokens=True,
            return_offsets_mapping=True, split_special_tokens=True,
        )  # fmt: skip
        word_at = np.repeat(np.arange(len(words)), [len(word) + 1 for word in words])
        """The word that each character of the text (and the space after it) belongs to."""
        samples, known = [], -1
        for encoding in encoded.encodings:
            classes = np.zeros(len(encoding.ids), dtype=np.int64)
            for position, (begin, end) in enumerate(encoding.offsets):
                begin += text[begin:end].startswith(" ")  # some tokenizers keep a word's space in its first token
                if encoding.special_tokens_mask[position] or begin >= end or (word := int(word_at[begin])) <= known:
                    continue
                classes[position], known = numbers[word] + 1, word
            if classes.any():
                samples.append({"tokens": np.array(encoding.ids), "classes": classes})
        if not samples:
            raise ValueError("no word has a token")
        return samples

    def collate(self, samples: Sequence[Sample], keys: Indices) -> Batch:
        batch = pad_tokens(samples, self.spec)
        classes = pad_column(samples, "classes", length=batch["input_ids"].shape[1], value=0)
        return batch | {"labels": torch.from_numpy(np.where(classes > 0, classes - 1, IGNORE))}

    def new_metric(self, tokenizer: PreTrainedTokenizerFast | None = None) -> Metric:
        return EntityMetric(self.spec.labels)
