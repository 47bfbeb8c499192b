"""One process of a run on this machine alone; `python -m cotrain.train.local_process` is one rank of several."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cotrain.config import RunConfig, load_config
from cotrain.display import Display, NoticeHandler, make_display, summary_line
from cotrain.errors import CotrainError
from cotrain.paths import CONTROL_FILE, STATUS_FILE, SharedPaths
from cotrain.status import FINAL_STATES, LOCAL_PEER, Control, now, read_status, write_control, write_status

INTERRUPTED = {signal.SIGINT: 130, signal.SIGTERM: 143}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalOptions:
    """What the command line says beside the config."""

    config: Path
    fresh: bool = False
    steps: int | None = None
    as_json: bool = False
    threads: int | None = None

    def arguments(self) -> list[str]:
        """As arguments of this module."""
        given = [str(self.config)]
        given += ["--fresh"] if self.fresh else []
        given += ["--json"] if self.as_json else []
        given += ["--steps", str(self.steps)] if self.steps is not None else []
        return given + (["--threads", str(self.threads)] if self.threads is not None else [])


def parse_arguments(arguments: Sequence[str]) -> LocalOptions:
    """The opposite of `LocalOptions.arguments`."""
    parser = argparse.ArgumentParser(prog="python -m cotrain.train.local_process", description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int)
    return LocalOptions(**vars(parser.parse_args(arguments)))


def run_process(options: LocalOptions) -> int:
    """Train; returns the exit code (130 or 143 after a signal, once a checkpoint is written). Raises CotrainError."""
    from cotrain.train.local_run import alone

    config = alone(load_config(options.config))
    display = make_display(as_json=options.as_json)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[NoticeHandler(display.notice)])
    logging.getLogger("cotrain.train.data.hub").setLevel(logging.INFO)  # it says under which licence the data comes
    display.open()
    try:
        return _run(config, options, display)
    finally:
        display.close()


def mark_failed(options: LocalOptions, error: CotrainError) -> None:
    """Write to `status.json` that the run has failed, where its first rank could no longer do so."""
    from cotrain.train.local_run import LocalPlaces, alone

    places = LocalPlaces.of(alone(load_config(options.config)), SharedPaths.from_env())
    path = places.run_dir / STATUS_FILE
    try:
        last = read_status(path)
    except (OSError, ValueError):
        return  # it had not begun to report
    if last.status not in FINAL_STATES:
        failed = {"sequence": last.sequence + 1, "status": "failed", "phase": "done", "error_msg": str(error)}
        write_status(path, last.model_copy(update={**failed, "error_code": error.code, "updated_at": now()}))


def _run(config: RunConfig, options: LocalOptions, display: Display) -> int:
    import torch

    from cotrain.train.local_run import LocalPlaces, LocalRun, LocalWishes
    from cotrain.train.parallel import ParallelGroup
    from cotrain.train.reporter import StatusReporter

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    shared = SharedPaths.from_env().create()
    places = LocalPlaces.of(config, shared)
    group = ParallelGroup.from_environment()
    reporter = StatusReporter(
        places.run_dir if group.is_main else None, session=config.session.id, peer=LOCAL_PEER,
        interval_s=config.monitoring.status_interval_s, on_write=display.show if group.is_main else None,
    )  # fmt: skip
    if group.is_main:
        write_control(places.run_dir / CONTROL_FILE, Control())  # a wish of an earlier run does not hold for this one
    reporter.start()
    wishes = LocalWishes(places.run_dir, group)
    received = _heed_signals(wishes)
    try:
        run = LocalRun(config, shared, group, reporter, wishes, fresh=options.fresh, most_steps=options.steps)
        final = run.train()
        if group.is_main:
            display.notice(summary_line(reporter.status))
            display.notice(f"model: {final}" if final else f"checkpoint: {places.checkpoints}")
    except CotrainError as error:
        reporter.phase("done", "failed", message=str(error), error_msg=str(error), error_code=error.code)
        raise
    finally:
        reporter.stop()
        group.close()
    return INTERRUPTED[received[0]] if received else 0


def _heed_signals(wishes: object) -> list[signal.Signals]:
    """The first SIGINT or SIGTERM ends the run politely; a second one at once. Returns what has been received."""
    received: list[signal.Signals] = []

    def heed(number: int, frame: object) -> None:
        received.append(signal.Signals(number))
        signal.signal(number, signal.SIG_DFL)
        wishes.stop()  # type: ignore[attr-defined]

    for number in INTERRUPTED:
        signal.signal(number, heed)
    return received


def main() -> int:
    """Entry point of a rank."""
    from cotrain.train.launch import run_rank

    return run_rank(lambda: run_process(parse_arguments(sys.argv[1:])))


if __name__ == "__main__":
    from cotrain.train.launch import leave

    leave(main())
