"""What is known of a config's model before anything is fetched or built, and what had to be assumed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cotrain.catalog import ModelEntry, match_entry
from cotrain.config import BYTES, RunConfig
from cotrain.dimensions import PRESETS, PUBLISHED, Dimensions
from cotrain.estimate import FP32_BYTES, ModelFacts
from cotrain.parameters import ParameterCount, Vocabulary, count_preset

BYTE_TOKENS, BYTE_TOKENS_WITH_SPECIAL = 256, 292
_PAD_ID = BYTE_TOKENS
BASE = Dimensions(768, 3072, 12, 12, 12, 768)
"""The dimensions that BERT called base; every model of the catalog says that it has them."""
BASE_VOCABULARY = 100_000
"""No less than any of theirs."""
LARGEST_VOCABULARY = max(published.vocab_size for published in PUBLISHED.values())


@dataclass(frozen=True)
class Known:
    """What is known of a model.

    Attributes:
        facts: None where nobody can say.
        unknown: sentences for people: what was assumed, or why nothing is known; with the config's key.
    """

    facts: ModelFacts | None
    unknown: tuple[tuple[str, str], ...] = ()


def model_facts(config: RunConfig, models: Sequence[ModelEntry] = ()) -> Known:
    """The facts of a config's model; `models` are the ones of the catalog."""
    teacher_bytes, unknown = _teacher(config, models)
    if config.model.source is not None:
        return _of_source(config, models, teacher_bytes, unknown)
    task, kind = config.task, config.model.type
    if config.tokenizer == BYTES:
        tokens = BYTE_TOKENS if task == "causal-lm" else BYTE_TOKENS_WITH_SPECIAL
    else:
        tokens = LARGEST_VOCABULARY
        unknown.append(
            ("data.tokenizer", f"the tokenizer's vocabulary is not known yet: {tokens:,} tokens are assumed")
        )
    vocabulary = Vocabulary(tokens=tokens, positions=config.data.seq_length, pad_id=_PAD_ID)
    count = count_preset(kind, config.model.size, task, vocabulary)
    facts = ModelFacts(kind, PRESETS[kind][config.model.size], count, tokens, teacher_bytes)
    return Known(facts, tuple(unknown))


def _of_source(
    config: RunConfig, models: Sequence[ModelEntry], teacher_bytes: int, unknown: list[tuple[str, str]]
) -> Known:
    entry = match_entry(config.model.source or "", models)
    if entry is None:
        unknown.append(("model.source", "is not in the catalog: its size is known only once it has been fetched"))
        return Known(None, tuple(unknown))
    total = entry.size_bytes // FP32_BYTES
    unknown.append(("model.source", f"its parameters are taken from the size of its download: {total:,} at most"))
    count = ParameterCount(total=total, layers=BASE.layers, in_layers=total // 2, matrices=0)
    return Known(ModelFacts(entry.type, BASE, count, BASE_VOCABULARY, teacher_bytes), tuple(unknown))


def _teacher(config: RunConfig, models: Sequence[ModelEntry]) -> tuple[int, list[tuple[str, str]]]:
    teacher = config.distillation.teacher
    if not config.distillation.enabled or teacher is None:
        return 0, []
    entry = match_entry(teacher, models)
    if entry is None:
        return 0, [("distillation.teacher", "is not in the catalog: the memory that it takes is not counted")]
    return entry.size_bytes, []
