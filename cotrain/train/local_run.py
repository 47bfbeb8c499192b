"""A run on this machine alone: data, model, trainer, validation, early stopping, checkpoints, the final model.

Every rank of a node with several devices runs the same code; rank 0 writes what is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cotrain.catalog import with_resolved_models
from cotrain.config import RunConfig
from cotrain.errors import ConflictError
from cotrain.paths import SharedPaths
from cotrain.status import LOCAL_PEER, State, TrainingStopped, WishName
from cotrain.train.checkpoint import Checkpoint, CheckpointStore, export_model
from cotrain.train.data.prepare import PreparedDataset, prepare_dataset
from cotrain.train.data.samples import TaskDataset
from cotrain.train.diloco import RoundLengths
from cotrain.train.distill import load_teacher
from cotrain.train.early_stopping import EarlyStopping
from cotrain.train.evaluate import Evaluation, evaluate, trivial_losses
from cotrain.train.fragments import Fragments
from cotrain.train.inner import InnerLoop
from cotrain.train.model import build_model, count_parameters, load_flat_parameters
from cotrain.train.parallel import ParallelGroup
from cotrain.train.ranked import RankedWishes
from cotrain.train.reporter import ControlFile, StatusReporter
from cotrain.train.synchronizer import LocalSynchronizer
from cotrain.train.tasks.registry import make_task
from cotrain.train.tokenizer import load_tokenizer
from cotrain.train.trainer import Trainer
from cotrain.train.weights import InnerWeights, NoWeights

STATE_AFTER_WISH: dict[WishName, State] = {"stop": "stopped", "cancel": "cancelled"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalPlaces:
    """Where a run keeps its things."""

    checkpoints: Path
    final: Path
    run_dir: Path

    @classmethod
    def of(cls, config: RunConfig, shared: SharedPaths) -> LocalPlaces:
        """Below `checkpoint.output_path` if that is set, else in the data folder."""
        session, run_dir = config.session.id, shared.run_dir(config.session.id, LOCAL_PEER)
        if config.checkpoint.output_path is not None:
            output = Path(config.checkpoint.output_path)
            return cls(output / "checkpoints", output / "final", run_dir)
        return cls(shared.checkpoints / session, shared.final_model(session), run_dir)


def alone(config: RunConfig) -> RunConfig:
    """The same run with this machine as its only node."""
    return config.model_copy(
        update={
            "distributed": config.distributed.model_copy(update={"nodes": 1}),
            "swarm": config.swarm.model_copy(update={"min_peers": 1}),
        }
    )


def identity_of(config: RunConfig) -> dict[str, Any]:
    """What must stay the same for a checkpoint to be gone on from; the rest of the config may change."""
    return {
        "model": config.model.model_dump(include={"type", "size", "source"}),
        "data": config.data.model_dump(),
        "task": config.task,
        "optimizer": config.train.optimizer,
        "strategy": config.distributed.strategy,
        "seed": config.session.seed,
    }


class LocalWishes(RankedWishes):
    """Wishes from `control.json`, from signals (`stop`), and from a limit of inner steps; every rank hears the same."""

    def __init__(self, folder: Path, group: ParallelGroup):
        super().__init__(group, self._newest)
        self._control, self._stopped = ControlFile(folder), False
        self.limit_reached: Callable[[], bool] = lambda: False

    def stop(self) -> None:
        """End at the next inner step."""
        self._stopped = True

    def _newest(self) -> WishName:
        return "stop" if self._stopped or self.limit_reached() else self._control.wish()


class LocalRun:
    """Built once; `train` runs it to its end, or to a wish."""

    def __init__(
        self, config: RunConfig, shared: SharedPaths, group: ParallelGroup, reporter: StatusReporter,
        wishes: LocalWishes, *, fresh: bool = False, most_steps: int | None = None,
    ):  # fmt: skip
        """
        Args:
            config: as `alone` gives it; models may have catalog names.
            fresh: put older checkpoints aside and begin anew.
            most_steps: inner steps in this process; the next one goes on from there.

        Raises ConflictError if the checkpoints there belong to another run.
        """
        config = with_resolved_models(config)
        self._config, self._group, self._reporter, self._wishes = config, group, reporter, wishes
        self._places = LocalPlaces.of(config, shared)
        self._store = CheckpointStore(self._places.checkpoints, keep=config.checkpoint.keep)
        if fresh and group.is_main:
            _put_aside(self._places.checkpoints)
        prepared = self._prepare(shared)
        task = make_task(prepared.spec.task, prepared.spec, seed=config.session.seed, fields=config.data.fields)
        train, self._validation = TaskDataset(prepared.train, task), TaskDataset(prepared.validation, task)
        self._spec = prepared.spec
        model = build_model(config.model, prepared.spec, seed=config.session.seed)
        self._parameters = count_parameters(model)
        self._tokenizer = load_tokenizer(config.tokenizer, prepared.spec.task)
        teacher = load_teacher(config.distillation, prepared.spec, group.device, tokenizer=self._tokenizer)
        self._inner = InnerLoop(
            config, model, train, group, teacher=teacher,
            on_trouble=lambda what: reporter.record("log", what, level="warning"),
        )  # fmt: skip
        in_rounds = config.distributed.strategy == "diloco"
        weights = InnerWeights(self._inner) if in_rounds else NoWeights()
        fragments = Fragments.of_model(model, config.diloco.fragments) if in_rounds else None
        wanted = config.samples_wanted(len(train))
        self._lengths = RoundLengths.from_config(config, wanted)
        self._trainer = Trainer(
            config, self._inner, LocalSynchronizer(self._lengths, wanted, fragments), reporter, wishes,
            weights=weights, after_round=self._after_round, recover=self._recover, fragments=fragments,
        )  # fmt: skip
        self._stopping = EarlyStopping(config.train.early_stopping_patience)
        self._best: tuple[float, Tensor] | None = None
        self._saved_at_step = self._resume()  # 0: nothing to save yet
        if most_steps is not None:
            limit = self._trainer.steps + most_steps
            wishes.limit_reached = lambda: self._trainer.steps >= limit
        self._describe(train)

    # ------------------------------------------------------------------------------------------ before
    def _prepare(self, shared: SharedPaths) -> PreparedDataset:
        """Rank 0 prepares; the others then find it done."""
        self._reporter.phase("starting", message="preparing the data")
        for first in (True, False):
            if self._group.is_main == first:
                prepared = prepare_dataset(
                    self._config, folder=shared.processed_datasets, splits_folder=shared.dataset_splits,
                    raw_folder=shared.raw_datasets,
                )  # fmt: skip
            self._group.broadcast_object(None)
        return prepared

    def _resume(self) -> int:
        """Go on from the newest checkpoint, if there is one; returns its inner step, else 0."""

        def restore(checkpoint: Checkpoint) -> int:
            saved, mine = checkpoint.metadata.get("identity"), identity_of(self._config)
            if saved != mine:
                changed = [key for key in mine if not isinstance(saved, dict) or saved.get(key) != mine[key]]
                raise ConflictError(
                    f"the checkpoints there are of a run with another {', '.join(changed)}",
                    field=str(self._places.checkpoints),
                    hint="put the config back, choose another session.id or output_path, or begin anew with --fresh",
                )
            self._trainer.restore(checkpoint)
            self._stopping = EarlyStopping.from_state(checkpoint.metadata["early_stopping"])
            self._stopping.patience = self._config.train.early_stopping_patience
            return self._trainer.steps

        step = self._store.newest(restore) or 0
        if step:
            self._reporter.record("log", f"going on from the checkpoint of inner step {step}")
        return step

    def _describe(self, train: TaskDataset) -> None:
        self._reporter.update(
            parameters=self._parameters, device=str(self._group.device), peers=1,
            samples_wanted=self._config.samples_wanted(len(train)), baselines=trivial_losses(train, self._validation),
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------ the run
    def train(self) -> Path | None:
        """Run to the end: the folder of the final model, or None if the run was interrupted by a wish."""
        try:
            self._trainer.run()
        except TrainingStopped as stopped:
            if stopped.wish == "stop" and self._saved_at_step != self._trainer.steps:
                self._save()
            state = STATE_AFTER_WISH.get(stopped.wish, "stopped")
            step = self._trainer.steps
            self._reporter.phase("done", state, message=f"{state} at inner step {step}; the same command goes on")
            return None
        if self._saved_at_step != self._trainer.steps:
            self._evaluate()
            self._save()
        return self._finish()

    def _after_round(self) -> bool:
        """Evaluate and save where it is due; True when the validation loss has stopped falling."""
        config = self._config
        save = self._trainer.steps - self._saved_at_step >= config.checkpoint.interval
        if save or self._lengths.is_evaluated(self._trainer.state, config.monitoring.evaluation_rounds):
            result = self._evaluate()
            if self._stopping.observe(result.loss) and config.train.early_stopping:
                self._best = (result.loss, self._inner.weights())
        stop = config.train.early_stopping and self._stopping.stopped
        if save or stop:
            self._save()
        if stop:
            self._reporter.record(
                "log", f"stopped early: {self._stopping.patience} evaluations in a row without a lower validation loss"
            )
        return stop

    def _evaluate(self) -> Evaluation:
        config, round_ = self._config, self._trainer.state.round
        result = evaluate(
            self._inner, self._validation, batches=config.monitoring.evaluation_batches,
            batch_size=config.train.batch_size, tokenizer=self._tokenizer,
        )  # fmt: skip
        result = Evaluation(**self._group.broadcast_object(vars(result)))
        self._reporter.update(validation_loss=result.loss, validation_round=round_, accuracy=result.accuracy)
        self._reporter.record(
            "evaluation", f"round {round_}: validation loss {result.loss:.4f}",
            data={"round": round_, "samples": self._trainer.state.samples, "validationLoss": result.loss,
                  "targets": result.targets, **result.metrics},
        )  # fmt: skip
        return result

    def _save(self) -> None:
        """Raises StorageError if the disk is full, DivergedError if the weights are not finite; older ones stay."""
        tensors, rest = self._trainer.snapshot()
        if self._group.is_main:
            status = self._reporter.status
            fresh = status.validation_round == self._trainer.state.round
            self._store.save(
                tensors,
                {**rest, "identity": identity_of(self._config), "early_stopping": self._stopping.state()},
                validation_loss=status.validation_loss if fresh else None,
            )
        self._saved_at_step = self._trainer.steps

    def _recover(self) -> bool:
        """Weights and inner optimizer of the newest checkpoint."""

        def put_back(checkpoint: Checkpoint) -> bool:
            self._trainer.restore_weights(checkpoint)
            return True

        return bool(self._store.newest(put_back))

    # ------------------------------------------------------------------------------------------ the end
    def _finish(self) -> Path:
        """Export the best model of a run that stopped early, else the last."""
        self._reporter.phase("finishing", message="saving the final model")
        weights = self._inner.weights() if self._trainer.is_complete else self._best_weights()
        if self._group.is_main:
            model = build_model(self._config.model, self._spec, seed=self._config.session.seed)
            load_flat_parameters(model, weights)
            export_model(model, self._tokenizer, self._places.final)
        path = str(self._places.final)
        self._reporter.record("log", f"the model is saved at {path}", data={"modelPath": path})
        self._reporter.phase("done", "completed", message="the run is completed", model_path=path)
        return self._places.final

    def _best_weights(self) -> Tensor:
        """Those of the best evaluation; if an earlier process made it, of the best checkpoint."""
        if self._best is not None and self._best[0] <= self._stopping.best:
            return self._best[1]
        saved = self._store.best(lambda checkpoint: checkpoint.tensors["weights"])
        return self._inner.weights() if saved is None else saved


def _put_aside(folder: Path) -> None:
    """Rename the folder to `<name>.old-<n>`: what is there is not lost."""
    if not folder.exists():
        return
    number = 1
    while (target := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    folder.rename(target)
    logger.warning("older checkpoints were put aside at %s", target)
