"""How good a model is: its loss on held-out samples, what trivial predictors reach there, and what it writes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from cotrain.train.data.samples import TOKENS, Integers, TaskDataset
from cotrain.train.inner import InnerLoop, cross_entropy_sum
from cotrain.train.model import inference_mode

SMOOTHING = 0.01
"""Added to each count of the trivial predictors: an unseen pair costs much, but not infinitely much."""
COUNTED_SAMPLES = 4096
"""Samples, spread evenly, that the trivial predictor counts where targets are not simply the tokens of the text."""
BIGRAM_VOCABULARY = 256
"""Pairs are counted up to this vocabulary: with more tokens most pairs are never seen."""
TEMPERATURE = 0.8
TOP_K = 50
_COUNTED_AT_ONCE = 2**24
"""Tokens; counting takes 8 bytes for each."""


@dataclass(frozen=True)
class Evaluation:
    """What a model did on held-out samples."""

    loss: float
    """Nats per target."""
    targets: int
    """Targets predicted."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The task's own: always `accuracy`, and `f1` or `exact_match` where its users expect them."""

    @property
    def accuracy(self) -> float:
        """Share of targets that the model held for the likeliest."""
        return self.metrics["accuracy"]


def evaluate(
    inner: InnerLoop, dataset: TaskDataset, *, batches: int, batch_size: int,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> Evaluation:  # fmt: skip
    """Loss and metrics on `batches` x `batch_size` samples of `dataset` (all, if it has fewer).

    They are spread evenly and always the same ones, masked in the same way, so that two evaluations can be compared.
    With a tokenizer, answers are compared as text. Every rank must call it.
    """
    indices = spread(len(dataset), batches * batch_size)
    metric = dataset.task.new_metric(tokenizer)
    loss, targets = 0.0, 0
    with inference_mode(inner.model):
        for start in range(0, len(indices), batch_size):
            part = indices[start : start + batch_size]
            batch = dataset.batch(part, part)
            predictions = inner.predictions(batch)
            loss += float(cross_entropy_sum(predictions))
            targets += dataset.task.count_targets(batch)
            metric.add(batch, predictions)
    return Evaluation(loss / max(1, targets), targets, metric.result())


def spread(size: int, count: int) -> NDArray[np.int64]:
    """At most `count` of the numbers below `size`, evenly spread, int64."""
    return np.linspace(0, size - 1, num=min(size, count)).round().astype(np.int64)


# ----------------------------------------------------------------------------------- trivial predictors
def trivial_losses(train: TaskDataset, validation: TaskDataset) -> dict[str, float]:
    """What predictors without a model reach on the validation samples, nats per target.

    `unigrams` predicts each target by its frequency in the training samples; `bigrams`, for running text of a small
    vocabulary, each token from the one before it. A model that has learnt anything is below them.
    """
    if train.task.name == "causal-lm":
        size = train.file.spec.vocab_size
        tokens = train.file.columns[TOKENS], validation.file.columns[TOKENS]
        losses = {"unigrams": unigram_loss(*tokens, size=size)}
        if size <= BIGRAM_VOCABULARY:
            losses["bigrams"] = bigram_loss(*tokens, size=size)
        return losses
    targets = [_targets(part) for part in (train, validation)]
    return {"unigrams": unigram_loss(*targets, size=1 + max(int(part.max()) for part in targets))}


def unigram_loss(train: Integers, validation: Integers, *, size: int) -> float:
    """Nats per token of predicting each by its frequency in `train` (1-D, not empty, all below `size`)."""
    return _cross_entropy(*(np.bincount(part, minlength=size)[None, :] for part in (train, validation)))


def bigram_loss(train: Integers, validation: Integers, *, size: int) -> float:
    """Nats per token of predicting each from the one before it (1-D, two tokens or more, all below `size`)."""
    return _cross_entropy(*(_bigram_counts(part, size) for part in (train, validation)))


def _targets(dataset: TaskDataset) -> Integers:
    indices = spread(len(dataset), COUNTED_SAMPLES)
    parts = [dataset.task.targets(dataset.batch(part, part)) for part in np.array_split(indices, 64) if len(part)]
    return torch.cat(parts).numpy()


def _bigram_counts(tokens: Integers, size: int) -> NDArray[np.int64]:
    """How often each token (column) follows each token (row): [size, size]."""
    counts = np.zeros(size * size, dtype=np.int64)
    for start in range(0, len(tokens) - 1, _COUNTED_AT_ONCE):
        stretch = tokens[start : start + _COUNTED_AT_ONCE + 1].astype(np.int64)
        counts += np.bincount(stretch[:-1] * size + stretch[1:], minlength=len(counts))
    return counts.reshape(size, size)


def _cross_entropy(train_counts: NDArray[np.int64], validation_counts: NDArray[np.int64]) -> float:
    """Nats per event of `validation_counts` under the smoothed frequencies in each row of `train_counts`."""
    smoothed = train_counts + SMOOTHING
    log_probabilities = np.log(smoothed / smoothed.sum(axis=1, keepdims=True))
    return float(-(validation_counts * log_probabilities).sum() / validation_counts.sum())


# --------------------------------------------------------------------------------------------- generation
def generate_text(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompt: str,
    *,
    max_new_tokens: int,
    seed: int,
) -> str:
    """Text that the model writes after `prompt` (without it), sampled; the same seed gives the same text.

    Of a long prompt only the end is read, and less is written than was asked for where that is longer than what the
    model was built for.
    Torch's global random state is left as it was.
    """
    device = next(model.parameters()).device
    places = model.config.max_position_embeddings
    room = max(1, places - max_new_tokens)
    inputs = tokenizer(prompt or "\n", return_tensors="pt").input_ids[:, -room:].to(device)
    with inference_mode(model), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        _default_generator(device).manual_seed(seed)
        outputs = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=min(max_new_tokens, max(1, places - inputs.shape[1])),
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=TOP_K,
            use_cache=True,
        )
    return str(tokenizer.decode(outputs[0, inputs.shape[1] :]))


def _default_generator(device: torch.device) -> torch.Generator:
    """The generator that sampling on this device draws from; `torch.manual_seed` would seed every device."""
    return torch.cuda.default_generators[device.index] if device.type == "cuda" else torch.default_generator
