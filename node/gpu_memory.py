"""How much of each GPU's memory a volunteer gives: read from the command line, checked against what is there. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from cotrain.display import format_bytes
from cotrain.errors import InvalidRequestError
from cotrain.request import CamelModel
from node.units import parse_size

OPTION = "--max-gpu-memory"
_PERCENT = re.compile(r"(\d{1,3})\s*%")


class GpuMemory(CamelModel):
    """A bound for what a training process allocates on its GPU: a share of the GPU's memory, or a size."""

    percent: Annotated[int, Field(ge=1, le=100)] | None = None
    size_bytes: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.percent is None) == (self.size_bytes is None):
            raise ValueError("a share or a size, and not both")
        return self

    def of(self, total_bytes: int) -> int:
        """What may be used of a GPU with so much memory, bytes."""
        if self.percent is not None:
            return total_bytes * self.percent // 100
        assert self.size_bytes is not None
        return min(self.size_bytes, total_bytes)


def parse_gpu_memory(text: str, *, field: str) -> GpuMemory:
    """`50%`, `8GB` or `7.5 GiB`. Raises InvalidRequestError, in which `field` stands."""
    if (share := _PERCENT.fullmatch(text.strip())) is not None and 1 <= int(share[1]) <= 100:
        return GpuMemory(percent=int(share[1]))
    size_bytes = None if share is not None else parse_size(text)
    if not size_bytes:
        raise InvalidRequestError(
            f"{text!r} is no amount of memory", field=field, hint="for example 8GB, or a share of 1 to 100 %: 50%"
        )
    return GpuMemory(size_bytes=size_bytes)


def require_gpus(limit: GpuMemory, gpus: Sequence[tuple[str, int]], cuda: str | None) -> None:
    """Raises InvalidRequestError where the limit would bound nothing.

    Args:
        gpus: name and memory (bytes; 0 where the driver does not tell) of each.
        cuda: the version that torch was built with; None: it is a build for processors.
    """
    if not gpus:
        raise InvalidRequestError(
            "there is no GPU here, or its driver does not answer", field=OPTION,
            hint="leave it out: the processor trains; cotrain node doctor says more",
        )  # fmt: skip
    if cuda is None:
        raise InvalidRequestError(
            f"torch is a build for processors: of {len(gpus)} GPUs none is used", field=OPTION,
            hint="install the build for this GPU: https://pytorch.org/get-started/locally; or leave it out",
        )  # fmt: skip
    for name, total_bytes in gpus:
        if total_bytes and limit.size_bytes is not None and limit.size_bytes > total_bytes:
            raise InvalidRequestError(
                f"{format_bytes(limit.size_bytes)} are more than {name} has: {format_bytes(total_bytes)}", field=OPTION,
                hint="give less, or leave it out",
            )  # fmt: skip


def usable(limit: GpuMemory | None, total_bytes: int) -> int:
    """What a node may use of a GPU, bytes; 0 where the driver does not tell how much that has."""
    return total_bytes if limit is None else limit.of(total_bytes)
