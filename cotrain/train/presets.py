"""Model presets: the Hugging Face config made from the dimensions of an architecture and size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from transformers import (
    AlbertConfig,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    RobertaConfig,
    T5Config,
)

from cotrain.dimensions import PRESETS, PUBLISHED, Dimensions
from cotrain.errors import ConfigError
from cotrain.sections import SIZES, ModelSection, ModelType, TaskName, refusal
from cotrain.train.spec import DataSpec

NEEDED_CLASSES = {"text-classification": 2, "token-classification": 1}


_ROPE_THETA: dict[ModelType, float] = {"llama2": 10_000.0, "llama3": 500_000.0}


def supported_pairs() -> tuple[tuple[ModelType, TaskName], ...]:
    """Every (architecture, task) that a preset can learn."""
    return tuple((model, task) for model in SIZES for task in get_args(TaskName) if not refusal(model, task))


# ---------------------------------------------------------------------------------------------- configs
def preset_config(section: ModelSection, spec: DataSpec) -> PretrainedConfig:
    """The Hugging Face config of the preset `section.type`, `section.size` for the data of `spec`.

    The vocabulary is the data's, also in the published sizes. Positions are as many as a sample has tokens; in the
    published sizes at least the published number. Raises ConfigError if the data has too few classes for the task.
    """
    dimensions = PRESETS[section.type][section.size]
    config = _BUILDERS[section.type](section, dimensions, spec)
    for name, value in (token_facts(spec) | class_facts(spec)).items():
        setattr(config, name, value)
    set_dropout(config, section.dropout or 0.0)
    return config


def token_facts(spec: DataSpec) -> dict[str, int | None]:
    """Config entries that name the special tokens of the data."""
    return {
        "pad_token_id": spec.pad_id,
        "bos_token_id": spec.start_id,
        "eos_token_id": spec.end_id,
    }


def class_facts(spec: DataSpec) -> dict[str, Any]:
    """Config entries that name the classes of the data; none for tasks without classes.

    Raises ConfigError if there are too few to tell apart.
    """
    if spec.task not in NEEDED_CLASSES:
        return {}
    if len(spec.labels) < NEEDED_CLASSES[spec.task]:
        role = "label" if spec.task == "text-classification" else "tags"
        raise ConfigError(
            f"the data has {len(spec.labels)} classes, {spec.task} needs {NEEDED_CLASSES[spec.task]} or more",
            field=f"data.fields.{role}", hint="name the column that holds the classes",
        )  # fmt: skip
    facts: dict[str, Any] = {
        "id2label": dict(enumerate(spec.labels)),
        "label2id": {name: number for number, name in enumerate(spec.labels)},
    }
    if spec.task == "text-classification":
        facts["problem_type"] = "single_label_classification"
    return facts


def set_dropout(config: PretrainedConfig, share: float) -> None:
    """Set every share of dropped activations, whatever the architecture calls it; whole layers are never dropped.

    `classifier_dropout` is set where a config does not declare it too: heads of Llama and GPT-2 take 0.1 without it.
    """
    names = [name for name in config.to_dict() if "dropout" in name or name.endswith("_pdrop")]
    for name in {*names, "classifier_dropout"}:
        setattr(config, name, share)


def _llama(section: ModelSection, dimensions: Dimensions, spec: DataSpec) -> LlamaConfig:
    published = PUBLISHED[section.type] if section.size.endswith("B") else None
    facts = {"rms_norm_eps": 1e-5} if published else {}
    return LlamaConfig(
        vocab_size=spec.vocab_size,
        hidden_size=dimensions.hidden_size,
        intermediate_size=dimensions.intermediate_size,
        num_hidden_layers=dimensions.layers,
        num_attention_heads=dimensions.heads,
        num_key_value_heads=dimensions.key_value_heads,
        max_position_embeddings=max(spec.seq_length, published.positions if published else 0),
        rope_theta=_ROPE_THETA[section.type],
        tie_word_embeddings=published is None,
        **facts,
    )


def _gpt2(section: ModelSection, dimensions: Dimensions, spec: DataSpec) -> GPT2Config:
    return GPT2Config(
        vocab_size=spec.vocab_size,
        n_embd=dimensions.hidden_size,
        n_inner=dimensions.intermediate_size,
        n_layer=dimensions.layers,
        n_head=dimensions.heads,
        n_positions=spec.seq_length,
    )


def _bert(section: ModelSection, dimensions: Dimensions, spec: DataSpec) -> BertConfig:
    return BertConfig(**_encoder(dimensions, spec))


def _roberta(section: ModelSection, dimensions: Dimensions, spec: DataSpec) -> RobertaConfig:
    facts = _encoder(dimensions, spec)
    # RoBERTa numbers its positions from the padding token's id + 1
    facts["max_position_embeddings"] += (spec.pad_id or 0) + 1
    return RobertaConfig(**facts, type_vocab_size=1, layer_norm_eps=1e-5)


def _albert(section: ModelSection, dimensions: Dimensions, spec: DataSpec) -> AlbertConfig:
    return AlbertConfig(**_encoder(dimensions, spec), embedding_size=dimensions.embedding_size)


def _encoder(dimensions: Dimensions, spec: DataSpec) -> dict[str, Any]:
    """What BERT and its kin call the same."""
    return {
        "vocab_size": spec.vocab_size,
        "hidden_size": dimensions.hidden_size,
        "intermediate_size": dimensions.intermediate_size,
        "num_hidden_layers": dimensions.layers,
        "num_attention_heads": dimensions.heads,
        "max_position_embeddings": spec.seq_length,
        "pad_token_id": spec.pad_id,
    }


def _t5(section: ModelSection, dimensions: Dimensions, spec: DataSpec) -> T5Config:
    return T5Config(
        vocab_size=spec.vocab_size,
        d_model=dimensions.hidden_size,
        d_ff=dimensions.intermediate_size,
        num_layers=dimensions.layers,
        num_heads=dimensions.heads,
        d_kv=dimensions.hidden_size // dimensions.heads,
        decoder_start_token_id=spec.pad_id,
    )


_BUILDERS: dict[ModelType, Callable[[ModelSection, Dimensions, DataSpec], PretrainedConfig]] = {
    "llama2": _llama, "llama3": _llama, "gpt2": _gpt2, "bert": _bert, "roberta": _roberta, "albert": _albert, "t5": _t5,
}  # fmt: skip
