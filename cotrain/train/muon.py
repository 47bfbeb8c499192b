"""Muon (Jordan, 2024, https://kellerjordan.github.io/posts/muon/) for hidden matrices, AdamW for all else.

`torch.optim.Muon` always computes in bfloat16, whose rounding makes two ranks drift from one process, and sends parts
of a sharded matrix at every product (six times as slow on a nano model under FSDP2). This one gathers it once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from cotrain.train.sharding import shard_like, transformer_layers, whole

MOMENTUM = 0.95
NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ADAMW_RMS = 0.2
"""Root mean square of a typical AdamW update: with it one learning rate serves both (arXiv:2502.16982)."""


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The matrices that Muon is for: those inside the transformer layers; embeddings and output heads are not."""
    layers = transformer_layers(model)
    embeddings = {
        id(module.weight) for layer in layers for module in layer.modules() if isinstance(module, nn.Embedding)
    }
    parameters = (parameter for layer in layers for parameter in layer.parameters())
    unique = {id(parameter): parameter for parameter in parameters if parameter.ndim == 2}
    return [parameter for key, parameter in unique.items() if key not in embeddings]


def orthogonalize(matrix: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: singular values end between 0.7 and 1.2; [rows, columns] fp32.

    Five Newton-Schulz steps in fp32 on the processor, in bfloat16 on a GPU, where that is much faster.
    """
    result = matrix.bfloat16() if matrix.is_cuda else matrix.float()
    wide = result.shape[0] <= result.shape[1]
    result = result if wide else result.T  # the smaller product of the two
    result = result / result.norm().clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = result @ result.T
        result = torch.addmm(result, torch.addmm(gram, gram, gram, beta=b, alpha=c), result, beta=a)
    return (result if wide else result.T).float()


class MuonWithAdamW(Optimizer):
    """One optimizer: its first parameter group is Muon's, the others are those of an AdamW it takes over.

    Weight decay is decoupled in both.
    """

    def __init__(self, matrices: list[nn.Parameter], rest: AdamW, *, lr: float, weight_decay: float):
        """`matrices` are 2-D; `rest` holds all other parameters."""
        super().__init__([{"params": matrices, "lr": lr, "weight_decay": weight_decay}, *rest.param_groups], {})
        self._rest = rest
        self._share()

    def _share(self) -> None:
        """Let AdamW work on the very groups and state of this optimizer, so that there is one of each."""
        self._rest.param_groups = self.param_groups[1:]
        self._rest.state = self.state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        group = self.param_groups[0]
        for parameter in group["params"]:
            if parameter.grad is not None:
                self._update(parameter, parameter.grad, group["lr"], group["weight_decay"])
        self._rest.step()
        return loss

    def _update(self, parameter: nn.Parameter, gradient: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
        update = orthogonalize(whole(gradient.lerp(momentum, MOMENTUM)))  # Nesterov's look ahead
        parameter.mul_(1 - lr * weight_decay)
        parameter.add_(shard_like(update, parameter), alpha=-lr * ADAMW_RMS * math.sqrt(max(update.shape)))
