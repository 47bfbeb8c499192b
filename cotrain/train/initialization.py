"""Initial weights: the distribution that each architecture is defined with, drawn so that every machine gets the same.

numpy draws one number at a time: torch's own sampler is vectorized, and gives other bits under other instruction sets.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

_DEFAULT_STD = 0.02


@torch.no_grad()
def draw_weights(model: PreTrainedModel, *, seed: int, only: Collection[str] | None = None) -> None:
    """Draw every matrix (or those named in `only`) from a normal distribution, in the order of the parameters.

    Vectors keep what transformers built them with: norms ones, biases zeros. The embedding of the padding token is
    zero, as in transformers: it never gets a gradient.
    """
    generator = np.random.default_rng(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and (only is None or name in only):
            std = initial_std(model.config, name)
            values = generator.standard_normal(parameter.numel(), dtype=np.float32) * np.float32(std)
            parameter.copy_(torch.from_numpy(values).view(parameter.shape))
    for name, module in model.named_modules():
        pads = isinstance(module, nn.Embedding) and module.padding_idx is not None
        if pads and (only is None or f"{name}.weight" in only):
            module.weight[module.padding_idx] = 0.0


def initial_std(config: PretrainedConfig, name: str) -> float:
    """Standard deviation of the initial values of the matrix that is called `name` in a model of `config`."""
    if config.model_type == "t5":
        return float(config.initializer_factor * _t5_scale(config, name.split(".")[-2]))
    std = getattr(config, "initializer_range", None) or _DEFAULT_STD
    if config.model_type == "gpt2" and name.endswith("c_proj.weight"):
        return float(std / math.sqrt(2 * config.n_layer))  # GPT-2 scales what is added to the residual stream
    return float(std)


def _t5_scale(config: PretrainedConfig, layer: str) -> float:
    """T5 scales each matrix by what goes into it; its attention is not divided by the root of the head's width."""
    if layer in ("shared", "embed_tokens"):
        return 1.0
    inputs = {"q": config.d_model * config.d_kv, "o": config.num_heads * config.d_kv, "wo": config.d_ff}
    return float(inputs.get(layer, config.d_model) ** -0.5)
