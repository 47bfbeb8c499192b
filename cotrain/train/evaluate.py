"""How good a model is: its loss on held-out text, what trivial predictors reach there, and what it writes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from cotrain.config import Precision
from cotrain.train.data import TokenDataset, Tokens
from cotrain.train.model import inference_mode, next_token_logits
from cotrain.train.tokenizer import VOCAB_SIZE

SMOOTHING = 0.01
"""Added to each count of the trivial predictors: an unseen pair costs much, but not infinitely much."""
TEMPERATURE = 0.8
TOP_K = 50
_COUNTED_AT_ONCE = 2**24
"""Tokens; counting takes 8 bytes for each."""


@dataclass(frozen=True)
class Evaluation:
    """What a model did on held-out text."""

    loss: float
    """Nats per token."""
    accuracy: float
    """Share of next tokens that the model held for the likeliest."""
    tokens: int
    """Tokens predicted."""


def evaluate(
    model: PreTrainedModel, dataset: TokenDataset, *, batches: int, batch_size: int, precision: Precision
) -> Evaluation:
    """Loss and accuracy on `batches` x `batch_size` samples of `dataset` (all, if it has fewer).

    They are spread evenly and always the same ones, so that two evaluations can be compared.
    """
    count = min(batches * batch_size, len(dataset))
    indices = np.linspace(0, len(dataset) - 1, num=count).round().astype(np.int64)
    device = next(model.parameters()).device
    total_loss, correct, tokens = 0.0, 0, 0
    with inference_mode(model):
        for start in range(0, count, batch_size):
            batch = dataset.batch(indices[start : start + batch_size]).to(device)
            targets = batch[:, 1:].flatten()
            logits = next_token_logits(model, batch[:, :-1], precision=precision).flatten(0, 1)
            total_loss += float(F.cross_entropy(logits, targets, reduction="sum"))
            correct += int((logits.argmax(dim=-1) == targets).sum())
            tokens += targets.numel()
    return Evaluation(loss=total_loss / tokens, accuracy=correct / tokens, tokens=tokens)


# ----------------------------------------------------------------------------------- trivial predictors
def byte_baseline(train_tokens: Tokens, validation_tokens: Tokens) -> float:
    """Nats per byte of predicting each byte by its frequency in the training text (uint8, 1-D, not empty)."""
    counts = np.bincount(train_tokens, minlength=VOCAB_SIZE)
    return _cross_entropy(counts[None, :], np.bincount(validation_tokens, minlength=VOCAB_SIZE)[None, :])


def bigram_baseline(train_tokens: Tokens, validation_tokens: Tokens) -> float:
    """Nats per byte of predicting each byte from the one before it (uint8, 1-D, two tokens or more)."""
    return _cross_entropy(_bigram_counts(train_tokens), _bigram_counts(validation_tokens))


def _bigram_counts(tokens: Tokens) -> NDArray[np.int64]:
    """How often each byte (column) follows each byte (row): [256, 256]."""
    counts = np.zeros(VOCAB_SIZE * VOCAB_SIZE, dtype=np.int64)
    for start in range(0, len(tokens) - 1, _COUNTED_AT_ONCE):
        stretch = tokens[start : start + _COUNTED_AT_ONCE + 1]
        pairs = stretch[:-1].astype(np.uint16) * VOCAB_SIZE + stretch[1:]
        counts += np.bincount(pairs, minlength=len(counts))
    return counts.reshape(VOCAB_SIZE, VOCAB_SIZE)


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

    Of a long prompt only the end is read, so that the whole stays within the length the model was built for.
    Torch's global random state is left as it was.
    """
    device = next(model.parameters()).device
    room = max(1, model.config.max_position_embeddings - max_new_tokens)
    inputs = tokenizer(prompt or "\n", return_tensors="pt").input_ids[:, -room:].to(device)
    with inference_mode(model), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        _default_generator(device).manual_seed(seed)
        outputs = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=max_new_tokens,
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=TOP_K,
            use_cache=True,
        )
    return str(tokenizer.decode(outputs[0, inputs.shape[1] :]))


def _default_generator(device: torch.device) -> torch.Generator:
    """The generator that sampling on this device draws from; `torch.manual_seed` would seed every device."""
    return torch.cuda.default_generators[device.index] if device.type == "cuda" else torch.default_generator
