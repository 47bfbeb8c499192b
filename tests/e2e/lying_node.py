"""`cotrain node join`, but the training process signs for averages that it did not make.

Run as a program it is the node; with `--job` it is the node's training process.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from cotrain.cli import main
from cotrain.swarm.notary import Notary
from cotrain.train.codec import make_codec
from cotrain.train.launch import leave
from node import join, worker


def lie_in_each_average() -> None:
    """Add a little noise to each average, below what its receivers refuse, and sign for it as if it were right."""
    seal = Notary.seal

    def lie(notary: Notary, index: int, encoded: bytes) -> bytes:
        codec, part = make_codec(notary._terms.codec), notary._terms.parts[index]
        values = codec.decode(encoded, part.numel)
        return seal(notary, index, codec.encode(values + 0.2 * values.std() * torch.randn(part.numel)))

    Notary.seal = lie  # type: ignore[method-assign]


def own_command(job: Path) -> list[str]:
    return [sys.executable, __file__, "--job", str(job)]


if __name__ == "__main__":
    if "--job" in sys.argv:
        lie_in_each_average()
        leave(worker.main())
    assert join.join.__kwdefaults__ is not None
    join.join.__kwdefaults__["command"] = own_command
    main()
