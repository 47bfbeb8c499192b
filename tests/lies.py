"""What a lying reducer does, in its own process."""

from __future__ import annotations

import torch

from cotrain.swarm.notary import Notary
from cotrain.train.codec import make_codec


def lie_in_each_average() -> None:
    """Add a little noise to each average, below what its receivers refuse, and sign for it as if it were right."""
    seal = Notary.seal

    def lie(notary: Notary, index: int, encoded: bytes) -> bytes:
        codec, part = make_codec(notary._terms.codec), notary._terms.parts[index]
        values = codec.decode(encoded, part.numel)
        return seal(notary, index, codec.encode(values + 0.2 * values.std() * torch.randn(part.numel)))

    Notary.seal = lie  # type: ignore[method-assign]
