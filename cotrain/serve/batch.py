"""Conversations that take their steps together: one pass of the model gives each of them its next token.

What the model keeps of each (keys and values, [rows, heads, columns, size]) stands in one tensor a layer, aligned at
the end: shorter rows have columns before them that the attention mask leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from cotrain.serve.loading import LoadedModel


class Batch:
    """The rows that are under way. For one thread."""

    def __init__(self, loaded: LoadedModel):
        self._loaded = loaded
        self._cache: Any = None
        self._lengths: list[int] = []
        """Tokens that the model has read, of each row."""

    def __len__(self) -> int:
        return len(self._lengths)

    @torch.inference_mode()
    def add(self, prompt: Sequence[int]) -> Tensor:
        """Read a prompt as a new, last row; returns the logits of its next token: [vocabulary], float32 on the CPU."""
        assert not self._lengths or self._loaded.batches
        tokens = torch.tensor([list(prompt)], device=self._loaded.device)
        logits, cache = self._forward(tokens, None, torch.ones_like(tokens), torch.arange(len(prompt))[None])
        if self._cache is None:
            self._cache = cache
        else:
            _append(self._cache, cache, max(self._lengths), len(prompt))
        self._lengths.append(len(prompt))
        return logits[0]

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Read one token of each row; returns the logits of the next ones: [rows, vocabulary], float32 on the CPU."""
        lengths = torch.tensor(self._lengths)
        columns = torch.arange(max(self._lengths) + 1)
        mask = (columns >= columns[-1] - lengths[:, None]).long()
        ids = torch.tensor(tokens, device=self._loaded.device)[:, None]
        logits, self._cache = self._forward(ids, self._cache, mask, lengths[:, None])
        self._lengths = [length + 1 for length in self._lengths]
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Let all other rows go; those that stay keep their order."""
        if len(rows) == len(self._lengths):
            return
        self._lengths = [self._lengths[row] for row in rows]
        if not rows:
            self._cache = None
            return
        chosen = torch.tensor(rows, device=self._loaded.device)
        longest = max(self._lengths)
        for layer in self._cache.layers:
            layer.keys, layer.values = (kept[chosen][..., -longest:, :] for kept in (layer.keys, layer.values))

    def _forward(self, tokens: Tensor, cache: Any, mask: Tensor, positions: Tensor) -> tuple[Tensor, Any]:
        device = self._loaded.device
        facts: dict[str, Any] = {"attention_mask": mask.to(device)}
        if self._loaded.batches:  # others count for themselves, which is right for a row alone
            facts["position_ids"] = positions.to(device)
        outputs = self._loaded.model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1, **facts)
        return outputs.logits[:, -1].float().cpu(), outputs.past_key_values


def _append(cache: Any, added: Any, columns: int, added_columns: int) -> None:
    """Put a row below those of `cache`, both aligned at their ends."""
    width = max(columns, added_columns)
    for layer, new in zip(cache.layers, added.layers, strict=True):
        layer.keys, layer.values = (
            torch.cat([_widened(one, width - columns), _widened(other, width - added_columns)])
            for one, other in ((layer.keys, new.keys), (layer.values, new.values))
        )


def _widened(kept: Tensor, columns: int) -> Tensor:
    return pad(kept, (0, 0, columns, 0)) if columns else kept
