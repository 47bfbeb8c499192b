"""The inner optimizer and its learning rate."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from cotrain.sections import Scheduler, TrainSection
from cotrain.train.muon import MuonWithAdamW, hidden_matrices

BETA1 = 0.9
SGD_MOMENTUM = 0.9
MAX_WARMUP_SHARE = 0.1
WSD_DECAY_SHARE = 0.2
"""Part of what follows the warm-up in which wsd falls (arXiv:2405.18392)."""


def build_inner_optimizer(model: nn.Module, section: TrainSection) -> Optimizer:
    """The optimizer of the inner steps, at the peak learning rate; see `learning_rate` for the schedule.

    Weight decay is what each optimizer is defined with: decoupled in adamw and muon (arXiv:1711.05101), an L2 term of
    the gradient in adam and sgd. Norms and biases (1-D parameters) are spared. Muon takes the matrices of the
    transformer layers and leaves the rest to adamw (MuLoCo, arXiv:2505.23725).
    """
    parameters = list(model.parameters())
    matrices = hidden_matrices(model) if section.optimizer == "muon" else []
    taken = {id(parameter) for parameter in matrices}
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2 and id(p) not in taken], "weight_decay": section.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    lr, betas = section.learning_rate, (BETA1, section.beta2)
    if section.optimizer == "sgd":  # torch's fused SGD knows no sharded parameters
        return SGD(groups, lr=lr, momentum=SGD_MOMENTUM, foreach=True)
    if section.optimizer == "adam":
        return Adam(groups, lr=lr, betas=betas, fused=True)
    adamw = AdamW(groups, lr=lr, betas=betas, fused=True)
    return MuonWithAdamW(matrices, adamw, lr=lr, weight_decay=section.weight_decay) if matrices else adamw


def learning_rate(section: TrainSection, *, progress: float, total_steps: float) -> float:
    """The learning rate at a point of the run.

    Args:
        section: peak, warm-up, shape and end of the schedule.
        progress: share of the run that is done, clamped to [0, 1].
        total_steps: inner steps of the whole run, which the warm-up is a share of.

    Returns a value in [0, peak]: step s of W warm-up steps has (s + 1) / (W + 1) of the peak, so that the
    first step learns something. Raises ValueError if `total_steps` is not positive.
    """
    if not total_steps > 0:
        raise ValueError(f"total_steps is {total_steps}, expected a positive number")
    progress = min(1.0, max(0.0, progress))
    warmup_steps = min(float(section.warmup_steps), MAX_WARMUP_SHARE * total_steps)
    step = progress * total_steps
    if step < warmup_steps:
        return section.learning_rate * (step + 1) / (warmup_steps + 1)
    done = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
    floor = section.min_learning_rate_ratio
    return section.learning_rate * (floor + (1 - floor) * _remaining(section.lr_scheduler, done))


def _remaining(scheduler: Scheduler, done: float) -> float:
    """Height of the schedule over its end, from 1 to 0, when `done` (0 to 1) of what follows the warm-up is over."""
    if scheduler == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if scheduler == "linear":
        return 1 - done
    if scheduler == "wsd":
        return 1 - math.sqrt(max(0.0, 1 - (1 - done) / WSD_DECAY_SHARE))
    return 1.0


def set_learning_rate(optimizer: Optimizer, value: float) -> None:
    """Use this learning rate from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = value
