"""Loads a causal language model from the folder that it was saved to, and finds out what serving must know of it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PretrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerFast as Tokenizer
from transformers.cache_utils import DynamicLayer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from cotrain.serve.model_folder import check_folder, unservable
from cotrain.train.model import longest_input, refused_task
from cotrain.train.tokenizer import load_tokenizer

_UNBOUNDED_CONTEXT_TOKENS = 4096
"""Of models that say nothing of a bound: what they keep of a conversation takes memory with each token."""


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, in evaluation mode."""

    model: PreTrainedModel
    tokenizer: Tokenizer
    context_tokens: int
    """Of a conversation with its answer, at most."""
    end_ids: frozenset[int]
    """Tokens by which the model itself ends an answer."""
    batches: bool
    """Whether several conversations can take their steps together: what is kept of each is keys and values alone."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.device


def load_served_model(folder: Path, *, device: str = "auto") -> LoadedModel:
    """The model in a folder as `save_pretrained` makes it.

    Args:
        device: `auto`: the first GPU where there is one, else the processor.

    Raises UnservableError that says what the folder lacks, ConfigError for a tokenizer that cannot be used.
    """
    transformers_logging.disable_progress_bar()
    check_folder(folder)
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    config = _config(folder)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, config=config, local_files_only=True, trust_remote_code=False, use_safetensors=True,
            dtype=torch.float32 if where.type == "cpu" else "auto", output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # transformers and safetensors have no common class of errors for a broken model
        raise unservable(folder, f"cannot be loaded: {_first_line(error)}") from error
    if lacking := sorted([*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])]):
        raise unservable(folder, f"lacks weights that its config.json promises, {lacking[0]} among them")
    tokenizer = load_tokenizer(str(folder), "causal-lm")
    model = model.to(where).eval()
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise unservable(folder, "its tokenizer has more tokens than the model knows")
    return LoadedModel(
        model=model, tokenizer=tokenizer, context_tokens=longest_input(model) or _UNBOUNDED_CONTEXT_TOKENS,
        end_ids=_end_ids(model, tokenizer), batches=_can_batch(folder, model),
    )  # fmt: skip


def _config(folder: Path) -> PretrainedConfig:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as above
        raise unservable(folder, f"its config.json cannot be used: {_first_line(error)}") from error
    if reason := refused_task(config, "causal-lm"):
        raise unservable(folder, f"is no model that goes on with a text: {reason}")
    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    if config.architectures and not known & set(config.architectures):
        raise unservable(folder, f"is no model that goes on with a text, but a {config.architectures[0]}")
    return config


def _end_ids(model: PreTrainedModel, tokenizer: Tokenizer) -> frozenset[int]:
    said = getattr(model.generation_config, "eos_token_id", None)
    listed = said if isinstance(said, list) else [said]
    return frozenset(token for token in [*listed, tokenizer.eos_token_id] if token is not None)


@torch.inference_mode()
def _can_batch(folder: Path, model: PreTrainedModel) -> bool:
    """Raises UnservableError where the model keeps nothing between two tokens that it could go on from."""
    token = torch.zeros((1, 1), dtype=torch.long, device=model.device)
    try:
        cache = model(input_ids=token, use_cache=True).past_key_values
    except (AttributeError, TypeError) as error:
        raise unservable(folder, "keeps no keys and values between tokens") from error
    if cache is None:
        raise unservable(folder, "keeps no keys and values between tokens")
    plain = isinstance(cache, DynamicCache) and all(type(layer) is DynamicLayer for layer in cache.layers)
    return plain and "position_ids" in inspect.signature(model.forward).parameters


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
