"""What optimizers and several devices both need: the layers of a model, and tensors that are spread over ranks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def transformer_layers(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of any transformer, in order: what its outermost ModuleLists hold."""
    layers: list[nn.Module] = []
    for child in model.children():
        layers += child if isinstance(child, nn.ModuleList) else transformer_layers(child)
    return layers


def whole(tensor: Tensor) -> Tensor:
    """The full tensor; where it is sharded (FSDP2), every rank must ask for it at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(full: Tensor, reference: Tensor) -> Tensor:
    """This rank's part of `full`, which all ranks hold, cut and placed as `reference` is; nothing is sent."""
    full = full.to(reference.device)
    if not isinstance(reference, DTensor):
        return full
    return distribute_tensor(full, reference.device_mesh, reference.placements, src_data_rank=None)
