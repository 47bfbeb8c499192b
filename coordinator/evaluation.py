"""The evaluation's process: `python -m coordinator.evaluation`. It loads torch, evaluates one model, and ends.

The same code measures as in the checkpointer's evaluations, on the same samples where it is given the same data.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic.alias_generators import to_camel

from coordinator.evaluation_process import Evaluated, EvaluationTask, NotEvaluated, Outcome
from coordinator.session_paths import confine
from cotrain.config import RunConfig, parse_config
from cotrain.errors import ConfigError, CotrainError
from cotrain.logs import configure_logging
from cotrain.paths import SharedPaths
from cotrain.process import bind_to_parent
from cotrain.sections import DataSection

if TYPE_CHECKING:
    from cotrain.train.data.prepare import PreparedDataset

logger = logging.getLogger("coordinator.evaluation")

NICENESS = 10
"""Volunteers on the same machine come first."""
SCRATCH_FOLDER = "evaluation"
"""Below the temporary models: data that are prepared for one evaluation only."""


def main() -> int:
    """Read a task from stdin, write its outcome to stdout; returns the exit code."""
    bind_to_parent()
    parser = argparse.ArgumentParser(prog="python -m coordinator.evaluation", description=__doc__)
    parser.add_argument("--shared", type=Path, required=True, help="the data folder")
    shared = SharedPaths(parser.parse_args().shared.resolve())
    os.nice(NICENESS)
    configure_logging()
    outcome = carry_out(EvaluationTask.model_validate_json(sys.stdin.read()), shared)
    print(outcome.model_dump_json(by_alias=True), flush=True)
    return 0


def carry_out(task: EvaluationTask, shared: SharedPaths) -> Outcome:
    """The outcome, whatever goes wrong."""
    scratch = shared.temporary_models / SCRATCH_FOLDER
    try:
        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
        return _evaluate(task, shared, scratch)
    except CotrainError as error:
        logger.error("the model cannot be evaluated", exc_info=error)
        message = f"{error.field}: {error.message}" if error.field else error.message
        return NotEvaluated(message=message.replace(f"{shared.root}/", ""), hint=error.hint)
    except Exception as error:  # whoever asked must hear of it
        logger.error("the model cannot be evaluated", exc_info=error)
        return NotEvaluated(message=repr(error).replace(f"{shared.root}/", ""), hint="tell the operator")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _evaluate(task: EvaluationTask, shared: SharedPaths, scratch: Path) -> Evaluated:
    import torch

    from cotrain.train.data.samples import TaskDataset
    from cotrain.train.evaluate import evaluate
    from cotrain.train.inner import InnerLoop
    from cotrain.train.model import build_model
    from cotrain.train.parallel import ParallelGroup
    from cotrain.train.tasks.registry import make_task

    config = parse_config(task.config)
    prepared = _prepare(task, config, shared, scratch)
    spec = prepared.spec
    _check_classes(task.model_path, spec.labels)
    section = config.model.model_copy(
        update={"source": task.model_path, "compile": False, "activation_checkpointing": False}
    )
    config = config.model_copy(update={"model": section})
    dataset = TaskDataset(
        prepared.validation, make_task(spec.task, spec, seed=config.session.seed, fields=config.data.fields)
    )
    model = build_model(section, spec, seed=config.session.seed)
    inner = InnerLoop(config, model, dataset, ParallelGroup(0, 1, torch.device("cpu")))
    result = evaluate(inner, dataset, batches=task.batches, batch_size=config.train.batch_size)
    metrics = {"validationLoss": result.loss, **{to_camel(key): value for key, value in result.metrics.items()}}
    return Evaluated(data_fingerprint=_fingerprint(prepared), targets=result.targets, metrics=metrics)


def _prepare(task: EvaluationTask, config: RunConfig, shared: SharedPaths, scratch: Path) -> PreparedDataset:
    """The data of the config: as they were prepared for training, else for this evaluation only.

    The checkpointer may be preparing the same data: one process at a time may, in one folder.

    Raises ConfigError that says how to get data that are gone.
    """
    from cotrain.train.data.prepare import prepare_dataset

    # nobody needs the teacher, which may be gone
    untaught = config.model_copy(update={"distillation": config.distillation.model_copy(update={"enabled": False})})
    there = task.data_fingerprint and (shared.processed_datasets / task.data_fingerprint).is_dir()
    try:
        prepared = prepare_dataset(
            confine(untaught, shared), folder=shared.processed_datasets if there else scratch,
            splits_folder=shared.dataset_splits, raw_folder=shared.raw_datasets,
        )  # fmt: skip
    except CotrainError as error:
        raise ConfigError(f"the data cannot be had: {error.message}", hint=how_to_get(config.data)) from error
    if task.data_fingerprint and _fingerprint(prepared) != task.data_fingerprint:
        raise ConfigError(
            "the data are no longer those that the model was trained with", hint=how_to_get(config.data)
        )  # fmt: skip
    return prepared


def how_to_get(data: DataSection) -> str:
    """What to do about the data of a config that are gone."""
    if data.data_path is not None:
        what = f"put them back at {data.data_path} in the coordinator's folder of datasets"
    elif data.dataset is not None:
        what = f"they are {data.dataset} on the hub: see that the coordinator reaches it"
    else:
        what = "they are the source text of the Python that the coordinator ran with then"
    return f"{what}; or evaluate on a dataset of the catalog"


def _check_classes(model_path: str, labels: tuple[str, ...]) -> None:
    """Raises ConfigError where the model tells other classes apart: its answers would mean something else."""
    from transformers import AutoConfig

    if not labels:
        return
    names = AutoConfig.from_pretrained(model_path, local_files_only=True).id2label
    if tuple(names[number] for number in sorted(names)) != labels:
        raise ConfigError(
            "these data have other classes than the model", hint="evaluate it on data with the classes that it learnt"
        )


def _fingerprint(prepared: PreparedDataset) -> str:
    return prepared.train.parent.name


if __name__ == "__main__":
    sys.exit(main())
