"""A training process that trains nothing: writes status.json, obeys control.json, dies with its parent."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import uuid
from pathlib import Path

from cotrain.paths import CONTROL_FILE, STATUS_FILE
from cotrain.process import bind_to_parent
from cotrain.status import Record, Status, now, read_control, replace_file, write_status
from node.job import Job, read_job
from node.limits import Limits, apply_limits
from node.supervisor import STANDBY

STEPS = 40


class SmallWorker:
    def __init__(self, job: Job):
        self._job = job
        self._run = uuid.uuid4().hex
        self._sequence = 0
        self._records: list[Record] = []
        self.obeys = True

    def write(self, step: int, state: str = "training", phase: str = "training", error: str = "") -> None:
        self._sequence += 1
        self._records.append(Record(number=self._sequence, time=now(), kind="log", message=f"step {step}"))
        facts = {"status": state, "phase": phase, "errorMsg": error, "step": step, "loss": 1.0 / (step + 1)}
        base = {
            "session": self._job.session, "peer": self._job.peer_id, "run": self._run,
            "sequence": self._sequence, "updatedAt": now(), "records": self._records[-32:],
        }  # fmt: skip
        write_status(self._job.run_dir / STATUS_FILE, Status.model_validate(base | facts))

    def train(self, steps: int | None) -> None:
        step = 0
        while steps is None or step < steps:
            control = read_control(self._job.run_dir / CONTROL_FILE)
            if self.obeys and control.wish in ("stop", "cancel"):
                self.write(step, "stopped" if control.wish == "stop" else "cancelled", "done")
                return
            if control.wish == "pause":
                self.write(step, "paused")
            else:
                step += 1
                self.write(step)
            time.sleep(0.05)
        self.write(step, "completed", "done")


def main() -> int:
    bind_to_parent()
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--mode", default="complete")
    parser.add_argument(STANDBY, type=Limits.model_validate_json)
    arguments = parser.parse_args()
    if arguments.standby is not None and not sys.stdin.readline():
        return 0
    job = read_job(arguments.job)
    apply_limits(job.limits)
    assert job.dataset_path.is_file()
    assert job.config_path.is_file()
    replace_file(job.run_dir / "worker.pid", str(os.getpid()).encode())
    worker = SmallWorker(job)
    if arguments.mode == "crash":
        print("starting", flush=True)
        raise RuntimeError("the disk caught fire")
    if arguments.mode == "bad-config":
        worker.write(0, "failed", "starting", error="batch_size does not fit into memory")
        return 2
    if arguments.mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        worker.obeys = False
    worker.train(STEPS if arguments.mode == "complete" else None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
