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
    config = load_config(job.config_path)
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


class _Run:
    """Model, data, swarm and trainer of one job."""

    def __init__(self, job: Job, config: RunConfig, reporter: StatusReporter):
        # torch and hivemind take seconds to load: only once the process is bound to its parent and has reported
        import torch

        from cotrain.swarm.hardening import limit_message_nesting
        from cotrain.swarm.peer import SwarmPeer
        from cotrain.train.data import TokenDataset
        from cotrain.train.model import build_model, count_parameters
        from cotrain.train.reporter import ControlFile
        from cotrain.train.tokenizer import VOCAB_SIZE
        from cotrain.train.trainer import Trainer

        limit_message_nesting()
        dataset = TokenDataset(job.dataset_path, config.data.seq_length)
        model = build_model(
            config.model, vocab_size=VOCAB_SIZE, seq_length=config.data.seq_length, seed=config.session.seed
        )
        self._reporter, self._control = reporter, ControlFile(job.run_dir)
        self._peer = SwarmPeer(
            config, numel=count_parameters(model), samples_wanted=config.samples_wanted(len(dataset)),
            identity_path=job.identity_path, initial_peers=job.initial_peers, host=job.host, port=job.port,
            on_wait=lambda what: reporter.record("log", f"waiting for {what}"),
            on_download=lambda share: reporter.phase("downloading"), obey=self._obey,
        )  # fmt: skip
        if torch.cuda.is_available():  # asked only now: a GPU must not be touched before the swarm has forked
            model.to("cuda")
        reporter.start()
        reporter.update(parameters=count_parameters(model), addresses=self._peer.addresses, device=str(model.device))
        self._trainer = Trainer(config, model, dataset, self._peer, reporter, self._control)

    def _obey(self) -> None:
        """A wish to end holds also while the swarm is waited for; a pause begins with the training."""
        if (wish := self._control.wish()) not in ("run", "pause"):
            raise TrainingStopped(wish)

    def train(self) -> None:
        final = None
        try:
            final = self._trainer.run()
        finally:
            with contextlib.suppress(TimeoutError):  # a DHT that no longer answers must not hide how the run ended
                self._peer.leave(final)
        self._reporter.phase("done", "completed", message="the run is complete")


if __name__ == "__main__":
    sys.exit(main())
