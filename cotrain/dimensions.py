"""The dimensions of each architecture and size. Loads no torch: parameters are counted with them, too."""

from __future__ import annotations

from dataclasses import dataclass

from cotrain.sections import ModelSize, ModelType


@dataclass(frozen=True)
class Dimensions:
    """The size of a model, whatever its architecture calls these."""

    hidden_size: int
    intermediate_size: int
    """Width of the feed-forward layers."""
    layers: int
    """Of an encoder with a decoder: of each of the two."""
    heads: int
    key_value_heads: int
    """Heads of keys and values where attention is grouped; divides `heads`."""
    embedding_size: int
    """Width of the token embeddings (ALBERT's is smaller than `hidden_size`)."""


def _dimensions(
    hidden_size: int, intermediate_size: int, layers: int, heads: int, *, key_value_heads: int = 0,
    embedding_size: int = 0,
) -> Dimensions:  # fmt: skip
    return Dimensions(
        hidden_size, intermediate_size, layers, heads, key_value_heads or heads, embedding_size or hidden_size
    )


_GPT2_AND_BERT: dict[ModelSize, Dimensions] = {
    "nano": _dimensions(128, 512, 5, 4),
    "tiny": _dimensions(320, 1280, 8, 5),
    "small": _dimensions(768, 3072, 14, 12),
}
PRESETS: dict[ModelType, dict[ModelSize, Dimensions]] = {
    "llama2": {
        "nano": _dimensions(128, 344, 5, 4),
        "tiny": _dimensions(384, 1024, 6, 6),
        "small": _dimensions(768, 2048, 15, 12),
        "7B": _dimensions(4096, 11008, 32, 32),
        "13B": _dimensions(5120, 13824, 40, 40),
        "70B": _dimensions(8192, 28672, 80, 64, key_value_heads=8),
    },
    "llama3": {
        "nano": _dimensions(128, 344, 5, 4, key_value_heads=2),
        "tiny": _dimensions(384, 1024, 6, 6, key_value_heads=2),
        "small": _dimensions(768, 2048, 15, 12, key_value_heads=4),
        "8B": _dimensions(4096, 14336, 32, 32, key_value_heads=8),
        "70B": _dimensions(8192, 28672, 80, 64, key_value_heads=8),
    },
    "gpt2": _GPT2_AND_BERT,
    "bert": _GPT2_AND_BERT,
    "roberta": _GPT2_AND_BERT,
    "albert": {
        "nano": _dimensions(288, 1152, 4, 6, embedding_size=64),
        "tiny": _dimensions(896, 3584, 6, 14, embedding_size=128),
        "small": _dimensions(2816, 11264, 12, 44, embedding_size=128),
    },
    "t5": {
        "nano": _dimensions(128, 512, 2, 4),
        "tiny": _dimensions(256, 1024, 5, 4),
        "small": _dimensions(768, 3072, 6, 12),
    },
}
"""nano, tiny and small have about 1 M, 10 M and 100 M parameters with a vocabulary of a few hundred tokens; the
others are as published (arXiv:2307.09288, arXiv:2407.21783)."""


@dataclass(frozen=True)
class Published:
    """What the published sizes of an architecture share."""

    vocab_size: int
    """With it a model has the published number of parameters; a run's own vocabulary takes its place."""
    positions: int


PUBLISHED: dict[ModelType, Published] = {
    "llama2": Published(vocab_size=32_000, positions=4096),
    "llama3": Published(vocab_size=128_256, positions=8192),
}
