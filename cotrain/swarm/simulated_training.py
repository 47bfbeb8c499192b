"""What a simulation trains: the one model that all virtual peers take turns in, its data and its inner steps."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
from torch import Tensor

from cotrain.catalog import with_resolved_models
from cotrain.config import RunConfig
from cotrain.paths import SharedPaths
from cotrain.swarm.scenario import Scenario, check_memory
from cotrain.train.data.order import share_positions
from cotrain.train.data.prepare import prepare_dataset
from cotrain.train.data.samples import TaskDataset
from cotrain.train.distill import DistillationLoss, load_teacher
from cotrain.train.evaluate import evaluate
from cotrain.train.inner import InnerLoop
from cotrain.train.model import build_model, count_parameters, empty_model
from cotrain.train.parallel import ParallelGroup
from cotrain.train.tasks.registry import make_task


@dataclass(frozen=True)
class Material:
    """A model and the data that it learns and is judged from.

    Attributes:
        judge: holds the model and the training data; its own optimizer takes no step.
    """

    judge: InnerLoop
    validation: TaskDataset
    teacher: DistillationLoss | None

    @property
    def train(self) -> TaskDataset:
        return self.judge.dataset

    def parameters(self) -> Tensor:
        """The model's parameters as they are now, a copy: [n] float32."""
        return self.judge.weights()


def load_material(config: RunConfig, scenario: Scenario, shared: SharedPaths, group: ParallelGroup) -> Material:
    """Prepare the config's data below `shared` and build its model on the group's device.

    Raises MemoryShortageError if the scenario's peers do not fit into memory (a preset is not even built then), and
    what preparing and building raise.
    """
    config = with_resolved_models(config)
    prepared = prepare_dataset(
        config, folder=shared.processed_datasets, splits_folder=shared.dataset_splits, raw_folder=shared.raw_datasets
    )
    spec = prepared.spec
    task = make_task(spec.task, spec, seed=config.session.seed, fields=config.data.fields)
    available = psutil.virtual_memory().available
    if config.model.source is None:
        check_memory(count_parameters(empty_model(config.model, spec)), scenario, config.train.optimizer, available)
    model = build_model(config.model, spec, seed=config.session.seed).to(group.device)
    check_memory(count_parameters(model), scenario, config.train.optimizer, available)
    return Material(
        InnerLoop(config, model, TaskDataset(prepared.train, task), group), TaskDataset(prepared.validation, task),
        load_teacher(config.distillation, spec, group.device),
    )  # fmt: skip


def validation_loss(config: RunConfig, material: Material, parameters: Tensor) -> float:
    """Nats per target on the config's evaluation batches, of a model with these parameters ([n] float32)."""
    material.judge.load_weights(parameters)
    return evaluate(
        material.judge, material.validation, batches=config.monitoring.evaluation_batches,
        batch_size=config.train.batch_size,
    ).loss  # fmt: skip


class InnerSteps:
    """One peer's inner loop, with its own optimizer, over the model that all share."""

    def __init__(self, config: RunConfig, material: Material):
        self._inner = InnerLoop(
            config, material.judge.model, material.train, material.judge.group, teacher=material.teacher
        )
        self.samples_per_step = config.train.samples_per_step

    def step(self, parameters: Tensor, cursor: int, share: tuple[int, int], start: int, rate: float) -> float:
        """One inner step of the model with `parameters` ([n] float32), which are changed in place; its loss.

        Its samples are those of `share` (rank, ranks) from position `start` of a round that began at `cursor`.
        """
        rank, ranks = share
        positions = share_positions(cursor=cursor, rank=rank, ranks=ranks, start=start, count=self.samples_per_step)
        self._inner.load_weights(parameters)
        result = self._inner.step(positions, rate)
        parameters.copy_(self._inner.weights())
        return result.loss
