"""The inner step: forward and backward over micro-batches, clip, update; what goes wrong in it is dealt with here."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from cotrain.config import RunConfig
from cotrain.errors import MemoryShortageError
from cotrain.sections import Precision
from cotrain.train.data.order import samples_at
from cotrain.train.data.permutation import Indices
from cotrain.train.data.samples import TaskDataset
from cotrain.train.distill import DistillationLoss
from cotrain.train.optim import build_inner_optimizer, set_learning_rate
from cotrain.train.parallel import ParallelGroup
from cotrain.train.tasks.metrics import IGNORE, Batch, Prediction

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SEED_MASK = 2**63 - 1

logger = logging.getLogger(__name__)


def precision_on(device: torch.device, config: RunConfig) -> Precision:
    """The arithmetic of the inner steps on a device: `model.precision`, else what `train.mixed_precision` means there.

    Mixed precision is for GPUs: most processors compute bf16 more slowly than fp32.
    """
    if config.model.precision is not None:
        return config.model.precision
    if not config.train.mixed_precision or device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def cross_entropy_sum(predictions: list[Prediction]) -> Tensor:
    """Sum of the cross-entropies of all targets that are not IGNORE, nats, a scalar in fp32."""
    return torch.stack(
        [F.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORE) for logits, targets in predictions]
    ).sum()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the device, or the processor's allocator, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


@dataclass(frozen=True)
class StepResult:
    """What one inner step did, over all devices of this node."""

    loss: float
    """Mean over the step's targets, nats; with a teacher its share is in it."""
    targets: int
    """Targets predicted."""
    tokens: int
    """Tokens read, padding not counted."""
    skipped: bool
    """The loss or the gradients were not finite: the weights are as before."""


class InnerLoop:
    """A model, its inner optimizer and its data; `step` is the same alone, in a swarm and in every rank.

    The loss of a step is the sum over all its targets divided by their number, so that neither the size of the
    micro-batches nor the number of devices changes what is learnt.
    """

    def __init__(
        self, config: RunConfig, model: PreTrainedModel, dataset: TaskDataset, group: ParallelGroup, *,
        teacher: DistillationLoss | None = None, on_trouble: Callable[[str], None] = logger.warning,
    ):  # fmt: skip
        """`on_trouble` is told, in a sentence, what was done about a step that did not go as it should."""
        self.model, self.dataset, self.group = model, dataset, group
        self._section, self._seed = config.train, config.session.seed
        self._teacher, self._on_trouble = teacher, on_trouble
        self.precision = precision_on(group.device, config)
        self.micro_batch_size = config.train.batch_size
        self._wrapped: Any = group.wrap(model, config.distributed.strategy)
        self._compiled = torch.compile(self._wrapped) if config.model.compile else self._wrapped
        self.optimizer = build_inner_optimizer(model, config.train)
        self.scaler = torch.amp.GradScaler(group.device.type, enabled=self.precision == "fp16")
        model.train()

    def step(self, positions: Indices, rate: float) -> StepResult:
        """One inner step at learning rate `rate` on the node's samples.

        They are named by their positions in the run's data order (int64 [samples_per_step]); whatever is random in
        the step (masking, dropout) follows from these. Raises MemoryShortageError when not even one sample fits.
        """
        while (result := self._try_step(positions, rate)) is None:
            self._halve_micro_batch()
        return result

    def new_optimizer(self) -> None:
        """Forget the inner optimizer's state."""
        self.optimizer = build_inner_optimizer(self.model, self._section)

    def weights(self) -> Tensor:
        """All parameters, [n] float32 on the CPU; in several processes every rank must ask."""
        return self.group.gather_flat(self.model)

    def load_weights(self, flat: Tensor) -> None:
        """Write what `weights` gave into the model."""
        self.group.load_flat(self.model, flat)

    def optimizer_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The inner optimizer's state: (tensors, JSON-able rest); every rank must ask."""
        return self.group.optimizer_tensors(self.model, self.optimizer)

    def load_optimizer_tensors(self, tensors: dict[str, Tensor], rest: dict[str, Any]) -> None:
        """Take up what `optimizer_tensors` gave; other tensors are passed over."""
        self.group.load_optimizer_tensors(self.model, self.optimizer, tensors, rest)

    # ------------------------------------------------------------------------------------------ one try
    def _try_step(self, positions: Indices, rate: float) -> StepResult | None:
        """None if memory ran out; the weights are then as before."""
        try:
            return self._compute(positions, rate)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        self.optimizer.zero_grad(set_to_none=True)
        if self.group.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _compute(self, positions: Indices, rate: float) -> StepResult:
        torch.manual_seed((self._seed * 1_000_003 + int(positions[0]) * 64 + self.group.rank) & _SEED_MASK)
        batches = self._micro_batches(positions)
        targets, tokens = self._count(batches)
        share = self.group.size / max(1, targets)  # ranks' gradients are averaged
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.group.device)
        for number, batch in enumerate(batches, start=1):
            with self.group.accumulate(self._wrapped, last=number == len(batches)):
                loss = self._training_loss(batch)
                self.scaler.scale(loss * share).backward()
            total += loss.detach()
        self.scaler.unscale_(self.optimizer)
        norm = float(self.group.clip_grad_norm(self.model, self._section.max_grad_norm))
        loss_mean = float(self.group.sum(total)) / max(1, targets)
        return StepResult(loss_mean, targets, tokens, skipped=not self._update(loss_mean, norm))

    def _update(self, loss: float, norm: float) -> bool:
        """Take the optimizer's step, unless what it would take is not finite."""
        overflow = self.scaler.is_enabled() and math.isfinite(loss)  # the scaler then lowers its scale and skips
        if not overflow and not (math.isfinite(loss) and math.isfinite(norm)):
            self._on_trouble(f"skipped an inner step: loss {loss}, norm of the gradients {norm}")
            self.scaler.update()
            return False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return True

    def _micro_batches(self, positions: Indices) -> list[Batch]:
        """This rank's rows of each micro-batch, on the CPU."""
        indices = samples_at(positions, num_samples=len(self.dataset), seed=self._seed)
        rows = self.group.rows(self.micro_batch_size)
        starts = range(0, len(positions), self.micro_batch_size)
        slices = [slice(start + rows.start, start + rows.stop) for start in starts]
        return [self.dataset.batch(indices[part], positions[part]) for part in slices]

    def _count(self, batches: list[Batch]) -> tuple[int, int]:
        """(targets, tokens) of a step, over all ranks."""
        targets = sum(self.dataset.task.count_targets(batch) for batch in batches)
        tokens = sum(int(batch.get("attention_mask", torch.ones_like(batch["input_ids"])).sum()) for batch in batches)
        counts = self.group.sum(torch.tensor([targets, tokens]))
        return int(counts[0]), int(counts[1])

    def predictions(self, batch: Batch) -> list[Prediction]:
        """One forward pass on a batch of any device."""
        module = self._compiled if self.model.training else self._wrapped  # compiling again pays in long runs only
        device = self.group.device
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        with torch.autocast(device.type, dtype=DTYPES[self.precision], enabled=self.precision != "fp32"):
            return self.dataset.task.predictions(module, moved)

    def _training_loss(self, batch: Batch) -> Tensor:
        """Sum over the batch's targets; with a teacher its share is in it."""
        predictions = self.predictions(batch)
        if self._teacher is None:
            return cross_entropy_sum(predictions)
        return self._teacher.loss_sum(self.dataset.task, batch, predictions)

    def _halve_micro_batch(self) -> None:
        smallest = self.group.size
        if self.micro_batch_size <= smallest or self.group.size > 1:
            raise MemoryShortageError(
                f"a micro-batch of {self.micro_batch_size} samples does not fit into the memory of {self.group.device}",
                field="train.batch_size",
                hint="halve train.batch_size and double train.gradient_accumulation_steps, shorten data.seq_length, "
                "set model.activation_checkpointing = true, or take a smaller model",
            )  # fmt: skip
        self.micro_batch_size = math.ceil(self.micro_batch_size / 2)
        self._on_trouble(
            f"out of memory: going on with micro-batches of {self.micro_batch_size} samples; "
            f"an inner step still has {self._section.samples_per_step}"
        )
