"""The training process of a volunteer: `python -m node.worker --job FILE`. The agent starts and supervises it.

Exit codes: 0 when the run is complete or was stopped as wished, else the error's own (sysexits).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cotrain.config import RunConfig, load_config
from cotrain.errors import CotrainError
from cotrain.logs import configure_logging
from cotrain.paths import CONTROL_FILE
from cotrain.process import bind_future_children, bind_to_parent
from cotrain.status import Control, State, TrainingStopped, WishName, write_control
from cotrain.train.launch import in_launch, is_first_rank, launch, leave, run_rank
from cotrain.train.reporter import StatusReporter
from node.gpu_memory import OPTION, GpuMemory
from node.job import Job, read_job
from node.limits import Limits, apply_limits
from node.supervisor import STANDBY, MachineError

if TYPE_CHECKING:
    import torch

    from cotrain.swarm.peer import SwarmPeer
    from cotrain.train.fragments import Fragments

logger = logging.getLogger("node.worker")

STATE_AFTER_WISH: dict[WishName, State] = {
    "stop": "stopped",
    "cancel": "cancelled",
    "pause": "paused",
    "run": "stopped",
}


def main() -> int:
    """Run the job, in several processes where the machine has several devices; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m node.worker", description=__doc__)
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument(STANDBY, type=Limits.model_validate_json, metavar="LIMITS", help="wait for the job's file")
    arguments = parser.parse_args()
    if arguments.standby is not None and not stand_by(arguments.standby):
        return 0
    path = arguments.job
    job = read_job(path)
    apply_limits(job.limits)
    config = with_local_models(load_config(job.config_path), job)
    ranks = ranks_for(config.train.batch_size, job.processes)
    if ranks > 1 and not in_launch():
        bind_to_parent()
        return launch("node.worker", ["--job", str(path)], processes=ranks)
    return run_rank(lambda: _train(job, config))


def stand_by(limits: Limits) -> bool:
    """Load what a run needs, then wait for the agent's word that there is a job; False if there is none after all."""
    bind_to_parent()
    apply_limits(limits)
    load()
    return bool(sys.stdin.buffer.readline())


def load() -> None:
    """Load what takes seconds: torch, transformers and hivemind."""
    gc.disable()  # what is loaded stays; to look through it again and again takes a good part of the time
    try:
        import cotrain.swarm.peer
        import cotrain.train.model
        import cotrain.train.tasks.registry
        import cotrain.train.trainer  # noqa: F401
    finally:
        gc.enable()
    gc.freeze()


def ranks_for(batch_size: int, processes: int) -> int:
    """The most processes, of those the machine has room for, that a batch can be dealt out to evenly."""
    return next(ranks for ranks in range(min(batch_size, processes), 0, -1) if batch_size % ranks == 0)


def _train(job: Job, config: RunConfig) -> int:
    configure_logging()
    # hivemind forks: its children, and p2pd with them, must not outlive this process
    bind_future_children()
    reporter = StatusReporter(
        job.run_dir if is_first_rank() else None, session=job.session, peer=job.peer_id,
        interval_s=config.monitoring.status_interval_s,
    )  # fmt: skip
    reporter.flush()
    exit_code = 0
    try:
        load()
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


def bound_gpu_memory(device: torch.device, limit: GpuMemory) -> None:
    """Let this process allocate no more than that on its GPU. Raises MachineError where it trains on none."""
    import torch

    if device.type != "cuda":
        raise MachineError(
            f"the memory of a GPU is limited, and torch trains on {device.type}", field=OPTION,
            hint="see what cotrain node doctor says of torch and the GPU, or leave it out",
        )  # fmt: skip
    total_bytes = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    torch.cuda.set_per_process_memory_fraction(limit.of(total_bytes) / total_bytes)


class _Run:
    """Model, data, swarm and trainer of one job; in a rank but the first, without a peer of its own."""

    def __init__(self, job: Job, config: RunConfig, reporter: StatusReporter):
        # here, and not above: the process is bound to its parent and has reported before it loads for seconds
        from cotrain.train.data.samples import SampleFile, TaskDataset
        from cotrain.train.distill import load_teacher
        from cotrain.train.fragments import Fragments
        from cotrain.train.inner import InnerLoop
        from cotrain.train.model import build_model, count_parameters
        from cotrain.train.parallel import ParallelGroup
        from cotrain.train.ranked import RankedSynchronizer, RankedWishes
        from cotrain.train.reporter import ControlFile
        from cotrain.train.tasks.registry import make_task
        from cotrain.train.trainer import Trainer

        spec = SampleFile(job.dataset_path).spec
        task = make_task(spec.task, spec, seed=config.session.seed, fields=config.data.fields)
        dataset = TaskDataset(job.dataset_path, task)
        model = build_model(config.model, spec, seed=config.session.seed)
        numel = count_parameters(model)
        self._reporter, self._control = reporter, ControlFile(job.run_dir)
        fragments = Fragments.of_model(model, config.diloco.fragments)
        self._peer = self._join(job, config, numel, len(dataset), fragments) if is_first_rank() else None
        # only now: it starts threads and touches the GPU, and the swarm has forked
        self._group = group = ParallelGroup.from_environment()
        if job.limits.gpu_memory is not None:
            bound_gpu_memory(group.device, job.limits.gpu_memory)
        reporter.start()
        addresses = self._peer.addresses if self._peer else []
        reporter.update(parameters=numel, addresses=addresses, device=f"{group.size} x {group.device.type}")
        inner = InnerLoop(
            config, model, dataset, group, teacher=load_teacher(config.distillation, spec, group.device),
            on_trouble=lambda what: reporter.record("log", what, level="warning"),
        )  # fmt: skip
        synchronizer = RankedSynchronizer(group, self._peer, numel=numel, fragments=fragments)
        wishes = RankedWishes(group, self._control.wish)
        self._trainer = Trainer(config, inner, synchronizer, reporter, wishes, fragments=fragments)

    def _join(self, job: Job, config: RunConfig, numel: int, samples: int, fragments: Fragments) -> SwarmPeer:
        from cotrain.membership.document import MembershipFile
        from cotrain.swarm.hardening import limit_message_nesting
        from cotrain.swarm.peer import SwarmPeer

        limit_message_nesting()
        return SwarmPeer(
            config, numel=numel, samples_wanted=config.samples_wanted(samples), identity_path=job.identity_path,
            membership=MembershipFile(job.membership_path), initial_peers=job.initial_peers,
            host=job.host, port=job.port, connection=job.connection,
            on_wait=self._reporter.wait,
            on_download=lambda share: self._reporter.phase("downloading"), obey=self._obey,
            on_notice=lambda what: self._reporter.record("log", what, level="warning"), fragments=fragments,
            most_bytes_per_s=job.limits.upload_bytes_per_s,
        )  # fmt: skip

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
            if self._peer is not None:
                with contextlib.suppress(TimeoutError):  # a DHT that is silent must not hide how the run ended
                    self._peer.leave(final)
        self._group.close()
        self._reporter.phase("done", "completed", message="the run is complete")


if __name__ == "__main__":
    leave(main())
