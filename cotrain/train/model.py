"""Models: built from a preset or loaded from a source, with the head of their task; their parameters as one vector."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_QUESTION_ANSWERING_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from cotrain.errors import ConfigError, IntegrityError
from cotrain.sections import ModelSection, ModelType, TaskName, refusal
from cotrain.train.initialization import draw_weights
from cotrain.train.presets import class_facts, preset_config, set_dropout, token_facts
from cotrain.train.spec import DataSpec

_AUTO_CLASSES: dict[TaskName, Any] = {
    "causal-lm": AutoModelForCausalLM,
    "masked-lm": AutoModelForMaskedLM,
    "seq2seq-lm": AutoModelForSeq2SeqLM,
    "text-classification": AutoModelForSequenceClassification,
    "token-classification": AutoModelForTokenClassification,
    "question-answering": AutoModelForQuestionAnswering,
}
_MAPPINGS: dict[TaskName, Any] = {
    "causal-lm": MODEL_FOR_CAUSAL_LM_MAPPING,
    "masked-lm": MODEL_FOR_MASKED_LM_MAPPING,
    "seq2seq-lm": MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    "text-classification": MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    "token-classification": MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    "question-answering": MODEL_FOR_QUESTION_ANSWERING_MAPPING,
}
_MODEL_TYPES: dict[str, ModelType] = {
    "llama": "llama3", "gpt2": "gpt2", "bert": "bert", "roberta": "roberta", "albert": "albert", "t5": "t5",
}  # fmt: skip
"""By the `model_type` of a Hugging Face config."""
_SOURCE = "model.source"


def model_class_for(task: TaskName) -> Any:
    """The transformers Auto class that loads a model with the head of this task."""
    return _AUTO_CLASSES[task]


def build_model(section: ModelSection, spec: DataSpec, *, seed: int) -> PreTrainedModel:
    """A model for the data of `spec` on the CPU in training mode, with fp32 weights whatever `section.precision`.

    A preset is freshly initialized; a `section.source` (a local folder or a Hugging Face id) is loaded, and only a
    head that it lacks is fresh. The same arguments give the same weights bit for bit; torch's global random state is
    left as it was. Raises ConfigError if the source cannot be had or does not fit the task or the data,
    IntegrityError if its weights are not finite.
    """
    with torch.random.fork_rng(devices=[]):
        model = _create(section, spec, seed) if section.source is None else _load(section, section.source, spec, seed)
    if section.activation_checkpointing:
        _checkpoint_activations(model)
    return model.train()


def empty_model(section: ModelSection, spec: DataSpec) -> PreTrainedModel:
    """The preset without its weights, on the meta device: names, shapes and counts of the parameters."""
    with torch.device("meta"):
        return _from_config(section, spec)


def _create(section: ModelSection, spec: DataSpec, seed: int) -> PreTrainedModel:
    model = _from_config(section, spec)
    draw_weights(model, seed=seed)
    return model


def _from_config(section: ModelSection, spec: DataSpec) -> PreTrainedModel:
    config = preset_config(section, spec)
    return model_class_for(spec.task).from_config(
        config, attn_implementation=section.attention, dtype=torch.float32, trust_remote_code=False
    )


def _checkpoint_activations(model: PreTrainedModel) -> None:
    if not model.supports_gradient_checkpointing:
        raise ConfigError(
            f"activations of {model.config.model_type} cannot be checkpointed: transformers does not support it",
            field="model.activation_checkpointing", hint="set it to false, and use a smaller train.batch_size",
        )  # fmt: skip
    model.activation_checkpointing_enable({"use_reentrant": False})


# ---------------------------------------------------------------------------------------------- sources
def _load(section: ModelSection, source: str, spec: DataSpec, seed: int) -> PreTrainedModel:
    local = Path(source).is_dir()
    with _explained(source):
        config = AutoConfig.from_pretrained(source, local_files_only=local, trust_remote_code=False)
    if reason := refused_task(config, spec.task):
        raise ConfigError(
            f"{source} cannot learn {spec.task}: {reason}",
            field=_SOURCE,
            hint="take another model or another train.task",
        )
    _check_vocabulary(config, source, spec)
    _adapt_config(config, section, spec)
    with _explained(source):
        model, report = model_class_for(spec.task).from_pretrained(
            source, config=config, local_files_only=local, trust_remote_code=False, use_safetensors=True,
            dtype=torch.float32, attn_implementation=section.attention, key_mapping=_renamed_keys(config, spec.task),
            ignore_mismatched_sizes=True, output_loading_info=True,
        )  # fmt: skip
    _check_positions(model, source, spec)
    fresh = {*report["missing_keys"], *_replaced_heads(report["mismatched_keys"], source, spec)}
    _check_weights(model, source, fresh)
    draw_weights(model, seed=seed, only=fresh)
    return model


@contextlib.contextmanager
def _explained(source: str) -> Iterator[None]:
    """Raises ConfigError in place of what transformers raises for a source that it cannot load."""
    try:
        yield
    except Exception as error:  # transformers and safetensors have no common class of errors for a broken model
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"{source} cannot be loaded: {why}", field=_SOURCE,
            hint="give a folder saved by save_pretrained with safetensors, or the id of such a Hugging Face model",
        ) from error  # fmt: skip


def refused_task(config: PretrainedConfig, task: TaskName) -> str:
    """Why a model of this config cannot learn the task; empty if it can."""
    known = _MODEL_TYPES.get(config.model_type)
    if known is not None and (reason := refusal(known, task)):
        return reason
    if type(config) not in _MAPPINGS[task]:
        return f"transformers has no such head for {config.model_type}"
    if task == "causal-lm" and type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        return f"{config.model_type} reads in both directions: it would see the token that it is to predict"
    return ""


def _adapt_config(config: PretrainedConfig, section: ModelSection, spec: DataSpec) -> None:
    """Fit a source's config to the data: its classes, dropout, and the special tokens it leaves open.

    The padding token is always the data's: heads look for it in the samples.
    """
    for name, value in class_facts(spec).items():
        setattr(config, name, value)
    for name, value in token_facts(spec).items():
        if value is not None and (name == "pad_token_id" or getattr(config, name, None) is None):
            setattr(config, name, value)
    if section.dropout is not None:
        set_dropout(config, section.dropout)


def _renamed_keys(config: PretrainedConfig, task: TaskName) -> dict[str, str] | None:
    """Llama and its kin call their trunk `model`, but `transformer` under the head of question answering."""
    renamed = task == "question-answering" and _MAPPINGS[task][type(config)].base_model_prefix == "transformer"
    return {r"^model\.": "transformer."} if renamed else None


def _check_vocabulary(config: PretrainedConfig, source: str, spec: DataSpec) -> None:
    """Raises ConfigError if the model does not know all tokens of the data."""
    tokens = getattr(config.get_text_config(), "vocab_size", None)
    if tokens is not None and tokens < spec.vocab_size:
        raise ConfigError(
            f"{source} knows {tokens} tokens, the tokenizer has {spec.vocab_size}", field="data.tokenizer",
            hint="take the tokenizer that the model was trained with",
        )  # fmt: skip


def _check_positions(model: PreTrainedModel, source: str, spec: DataSpec) -> None:
    """Raises ConfigError if samples are longer than what the model reads."""
    positions = longest_input(model)
    if positions is not None and positions < spec.seq_length:
        raise ConfigError(
            f"{source} reads at most {positions} tokens, a sample has {spec.seq_length}", field="data.seq_length",
            hint=f"set data.seq_length to {positions} or less",
        )  # fmt: skip


def longest_input(model: PreTrainedModel) -> int | None:
    """Tokens that the model reads at most; None if it has no bound."""
    positions: int | None = getattr(model.config, "max_position_embeddings", None)
    offsets = [
        module.padding_idx + 1
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings") and module.padding_idx is not None
    ]  # RoBERTa and its kin number their positions from there
    return None if positions is None else positions - max(offsets, default=0)


def _replaced_heads(
    mismatched: Iterable[tuple[str, torch.Size, torch.Size]], source: str, spec: DataSpec
) -> Iterator[str]:
    """The heads that were made for other classes. Raises ConfigError for any other weights of a wrong shape."""
    for name, found, expected in mismatched:
        if expected[0] != len(spec.labels) or found[1:] != expected[1:]:
            raise ConfigError(
                f"{source}: {name} is {tuple(found)}, config.json promises {tuple(expected)}", field=_SOURCE,
                hint="give another copy of the model",
            )  # fmt: skip
        yield name


def _check_weights(model: PreTrainedModel, source: str, fresh: set[str]) -> None:
    """Raises ConfigError if more than a head is missing, IntegrityError if a value is not finite."""
    missing = sum(parameter.numel() for name, parameter in model.named_parameters() if name in fresh)
    if 2 * missing > count_parameters(model):
        raise ConfigError(
            f"{source} lacks most of the weights that its config.json promises", field=_SOURCE,
            hint="give a folder that holds the whole model",
        )  # fmt: skip
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise IntegrityError(
                f"{source}: the weights {name} are not finite", field=_SOURCE, hint="give another copy of the model"
            )


def count_parameters(model: torch.nn.Module) -> int:
    """Number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


@contextlib.contextmanager
def inference_mode(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode without gradients; the mode that the model was in comes back afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


# ------------------------------------------------------------------------------------- flat parameters
def parameter_layout(model: torch.nn.Module) -> list[tuple[str, tuple[int, ...], int]]:
    """(name, shape, offset) of each parameter in the flat vector, in the order of `named_parameters`."""
    parameters = list(model.named_parameters())
    sizes = [parameter.numel() for _, parameter in parameters]
    offsets = np.cumsum([0, *sizes])[:-1].tolist()
    return [
        (name, tuple(parameter.shape), offset) for (name, parameter), offset in zip(parameters, offsets, strict=True)
    ]


@torch.no_grad()
def flatten_parameters(model: torch.nn.Module, out: Tensor | None = None) -> Tensor:
    """All parameters as one vector (1-D, fp32, CPU), tied ones once; written into `out` where it is given.

    Raises ValueError if `out` does not fit.
    """
    size = count_parameters(model)
    if out is None:
        out = torch.empty(size, dtype=torch.float32)
    elif out.dtype != torch.float32 or out.device.type != "cpu":
        raise ValueError(f"out is {out.dtype} on {out.device}, expected torch.float32 on cpu")
    for view, parameter in _slices(model, out):
        view.copy_(parameter)
    return out


@torch.no_grad()
def load_flat_parameters(model: torch.nn.Module, flat: Tensor) -> None:
    """Copy a flat vector (of any device) into the parameters. Raises ValueError if its size is not theirs."""
    for view, parameter in _slices(model, flat):
        parameter.copy_(view)


def _slices(model: torch.nn.Module, flat: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Each parameter with its view of `flat`. Raises ValueError if `flat` has not their total size."""
    parameters = list(model.parameters())
    sizes = [parameter.numel() for parameter in parameters]
    if flat.shape != (sum(sizes),):
        raise ValueError(f"a flat vector of shape ({sum(sizes)},) was expected, not {tuple(flat.shape)}")
    return [
        (part.view(parameter.shape), parameter) for part, parameter in zip(flat.split(sizes), parameters, strict=True)
    ]
