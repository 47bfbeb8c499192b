"""The parameters that rounds are about."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from cotrain.train.inner import InnerLoop


class Weights(Protocol):
    """The parameters that rounds are about, as one flat vector."""

    def take(self) -> Tensor:
        """A copy, [n] float32 on the CPU."""

    def put(self, flat: Tensor) -> None:
        """Write a vector of that form into the model."""


class InnerWeights:
    """All parameters of a model, however many devices it is spread over."""

    def __init__(self, inner: InnerLoop):
        self._inner = inner

    def take(self) -> Tensor:
        return self._inner.weights()

    def put(self, flat: Tensor) -> None:
        self._inner.load_weights(flat)


class NoWeights:
    """For runs whose devices agree after every step: rounds only count, there is nothing to average."""

    def take(self) -> Tensor:
        return torch.empty(0)

    def put(self, flat: Tensor) -> None:
        return None
