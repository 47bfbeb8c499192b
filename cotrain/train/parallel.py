"""Several devices in one machine: every rank runs the same loop on the same facts, which come from rank 0."""

from __future__ import annotations

import contextlib
import json
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from transformers import PreTrainedModel

from cotrain.errors import ConfigError, IntegrityError, MissingDeviceError
from cotrain.process import bind_to_parent
from cotrain.sections import Strategy
from cotrain.train.launch import FOLDER_VARIABLE, STORE_FILE
from cotrain.train.model import count_parameters, flatten_parameters, load_flat_parameters, parameter_layout
from cotrain.train.sharding import shard_like, transformer_layers, whole

OPTIMIZER_PREFIX = "optimizer."
"""Begins the name of every tensor of an optimizer's state."""
LONGEST_WAIT = timedelta(days=1)
"""How long ranks wait for each other: rank 0 may prepare data for hours; a rank that dies is the launcher's affair."""

T = TypeVar("T")


def require_devices(count: int) -> None:
    """Raises MissingDeviceError if this machine has fewer than `count` GPUs."""
    found = torch.cuda.device_count()
    if found < count:
        raise MissingDeviceError(
            f"{count} GPUs are wanted, this machine has {found}", field="distributed.gpus_per_node",
            hint="lower distributed.gpus_per_node; 0 trains on the processor",
        )  # fmt: skip


@dataclass(frozen=True)
class ParallelGroup:
    """This process among those that train one model together; alone, nothing is sent and nothing waits."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def from_environment(cls) -> ParallelGroup:
        """The group that `launch` started, or this process alone. `close` it at the end.

        A GPU is touched here, so whatever forks must have done so. Raises MissingDeviceError if there are GPUs, but
        fewer than ranks.
        """
        gpus = torch.cuda.device_count()
        folder = os.environ.get(FOLDER_VARIABLE)
        if folder is None:
            return cls(0, 1, torch.device("cuda" if gpus else "cpu"))
        bind_to_parent()
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        if 0 < gpus < size:
            raise MissingDeviceError(
                f"{size} processes cannot share {gpus} GPUs", field="distributed.gpus_per_node",
                hint=f"use {gpus} processes, or set CUDA_VISIBLE_DEVICES= to train on the processor",
            )  # fmt: skip
        device = torch.device("cuda", rank) if gpus else torch.device("cpu")
        if gpus:
            torch.cuda.set_device(device)
        for backend in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{backend}_SOCKET_IFNAME", "lo")  # nothing leaves this machine
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpus else "gloo", rank=rank, world_size=size, timeout=LONGEST_WAIT,
            store=dist.FileStore(str(Path(folder) / STORE_FILE), size),  # type: ignore[attr-defined]
        )  # fmt: skip
        return cls(rank, size, device)

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1:
            dist.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this rank speaks for all."""
        return self.rank == 0

    # ------------------------------------------------------------------------------------------ facts
    def broadcast_object(self, value: T) -> T:
        """What rank 0 gave; of the others `value` is passed over. It must be what JSON can hold."""
        if self.size == 1:
            return value
        encoded = bytearray(json.dumps(value).encode() if self.is_main else b"")
        length = self.broadcast_tensor(torch.tensor([len(encoded)]))
        content = torch.frombuffer(encoded, dtype=torch.uint8) if self.is_main else torch.empty(int(length)).byte()
        return json.loads(bytes(self.broadcast_tensor(content).numpy()))

    def broadcast_tensor(self, tensor: Tensor) -> Tensor:
        """Overwrite `tensor` with rank 0's, of the same shape and type; returns it."""
        if self.size > 1:
            dist.broadcast(tensor, 0)
        return tensor

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, a new tensor."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def rows(self, count: int) -> slice:
        """This rank's part of a micro-batch of `count` samples. Raises ConfigError if it has no equal parts."""
        if count % self.size:
            raise ConfigError(
                f"{count} samples cannot be dealt out evenly to {self.size} processes", field="train.batch_size",
                hint=f"make it a multiple of {self.size}",
            )  # fmt: skip
        part = count // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    # ------------------------------------------------------------------------------------------ the model
    def wrap(self, model: PreTrainedModel, strategy: Strategy) -> nn.Module:
        """The module to call in place of the model, on this rank's device; alone it is the model itself.

        fsdp: each transformer layer and the rest is sharded (FSDP2), and the model changed in place; else DDP. All
        ranks must give the same weights. Weights and gradients are fp32 in both: mixed precision is autocast's affair,
        so that every strategy computes alike. Gradients are averaged over the ranks.
        """
        if self.size == 1:
            return model.to(self.device)
        if strategy == "fsdp":
            mesh = init_device_mesh(self.device.type, (self.size,))
            for layer in transformer_layers(model):
                fully_shard(layer, mesh=mesh)
            fully_shard(model, mesh=mesh)
            return model.to(self.device)  # buffers; the shards are there already
        return DistributedDataParallel(
            model.to(self.device), device_ids=[self.device] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
        )  # fmt: skip

    def accumulate(self, module: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        """The context of a micro-batch's forward and backward pass: DDP sends gradients only in the last one.

        FSDP sends them in each, since keeping them whole would take the memory that sharding is to save.
        """
        if not last and isinstance(module, DistributedDataParallel):
            return module.no_sync()
        return contextlib.nullcontext()

    def clip_grad_norm(self, model: nn.Module, max_norm: float) -> Tensor:
        """Clip the gradients of the whole model to `max_norm`; returns their norm before, a scalar."""
        return whole(nn.utils.clip_grad_norm_(model.parameters(), max_norm))

    # ------------------------------------------------------------------------------------------ whole state
    @torch.no_grad()
    def gather_flat(self, model: nn.Module) -> Tensor:
        """As `flatten_parameters`, of a model that may be sharded; every rank must ask."""
        if not _reshard(model):
            return flatten_parameters(model)
        parts = [whole(parameter).flatten().float().cpu() for parameter in model.parameters()]
        return torch.cat(parts)

    @torch.no_grad()
    def load_flat(self, model: nn.Module, flat: Tensor) -> None:
        """As `load_flat_parameters`, of a model that may be sharded; every rank gives the same vector.

        Raises ValueError if its size is not the model's.
        """
        if not _reshard(model):
            load_flat_parameters(model, flat)
            return
        if flat.shape != (count_parameters(model),):
            raise ValueError(f"{count_parameters(model)} values were expected, not {tuple(flat.shape)}")
        for (_, shape, offset), parameter in zip(parameter_layout(model), model.parameters(), strict=True):
            part = flat[offset : offset + parameter.numel()].view(shape)
            parameter.copy_(shard_like(part, parameter))

    @torch.no_grad()
    def optimizer_tensors(self, model: nn.Module, optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The optimizer's state, whole, on the CPU, by parameter; and JSON-able facts to check it by.

        Every rank must ask; only rank 0 gets the tensors. Any number of ranks can load it, under any strategy.
        (`torch.distributed.checkpoint.state_dict` would take a step of the optimizer to learn its form.)
        """
        _reshard(model)
        tensors: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            for key, value in optimizer.state.get(parameter, {}).items():
                full = whole(value)
                if self.is_main:
                    tensors[f"{OPTIMIZER_PREFIX}{name}.{key}"] = full.to("cpu", copy=True)
        return tensors, {"kind": type(optimizer).__name__}

    @torch.no_grad()
    def load_optimizer_tensors(
        self, model: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor], rest: dict[str, Any]
    ) -> None:
        """Take up what `optimizer_tensors` gave rank 0; every rank gives the same. Other tensors are passed over.

        Learning rate and weight decay stay as they are. Raises IntegrityError if the state is of another optimizer or
        model; the optimizer is then as it was.
        """
        _reshard(model)
        if rest.get("kind") != type(optimizer).__name__:
            raise IntegrityError(f"the state is of {rest.get('kind')}, not of {type(optimizer).__name__}")
        parameters = dict(model.named_parameters())
        states: dict[Tensor, dict[str, Tensor]] = {}
        for label, value in tensors.items():
            if not label.startswith(OPTIMIZER_PREFIX):
                continue
            name, _, key = label.removeprefix(OPTIMIZER_PREFIX).rpartition(".")
            parameter = parameters.get(name)
            if parameter is None or value.shape not in ((), parameter.shape):
                raise IntegrityError(f"{label} {tuple(value.shape)} is of no parameter of this model")
            part = value.to(self.device, copy=True)
            states.setdefault(parameter, {})[key] = shard_like(part, parameter) if value.ndim else part
        optimizer.state.clear()
        optimizer.state.update(states)


def _reshard(model: nn.Module) -> bool:
    """Let go of the whole parameters that FSDP2 may keep after a forward pass; False if nothing is sharded."""
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.reshard()
    return bool(sharded)
