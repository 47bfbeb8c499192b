"""Several processes of one program on this machine, through torch's own launcher; they live and die together.

torch's launcher opens a TCP port on every interface and unpickles what it reads from it. Here the processes find each
other through files in a private folder instead; no port is opened to other machines.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import psutil

from cotrain import PARENT_VARIABLE
from cotrain.errors import CotrainError
from cotrain.process import bind_to_parent

FOLDER_VARIABLE = "COTRAIN_RANKS_FOLDER"
"""Environment variable that tells a rank where its launch keeps the files below."""
STORE_FILE = "store"
FAILURE_FILE = "first-failure.json"
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_TOGETHER_S = 1
"""Failures of ranks that are at most this far apart may have one cause."""


class Failure(NamedTuple):
    """How a rank ended: exit code, negative after a signal, and when (Unix time, s)."""

    rank: int
    exit_code: int
    time_s: int


def in_launch() -> bool:
    """Whether this process is a rank that `launch` started."""
    return FOLDER_VARIABLE in os.environ


def is_first_rank() -> bool:
    """Whether this process is rank 0, or alone."""
    return not in_launch() or os.environ["RANK"] == "0"


def run_rank(work: Callable[[], int]) -> int:
    """The main function of a rank: does `work` and returns its exit code.

    An error is left for `launch`, which raises the first one of all ranks, so that it is shown once; without a launch
    it is raised here.
    """
    bind_to_parent()
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        return work()
    try:
        return work()
    except Exception as error:
        failure = error if isinstance(error, CotrainError) else CotrainError(f"{type(error).__name__}: {error}")
        with contextlib.suppress(FileExistsError), (Path(folder) / FAILURE_FILE).open("x", encoding="utf-8") as file:
            json.dump(_as_json(failure, traceback.format_exc()), file, default=str)
        return failure.exit_code


def leave(code: int) -> NoReturn:
    """End this process with an exit code: the last statement of a program whose main function calls `run_rank`.

    A rank ends at once: threads of torch's collectives may still run, and where the interpreter takes them apart first
    the process aborts, whatever it has done.
    """
    if in_launch():
        sys.stdout.flush()
        sys.stderr.flush()
        logging.shutdown()
        os._exit(code)
    sys.exit(code)


def launch(module: str, arguments: Sequence[str], *, processes: int) -> int:
    """Run `python -m module arguments...` in so many processes; returns 0, or the first exit code that is not.

    The module's main function calls `run_rank` and, inside it, `ParallelGroup.from_environment`. SIGTERM, SIGINT and
    SIGHUP are passed on to rank 0, which speaks for all; the first rank that fails ends the others, and so does the
    end of this process, whatever its cause. Call it in the main thread.

    Raises the CotrainError that the first failing rank raised, or one that says how that rank died.
    """
    with tempfile.TemporaryDirectory(prefix="cotrain-ranks-") as name:
        folder = Path(name)
        with _environment(**_variables(folder, processes)), _forwarding_signals():
            failures = _run(folder, [sys.executable, "-m", module, *arguments], processes)
        told = folder / FAILURE_FILE
        return outcome(failures, json.loads(told.read_text(encoding="utf-8")) if told.exists() else None)


def outcome(failures: Sequence[Failure], told: Mapping[str, Any] | None) -> int:
    """The exit code of a launch whose ranks ended so; `told` is the first error that one of them left.

    Raises that error. A rank that was killed comes before it: what the others then say is only that it was lost.
    """
    earliest = min((failure.time_s for failure in failures), default=0)
    first = [failure for failure in failures if failure.time_s <= earliest + _TOGETHER_S]
    for failure in first:
        if failure.exit_code < 0 and failure.exit_code != -signal.SIGTERM:  # SIGTERM is how the launcher ends the rest
            raise _killed(failure)
    if told is not None:
        raise _error(told["message"], told)
    chosen = next((failure for failure in first if failure.exit_code > 0), first[0] if first else None)
    return 0 if chosen is None else _shell_code(chosen.exit_code)


def _shell_code(exit_code: int) -> int:
    return exit_code if exit_code >= 0 else 128 - exit_code


def _killed(failure: Failure) -> CotrainError:
    name = signal.Signals(-failure.exit_code).name
    facts = {
        "code": "rank-killed", "exit_code": _shell_code(failure.exit_code),
        "hint": "was the memory used up? then halve train.batch_size" if name == "SIGKILL" else "",
    }  # fmt: skip
    return _error(f"process {failure.rank} was ended by {name}", facts)


def _as_json(error: CotrainError, trace: str) -> dict[str, Any]:
    details = error.details if type(error) is not CotrainError else {"traceback": trace}
    return {
        "code": error.code, "exit_code": error.exit_code, "message": error.message, "field": error.field,
        "hint": error.hint, "details": details,
    }  # fmt: skip


def _error(message: str, facts: Mapping[str, Any]) -> CotrainError:
    """An error with the code and the exit code of one that another process raised."""
    kind = type("RankError", (CotrainError,), {"code": facts["code"], "exit_code": facts["exit_code"]})
    error = kind(message, field=facts.get("field", ""), hint=facts.get("hint", ""), details=facts.get("details"))
    assert isinstance(error, CotrainError)
    return error


def _run(folder: Path, command: Sequence[str], processes: int) -> list[Failure]:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what it says is told by `outcome`
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=uuid.uuid4().hex, max_restarts=0,
        rdzv_backend="c10d", rdzv_endpoint=str(folder / "rendezvous"), rdzv_configs={"store_type": "file"},
        local_addr="127.0.0.1", logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs")),
        signals_to_handle=signal.SIGQUIT.name,
    )  # fmt: skip
    try:
        elastic_launch(config, command[0])(*command[1:])
    except ChildFailedError as error:
        return [Failure(rank, failed.exitcode, failed.timestamp) for rank, failed in error.failures.items()]
    except SignalException as error:
        return [Failure(0, 128 + int(error.sigval), 0)]
    return []


def _variables(folder: Path, processes: int) -> dict[str, str]:
    """What the environment of the ranks has beside this process's own."""
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    return {
        FOLDER_VARIABLE: str(folder),
        PARENT_VARIABLE: str(os.getpid()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "TORCHELASTIC_SIGNALS_TO_HANDLE": signal.SIGQUIT.name,
    }


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set variables for the processes that are started in the block: the launcher has no argument for them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _forwarding_signals() -> Iterator[None]:
    """Pass signals on to rank 0 while the block runs. torch would kill ranks that take long over their checkpoint."""

    def forward(number: int, frame: FrameType | None) -> None:
        ranks = psutil.Process().children()
        main = [rank for rank in ranks if rank.environ().get("RANK") == "0"]
        if not main:  # not started yet
            raise SystemExit(128 + number)
        main[0].send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    before[signal.SIGQUIT] = signal.getsignal(signal.SIGQUIT)  # torch's launcher handles this one
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
