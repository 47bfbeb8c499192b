"""Language modelling: the next token, masked tokens, spans cut out of the text, a text written from another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from cotrain.sections import FieldsSection
from cotrain.train.data.permutation import Indices, mix
from cotrain.train.spec import DataSpec
from cotrain.train.tasks.base import (
    PackedTask,
    Row,
    Sample,
    Task,
    model_inputs,
    pad_column,
    pad_tokens,
    padded_length,
    stack_windows,
)
from cotrain.train.tasks.metrics import IGNORE, Batch, Prediction
from cotrain.train.tokenizer import text_tokens

CORRUPTED_SHARE = 0.15
"""Share of the tokens that BERT masks and T5 cuts out."""
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1
"""Of BERT's chosen tokens: replaced by the mask, by a random token; the rest stay."""
MEAN_SPAN = 3
"""Tokens in a span that T5 cuts out, on average."""

Tokens = NDArray[np.int64]


def keyed_uniforms(seed: int, keys: Indices, count: int) -> NDArray[np.float64]:
    """Numbers in [0, 1), [len(keys), count]; each row follows from `seed` and its key alone.

    A hash of (seed, key, position), so that a batch is drawn at once whatever samples it holds.
    """
    streams = mix(mix(np.full(len(keys), seed, dtype=np.uint64)) + keys.astype(np.uint64))
    words = mix(np.add.outer(streams, np.arange(count, dtype=np.uint64)))
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def framed(tokens: Tokens, spec: DataSpec) -> Tokens:
    """The rows of [samples, n] between the data's start and end tokens, where it has them."""
    ends = [spec.start_id, spec.end_id]
    before, after = ([np.full((len(tokens), 1), token)] if token is not None else [] for token in ends)
    return np.concatenate([*before, tokens, *after], axis=1)


def frame_size(spec: DataSpec) -> int:
    """Tokens that `framed` adds."""
    return (spec.start_id is not None) + (spec.end_id is not None)


class CausalLanguageModeling(PackedTask):
    """Predict each token from those before it."""

    name = "causal-lm"

    @property
    def window(self) -> int:
        return self.spec.seq_length + 1

    @property
    def stride(self) -> int:
        return self.spec.seq_length

    def collate(self, samples: Sequence[Sample], keys: Indices) -> Batch:
        tokens = torch.from_numpy(stack_windows(samples))
        return {"input_ids": tokens[:, :-1], "labels": tokens[:, 1:]}


class MaskedLanguageModeling(PackedTask):
    """Predict tokens that are hidden, from both sides (BERT, arXiv:1810.04805).

    Each token is chosen with probability 15 %, at least one in a sample; of the chosen 80 % become the mask, 10 % a
    random token, 10 % stay.
    """

    name = "masked-lm"

    @property
    def window(self) -> int:
        return self.spec.seq_length - frame_size(self.spec)

    def collate(self, samples: Sequence[Sample], keys: Indices) -> Batch:
        tokens = stack_windows(samples)
        uniforms = keyed_uniforms(self.seed, keys, tokens.shape[1])
        chosen = uniforms < CORRUPTED_SHARE
        chosen[np.arange(len(tokens)), uniforms.argmin(axis=1)] = True
        corrupted = np.where(chosen, self._corrupt(tokens, uniforms), tokens)
        labels = np.full_like(framed(tokens, self.spec), IGNORE)
        begin = self.spec.start_id is not None
        labels[:, begin : begin + tokens.shape[1]] = np.where(chosen, tokens, IGNORE)
        return {"input_ids": torch.from_numpy(framed(corrupted, self.spec)), "labels": torch.from_numpy(labels)}

    def _corrupt(self, tokens: Tokens, uniforms: NDArray[np.float64]) -> Tokens:
        """What stands in the place of each token if it is chosen; `uniforms` below 0.15 are uniform there too."""
        fate = np.minimum(uniforms / CORRUPTED_SHARE, 1.0)
        drawn = ((fate - MASK_SHARE) / RANDOM_SHARE * self.spec.vocab_size).astype(np.int64)
        spec = self.spec
        assert spec.mask_id is not None
        special = [spec.pad_id, spec.start_id, spec.end_id, spec.mask_id, *spec.sentinel_ids]
        # a random padding token would move RoBERTa's positions; no text holds the others
        drawn = np.where(np.isin(drawn, [token for token in special if token is not None]), tokens, drawn)
        stays = fate >= MASK_SHARE + RANDOM_SHARE
        return np.where(fate < MASK_SHARE, spec.mask_id, np.where(stays, tokens, drawn))


# ------------------------------------------------------------------------------------ sequence to sequence
class _SequenceToSequence(Task):
    """An encoder reads `input_ids`, a decoder writes `labels`."""

    name = "seq2seq-lm"

    def predictions(self, model: PreTrainedModel, batch: Batch) -> list[Prediction]:
        labels = batch["labels"]
        unwrapped = getattr(model, "module", model)
        decoder_input_ids = unwrapped.prepare_decoder_input_ids_from_labels(labels=labels)
        logits = model(**model_inputs(model, batch), decoder_input_ids=decoder_input_ids).logits
        return [(logits.float().flatten(0, 1), labels.flatten())]


class SpanCorruption(_SequenceToSequence, PackedTask):
    """Write the spans that were cut out of a text, each after the sentinel that stands in its place.

    T5's objective (arXiv:1910.10683): 15 % of the tokens, spans of 3 on average. A text begins with a part that stays
    and ends with one that is cut out. With fewer sentinels than spans, there are as many spans as sentinels.
    """

    @property
    def window(self) -> int:
        return self.spec.seq_length - frame_size(self.spec)

    def collate(self, samples: Sequence[Sample], keys: Indices) -> Batch:
        tokens = stack_windows(samples)
        noise, spans = span_counts(tokens.shape[1], len(self.spec.sentinel_ids))
        cut = self._cut(keys, tokens.shape[1], noise, spans)
        begins = cut & ~np.roll(cut, 1, axis=1)
        sentinels = np.array(self.spec.sentinel_ids)[np.cumsum(begins, axis=1) - 1]
        inputs = np.where(begins, sentinels, tokens)[~cut | begins].reshape(len(tokens), -1)
        interleaved = np.stack([sentinels, tokens], axis=2)
        targets = interleaved[np.stack([begins, cut], axis=2)].reshape(len(tokens), -1)
        ends = np.full((len(tokens), 1), self.spec.end_id)
        return {
            "input_ids": torch.from_numpy(framed(inputs, self.spec)),
            "labels": torch.from_numpy(np.concatenate([targets, ends], axis=1)),
        }

    def _cut(self, keys: Indices, length: int, noise: int, spans: int) -> NDArray[np.bool_]:
        """Which tokens are cut out: [samples, length], `noise` of them in `spans` spans in each row."""
        uniforms = keyed_uniforms(self.seed, keys, length)
        kept_lengths = _composition(uniforms[:, : length - noise - 1], spans)
        cut_lengths = _composition(uniforms[:, length - noise : length - 1], spans)
        lengths = np.stack([kept_lengths, cut_lengths], axis=2).reshape(len(keys), 2 * spans)
        changes = np.zeros((len(keys), length), dtype=np.int64)
        np.put_along_axis(changes, np.cumsum(lengths, axis=1)[:, :-1], 1, axis=1)
        return np.cumsum(changes, axis=1) % 2 == 1


def span_counts(length: int, sentinels: int) -> tuple[int, int]:
    """(tokens cut out, spans) of a text of `length` tokens, 2 or more."""
    noise = min(max(round(length * CORRUPTED_SHARE), 1), length - 1)
    return noise, min(max(round(noise / MEAN_SPAN), 1), sentinels, length - noise)


def _composition(uniforms: NDArray[np.float64], parts: int) -> Tokens:
    """A random way to cut n + 1 things in a row into `parts` pieces, for each row of [rows, n]: [rows, parts]."""
    gaps = np.sort(np.argsort(uniforms, axis=1)[:, : parts - 1], axis=1) + 1
    edges = [np.zeros((len(uniforms), 1), np.int64), gaps, np.full((len(uniforms), 1), uniforms.shape[1] + 1)]
    return np.diff(np.concatenate(edges, axis=1), axis=1)


class SourceToTarget(_SequenceToSequence):
    """Write `target` from `source`; both are cut to `seq_length`."""

    columns = ("tokens", "targets")

    def roles(self, fields: FieldsSection) -> tuple[str, ...]:
        return ("source", "target")

    def encode(self, row: Row, tokenizer: PreTrainedTokenizerFast, spec: DataSpec) -> list[Sample]:
        encoded = tokenizer(row["source"], truncation=True, max_length=spec.seq_length, split_special_tokens=True)
        (target,) = text_tokens(tokenizer, [row["target"]])
        if not target:
            raise ValueError("the target has no tokens")
        targets = [*target[: spec.seq_length - 1], spec.end_id]
        return [{"tokens": np.array(encoded.input_ids), "targets": np.array(targets)}]

    def collate(self, samples: Sequence[Sample], keys: Indices) -> Batch:
        length = padded_length((len(sample["targets"]) for sample in samples), self.spec.seq_length)
        labels = pad_column(samples, "targets", length=length, value=IGNORE)
        return pad_tokens(samples, self.spec) | {"labels": torch.from_numpy(labels)}
