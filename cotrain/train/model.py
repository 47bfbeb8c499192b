"""The models that can be trained: Llama in preset sizes; their loss; their parameters as one flat vector."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import LongTensor, Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from cotrain.config import ModelSection, Precision


@dataclass(frozen=True)
class ModelPreset:
    """Dimensions of a Llama."""

    hidden_size: int
    intermediate_size: int
    """Width of the SwiGLU feed-forward layers."""
    layers: int
    heads: int
    key_value_heads: int
    """Heads of keys and values where attention is grouped (llama3); divides `heads`."""


PRESETS: dict[str, ModelPreset] = {
    "nano": ModelPreset(hidden_size=128, intermediate_size=344, layers=5, heads=4, key_value_heads=2),
    "tiny": ModelPreset(hidden_size=384, intermediate_size=1024, layers=6, heads=6, key_value_heads=2),
    "small": ModelPreset(hidden_size=768, intermediate_size=2048, layers=15, heads=12, key_value_heads=4),
}
"""By `model.size`: about 1 M, 10 M and 100 M parameters with a vocabulary of 256."""


@dataclass(frozen=True)
class Architecture:
    """What tells one `model.type` from another at the same size."""

    rope_theta: float
    grouped_query_attention: bool


ARCHITECTURES: dict[str, Architecture] = {
    "llama2": Architecture(rope_theta=10_000.0, grouped_query_attention=False),
    "llama3": Architecture(rope_theta=500_000.0, grouped_query_attention=True),
}


def build_model(section: ModelSection, *, vocab_size: int, seq_length: int, seed: int) -> PreTrainedModel:
    """A freshly initialized causal language model on the CPU, with fp32 weights whatever `section.precision`.

    The same arguments give the same weights bit for bit; torch's global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(_llama_config(section, vocab_size=vocab_size, seq_length=seq_length))
    model = model.float()
    _initialize_matrices(model, std=model.config.initializer_range, seed=seed)
    return model


def _llama_config(section: ModelSection, *, vocab_size: int, seq_length: int) -> LlamaConfig:
    preset, architecture = PRESETS[section.size], ARCHITECTURES[section.type]
    grouped = architecture.grouped_query_attention
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=preset.hidden_size,
        intermediate_size=preset.intermediate_size,
        num_hidden_layers=preset.layers,
        num_attention_heads=preset.heads,
        num_key_value_heads=preset.key_value_heads if grouped else preset.heads,
        max_position_embeddings=seq_length,
        rope_theta=architecture.rope_theta,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
        # Llama's defaults name tokens 1 and 2, which are ordinary bytes here.
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


@torch.no_grad()
def _initialize_matrices(model: PreTrainedModel, *, std: float, seed: int) -> None:
    """Draw every matrix from a normal distribution; norms keep the ones they were built with.

    numpy draws one number at a time: torch's own sampler is vectorized, and gives other bits under other
    instruction sets.
    """
    generator = np.random.default_rng(seed)
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            values = generator.standard_normal(parameter.numel(), dtype=np.float32) * np.float32(std)
            parameter.copy_(torch.from_numpy(values).view(parameter.shape))


def count_parameters(model: torch.nn.Module) -> int:
    """Number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


# ------------------------------------------------------------------------------------------------- loss
def next_token_logits(model: PreTrainedModel, inputs: Tensor, *, precision: Precision) -> Tensor:
    """Logits in fp32, [batch, seq, vocabulary], for token ids [batch, seq] on the model's device.

    The key-value cache is off: nothing is generated here, and it would only hold memory.
    """
    with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        logits = model(input_ids=inputs, use_cache=False).logits
    return logits.float()


def language_model_loss(model: PreTrainedModel, tokens: LongTensor, *, precision: Precision) -> Tensor:
    """Mean cross-entropy of the next token, nats per token, a scalar in fp32.

    `tokens` is [batch, seq + 1] on the model's device: all but the last are inputs, all but the first
    targets.
    """
    logits = next_token_logits(model, tokens[:, :-1], precision=precision)
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


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
    layout = parameter_layout(model)
    size = count_parameters(model)
    if flat.shape != (size,):
        raise ValueError(f"a flat vector of shape ({size},) was expected, not {tuple(flat.shape)}")
    return [
        (flat[offset : offset + math.prod(shape)].view(shape), parameter)
        for (_, shape, offset), parameter in zip(layout, model.parameters(), strict=True)
    ]
