"""How many parameters a preset has, from its dimensions alone: without torch, and before there is any data.

Tied parameters count once. A test compares every architecture, size and task with the model itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from cotrain.dimensions import PRESETS, Dimensions
from cotrain.sections import ModelSize, ModelType, TaskName

_T5_BUCKETS = 32
"""Distances that T5 tells apart, each with a value for each head."""


@dataclass(frozen=True)
class Vocabulary:
    """What the data decides of a model's size.

    Attributes:
        tokens: token ids lie below this.
        positions: tokens in a sample; learnt positions are as many.
        pad_id: RoBERTa numbers its positions from the one after.
        labels: classes of a classification task.
    """

    tokens: int
    positions: int
    pad_id: int = 0
    labels: int = 2


@dataclass(frozen=True)
class ParameterCount:
    """The parameters of a model.

    Attributes:
        total: all of them.
        layers: transformer layers that have parameters of their own.
        in_layers: those inside these layers.
        matrices: the 2-D ones among the latter, which Muon takes.
    """

    total: int
    layers: int
    in_layers: int
    matrices: int


def count_preset(kind: ModelType, size: ModelSize, task: TaskName, vocabulary: Vocabulary) -> ParameterCount:
    """The parameters of a preset with the head of its task. Raises KeyError for a size that the type has not."""
    dimensions = PRESETS[kind][size]
    encoders, decoders = _layers(kind, dimensions, task)
    attention, feed_forward = _layer_matrices(kind, dimensions)
    hidden, norms = dimensions.hidden_size, _layer_vectors(kind, dimensions)
    matrices = (encoders + decoders) * (attention + feed_forward) + decoders * attention
    in_layers = matrices + (encoders + decoders) * norms + decoders * hidden
    outside = _embeddings(kind, dimensions, task, vocabulary) + _head(kind, size, task, vocabulary)
    return ParameterCount(in_layers + outside, encoders + decoders, in_layers, matrices)


def _layers(kind: ModelType, dimensions: Dimensions, task: TaskName) -> tuple[int, int]:
    """(layers of the only or first stack, layers of a decoder that looks at it)."""
    if kind == "albert":  # all its layers share one layer's parameters
        return 1, 0
    if kind != "t5":
        return dimensions.layers, 0
    return dimensions.layers, 0 if task == "token-classification" else dimensions.layers


def _layer_matrices(kind: ModelType, dimensions: Dimensions) -> tuple[int, int]:
    """(attention, feed-forward) of one layer."""
    hidden, inner = dimensions.hidden_size, dimensions.intermediate_size
    if kind in ("llama2", "llama3"):
        grouped = hidden * dimensions.key_value_heads // dimensions.heads
        return 2 * hidden * hidden + 2 * hidden * grouped, 3 * hidden * inner
    return 4 * hidden * hidden, 2 * hidden * inner


def _layer_vectors(kind: ModelType, dimensions: Dimensions) -> int:
    """Norms and biases of one layer; a decoder's second attention has another norm."""
    if kind in ("llama2", "llama3", "t5"):
        return 2 * dimensions.hidden_size
    return 9 * dimensions.hidden_size + dimensions.intermediate_size


def _embeddings(kind: ModelType, dimensions: Dimensions, task: TaskName, vocabulary: Vocabulary) -> int:
    """Tokens, positions and types of tokens, with the norms before the first layer and after the last one."""
    hidden, width = dimensions.hidden_size, dimensions.embedding_size
    tokens, positions = vocabulary.tokens * width, vocabulary.positions * width
    if kind in ("llama2", "llama3"):
        return tokens + hidden
    if kind == "gpt2":
        return tokens + positions + 2 * hidden
    if kind == "t5":
        stacks = 1 if task == "token-classification" else 2
        return tokens + stacks * (_T5_BUCKETS * dimensions.heads + hidden)
    if kind == "roberta":
        return tokens + positions + (vocabulary.pad_id + 1) * width + 3 * width
    widening = width * hidden + hidden if kind == "albert" else 0
    return tokens + positions + 4 * width + widening


def _head(kind: ModelType, size: ModelSize, task: TaskName, vocabulary: Vocabulary) -> int:
    """What stands after the last norm."""
    dimensions = PRESETS[kind][size]
    hidden, width = dimensions.hidden_size, dimensions.embedding_size
    if task == "causal-lm":
        return vocabulary.tokens * hidden if size.endswith("B") else 0  # only the published sizes do not tie it
    if task == "seq2seq-lm":
        return 0
    if task == "masked-lm":
        return vocabulary.tokens + hidden * width + 3 * width
    if task == "question-answering":
        return 2 * hidden + 2
    classifier = vocabulary.labels * hidden + vocabulary.labels
    if task == "token-classification":
        return classifier
    if kind in ("llama2", "llama3", "gpt2"):
        return classifier - vocabulary.labels
    return hidden * hidden + hidden + classifier
