"""A trainer on a small real corpus, with everything it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from cotrain.config import RunConfig
from cotrain.paths import CONTROL_FILE
from cotrain.sections import DataSection, DilocoSection, TrainSection
from cotrain.status import Control, WishName, write_control
from cotrain.train.data.permutation import Indices
from cotrain.train.data.samples import SampleWriter, TaskDataset
from cotrain.train.diloco import OuterState, RoundLengths
from cotrain.train.inner import InnerLoop
from cotrain.train.model import build_model
from cotrain.train.parallel import ParallelGroup
from cotrain.train.reporter import ControlFile, StatusReporter
from cotrain.train.spec import DataSpec
from cotrain.train.synchronizer import LocalSynchronizer, LocalWork
from cotrain.train.tasks.metrics import Batch
from cotrain.train.tasks.registry import make_task
from cotrain.train.trainer import Trainer

TEXT = Path(__file__).parents[2] / "LICENSE"
"""English that never changes."""
SEQ_LENGTH = 32
INNER_STEPS = 4
BATCH = 4
SPEC = DataSpec(task="causal-lm", vocab_size=256, seq_length=SEQ_LENGTH)


def config(*, max_steps: int = 16, learning_rate: float = 3e-3, overlap: int = 0, **train: Any) -> RunConfig:
    return RunConfig(
        train=TrainSection(
            batch_size=BATCH, gradient_accumulation_steps=1, max_steps=max_steps, learning_rate=learning_rate, **train
        ),
        diloco=DilocoSection(inner_steps=INNER_STEPS, overlap_steps=overlap),
        data=DataSection(seq_length=SEQ_LENGTH),
    )


class RecordingDataset(TaskDataset):
    """A dataset that notes which samples were taken."""

    def __init__(self, path: Path):
        super().__init__(path, make_task(SPEC.task, SPEC, seed=0, fields=DataSection().fields))
        self.taken: list[int] = []

    def batch(self, indices: Indices, keys: Indices) -> Batch:
        self.taken += indices.tolist()
        return super().batch(indices, keys)


class WatchedSynchronizer(LocalSynchronizer):
    """A run alone, with a hook after each turn of the loop and notes of what was announced."""

    def __init__(self, on_turn: Callable[[LocalWork], None] = lambda work: None):
        super().__init__(RoundLengths(INNER_STEPS))
        self.on_turn = on_turn
        self.works: list[LocalWork] = []
        self.states: list[OuterState] = []
        self.activity: list[bool] = []
        self.turns = 0

    def report(self, work: LocalWork, steps_per_s: float) -> None:
        self.turns += 1
        self.on_turn(work)

    def begin_round(self, state: OuterState, local_parameters: Tensor, work: LocalWork) -> None:
        self.works.append(work)
        super().begin_round(state, local_parameters, work)

    def publish(self, state: OuterState) -> tuple[OuterState, str]:
        self.states.append(state)
        return state, state.digest()

    def set_active(self, active: bool) -> None:
        self.activity.append(active)


@dataclass
class Bench:
    """A trainer and everything it was made of."""

    trainer: Trainer
    model: PreTrainedModel
    dataset: RecordingDataset
    reporter: StatusReporter
    folder: Path

    def wish(self, wish: WishName) -> None:
        write_control(self.folder / CONTROL_FILE, Control(wish=wish))

    @property
    def round_losses(self) -> list[float]:
        """Loss, smoothed over the last steps, at each round's end."""
        return [record.data["loss"] for record in self.reporter._records if record.kind == "round"]  # type: ignore[misc]


Make = Callable[..., Bench]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "train.safetensors"
    with SampleWriter(path, SPEC) as writer:
        writer.add_tokens(np.frombuffer(TEXT.read_bytes(), np.uint8))
        writer.finish({})
    return path


@pytest.fixture
def make(corpus: Path, tmp_path: Path) -> Iterator[Make]:
    benches: list[Bench] = []

    def build(synchronizer: LocalSynchronizer, settings: RunConfig | None = None, **hooks: Any) -> Bench:
        settings = settings or config()
        folder = tmp_path / f"run{len(benches)}"
        reporter = StatusReporter(folder, session="s", peer="p", interval_s=0.1)
        dataset = RecordingDataset(corpus)
        model = build_model(settings.model, SPEC, seed=settings.session.seed)
        inner = InnerLoop(settings, model, dataset, ParallelGroup(0, 1, torch.device("cpu")))
        trainer = Trainer(settings, inner, synchronizer, reporter, ControlFile(folder), **hooks)
        benches.append(Bench(trainer, model, dataset, reporter, folder))
        return benches[-1]

    yield build
    for bench in benches:
        bench.reporter.stop()
