"""The training process of a volunteer: `python -m node.worker --job FILE`. The agent starts and supervises it.

Exit codes: 0 when the run is complete or was stopped as wished, else the error's own (sysexits).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
from pathlib import Path

from cotrain.config import RunConfig, load_config
from cotrain.errors import CotrainError
from cotrain.logs import configure_logging
from cotrain.paths import CONTROL_FILE
from cotrain.process import bind_future_children, bind_to_parent
from cotrain.status import Control, State, TrainingStopped, WishName, write_control
from cotrain.train.reporter import StatusReporter
from node.job import Job, read_job

logger = logging.getLogger("node.worker")

STATE_AFTER_WISH: dict[WishName, State] = {
    "stop": "stopped",
    "cancel": "cancelled",
    "pause": "paused",
    "run": "stopped",
}


def main() -> int:
    """Run the job; returns the exit code."""
    bind_to_parent()
    parser = argparse.ArgumentParser(prog="python -m node.worker", description=__doc__)
    parser.add_argument("--job", type=Path, required=True)
    job = read_job(parser.parse_args().job)
    configure_logging()
    # hivemind forks: its children, and p2pd with them, must not outlive this process
    bind_future_children()
    return _train(job)


def _train(job: Job) -> int:
    config = with_local_models(load_config(job.config_path), job)
    reporter = StatusReporter(
        job.run_dir, session=job.session, peer=job.peer_id, interval_s=config.monitoring.status_interval_s
    )
    reporter.flush()
    exit_code = 0
    try:
        run = _Run(job, config, reporter)
        # hivemind ignores SIGINT while it starts; from here on both signals mean a polite end
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: write_control(job.run_dir / CONTROL_FILE, Control(wish="stop")))
        run.train()
    except TrainingStopped as stopped:
        reporter.phase("done", STATE_AFTER_WISH[stopped.wish], message=f"ended by the wish to {stopped.wish}")
    except CotrainError as error:
        logger.error("%s", error)
        reporter.phase("done", "failed", message=str(error), error_msg=str(error), error_code=error.code)
        exit_code = error.exit_code
    except Exception as error:
        logger.exception("the training process failed")
        reporter.phase("done", "failed", message=repr(error), error_msg=repr(error), error_code="internal")
        exit_code = 70
    finally:
        reporter.stop()
    return exit_code


def with_local_models(config: RunConfig, job: Job) -> RunConfig:
    """The config with the models that the agent has fetched in the place of the names that the session knows."""
    model, distillation = config.model, config.distillation
    if job.source_path is not None:
        model = model.model_copy(update={"source": str(job.source_path)})
    if job.teacher_path is not None:
        distillation = distillation.model_copy(update={"teacher": str(job.teacher_path)})
    return config.model_copy(update={"model": model, "distillation": distillation})


class _Run:
    """Model, data, swarm and trainer of one job."""

    def __init__(self, job: Job, config: RunConfig, reporter: StatusReporter):
        # torch and hivemind take seconds to load: only once the process is bound to its parent and has reported
        from cotrain.swarm.hardening import limit_message_nesting
        from cotrain.swarm.peer import SwarmPeer
        from cotrain.train.data.samples import SampleFile, TaskDataset
        from cotrain.train.distill import load_teacher
        from cotrain.train.inner import InnerLoop
        from cotrain.train.model import build_model, count_parameters
        from cotrain.train.parallel import ParallelGroup
        from cotrain.train.reporter import ControlFile
        from cotrain.train.tasks.registry import make_task
        from cotrain.train.trainer import Trainer

        limit_message_nesting()
        spec = SampleFile(job.dataset_path).spec
        task = make_task(spec.task, spec, seed=config.session.seed, fields=config.data.fields)
        dataset = TaskDataset(job.dataset_path, task)
        model = build_model(config.model, spec, seed=config.session.seed)
        self._reporter, self._control = reporter, ControlFile(job.run_dir)
        self._peer = SwarmPeer(
            config, numel=count_parameters(model), samples_wanted=config.samples_wanted(len(dataset)),
            identity_path=job.identity_path, initial_peers=job.initial_peers, host=job.host, port=job.port,
            on_wait=lambda what: reporter.record("log", f"waiting for {what}"),
            on_download=lambda share: reporter.phase("downloading"), obey=self._obey,
        )  # fmt: skip
        group = ParallelGroup.from_environment()  # only now: a GPU must not be touched before the swarm has forked
        model.to(group.device)
        reporter.start()
        reporter.update(parameters=count_parameters(model), addresses=self._peer.addresses, device=str(model.device))
        inner = InnerLoop(
            config, model, dataset, group, teacher=load_teacher(config.distillation, spec, group.device),
            on_trouble=lambda what: reporter.record("log", what, level="warning"),
        )  # fmt: skip
        self._trainer = Trainer(config, inner, self._peer, reporter, self._control)

    def _obey(self) -> None:
        """A wish to end holds also while the swarm is waited for; a pause begins with the training."""
        if (wish := self._control.wish()) not in ("run", "pause"):
            raise TrainingStopped(wish)

    def train(self) -> None:
        final = None
        self._reporter.phase("joining", message="joining the swarm")
        try:
            final = self._trainer.run()
        finally:
            with contextlib.suppress(TimeoutError):  # a DHT that no longer answers must not hide how the run ended
                self._peer.leave(final)
        self._reporter.phase("done", "completed", message="the run is complete")


if __name__ == "__main__":
    sys.exit(main())
