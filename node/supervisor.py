"""The supervisor: starts the training process, restarts it when it dies, and knows when to give up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from cotrain.backoff import Backoff
from cotrain.errors import ConfigError, CotrainError, DivergedError, ProtocolError
from cotrain.paths import STATUS_FILE
from cotrain.process import child_environment, end_process, python_command
from cotrain.status import read_status
from node.hardware import DriverAnswer, ask_driver
from node.limits import Limits

RESTART_BACKOFF = Backoff(first_s=0.5, most_s=30.0)
CRASH_LOOP_EXITS = 5
CRASH_LOOP_WINDOW_S = 120.0
LOG_NAME = "worker.log"
_MAX_LOG_BYTES = 16 * 1024 * 1024
_TAIL_BYTES = 16 * 1024

_log = logging.getLogger(__name__)

Verdict = Literal["finished", "failed", "restart"]


class CrashLoopError(CotrainError):
    """The training process dies again and again."""

    code = "crash-loop"
    exit_code = 70


class MachineError(CotrainError):
    """This machine cannot do what the run demands."""

    code = "machine"
    exit_code = 78


FINAL_FAILURES: dict[int, type[CotrainError]] = {
    kind.exit_code: kind for kind in (ConfigError, DivergedError, ProtocolError, MachineError)
}
"""Exit codes after which a restart would fail in the same way."""


def judge_exit(code: int, *, is_stop_wished: bool) -> Verdict:
    """What an exit means: 0 is a run that finished or stopped as wished, 2, 65, 76 and 78 are final failures.

    Everything else (a signal is a negative code) is worth a restart, unless a person wants the run to end.
    """
    if code == 0:
        return "finished"
    if code in FINAL_FAILURES:
        return "failed"
    return "finished" if is_stop_wished else "restart"


def recent_exits(exits: Sequence[float], now: float, *, window_s: float = CRASH_LOOP_WINDOW_S) -> list[float]:
    """The times of exits (seconds of one clock) that lie within the window before `now`."""
    return [moment for moment in exits if now - moment <= window_s]


def final_error(log: str) -> str:
    """The last line of a log that is not indented (a trace's last line says what happened), or empty."""
    lines = [line for line in log.splitlines() if line.strip() and not line[0].isspace()]
    return lines[-1].strip()[:500] if lines else ""


def describe_exit(code: int) -> str:
    """An exit code in words."""
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def lost_gpus(began_with: int, found: DriverAnswer) -> MachineError | None:
    """Why a process that has lost a GPU is not started again: it would train on what is left, at another pace."""
    if len(found.gpus) >= began_with:
        return None
    said = f": {found.trouble}" if found.trouble else ""
    return MachineError(
        f"the training process ended, and of {began_with} GPUs that it began with the driver shows "
        f"{len(found.gpus)}{said}",
        field="gpu", hint="see what nvidia-smi says; mostly the machine wants a restart; then join again",
    )  # fmt: skip


def worker_command(job: Path) -> list[str]:
    """The command line of the training process."""
    return python_command("node.worker", "--job", str(job))


STANDBY = "--standby"
"""Option of that process, behind which its Limits stand as JSON: it loads what it needs, and begins when it is told to
by a line on its standard input."""


class Supervisor:
    """Keeps one training process running.

    Args:
        command: its command line; it must call `cotrain.process.bind_to_parent`.
        run_dir: where its log goes and where it writes `status.json`.
        threads: arithmetic threads it may use (OMP_NUM_THREADS).
        gpus: how many it begins with: with fewer it is not started again.
        on_exit: called when it has ended, before another one may replace what it wrote.
    """

    def __init__(
        self, command: Sequence[str], run_dir: Path, *, threads: int, backoff: Backoff = RESTART_BACKOFF,
        gpus: int = 0, on_exit: Callable[[], None] = lambda: None,
    ):  # fmt: skip
        self._on_exit = on_exit
        self._command = list(command)
        self._run_dir = run_dir
        self._threads = threads
        self._backoff = backoff
        self._gpus = gpus
        self._standby: asyncio.subprocess.Process | None = None
        self._log_start = 0
        self._started_at = 0.0
        self._stop_wished = asyncio.Event()
        self.end_grace_s = 5.0
        """Seconds that a process gets to end by itself when `run` is cancelled."""

    def wish_stop(self, wished: bool) -> None:
        """Whether a person wants the run to end: then the process is not started again."""
        if wished:
            self._stop_wished.set()
        else:
            self._stop_wished.clear()

    async def prepare(self, limits: Limits) -> None:
        """Start the first process before there is a job for it: it loads what it needs, and `run` begins it.

        Whoever calls this calls `dismiss` in the end.
        """
        self._standby = await self._start(STANDBY, limits.model_dump_json(by_alias=True), stdin=asyncio.subprocess.PIPE)

    async def dismiss(self) -> None:
        """End a process that was prepared and never begun."""
        if (process := self._take_standby()) is not None:
            await end_process(process, grace_s=0.0)

    def _take_standby(self) -> asyncio.subprocess.Process | None:
        process, self._standby = self._standby, None
        return process

    async def run(self) -> None:
        """Until the run has finished. Cancelling it ends the process within `end_grace_s`.

        Raises ConfigError, DivergedError, ProtocolError or MachineError as the process's exit code says, MachineError
        after an exit with a GPU gone, and CrashLoopError after 5 exits within 2 minutes; the message holds the reason
        that the process gave.
        """
        self._run_dir.mkdir(parents=True, exist_ok=True)
        exits: list[float] = []
        while True:
            code = await self._run_once()
            self._on_exit()
            verdict = judge_exit(code, is_stop_wished=self._stop_wished.is_set())
            if verdict == "finished":
                return
            if verdict == "failed":
                raise FINAL_FAILURES[code](self._reason(code), hint=f"see {self.log_path}")
            if self._gpus and (lost := lost_gpus(self._gpus, await asyncio.to_thread(ask_driver))) is not None:
                raise lost
            exits = [*recent_exits(exits, time.monotonic()), time.monotonic()]
            if len(exits) >= CRASH_LOOP_EXITS:
                raise CrashLoopError(
                    f"the training process ended {len(exits)} times within {CRASH_LOOP_WINDOW_S:.0f} s: "
                    f"{self._reason(code)}",
                    hint=f"see {self.log_path}",
                )  # fmt: skip
            delay = self._backoff.delay_s(len(exits) - 1)
            _log.warning("the training process %s; restarted in %.1f s", describe_exit(code), delay)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop_wished.wait(), delay)

    @property
    def log_path(self) -> Path:
        """What the training process prints."""
        return self._run_dir / LOG_NAME

    async def _run_once(self) -> int:
        """One process from start to exit; its exit code."""
        if self._stop_wished.is_set():
            return 0
        self._started_at = time.time()
        process = self._take_standby()
        if process is None:
            process = await self._start()
        else:
            assert process.stdin is not None
            process.stdin.write(b"\n")  # one that has ended meanwhile does not read it: its exit code says so
            process.stdin.close()
        try:
            return await process.wait()
        finally:
            await end_process(process, grace_s=self.end_grace_s)

    async def _start(self, *options: str, stdin: int = asyncio.subprocess.DEVNULL) -> asyncio.subprocess.Process:
        self._rotate_log()
        with self.log_path.open("ab") as log:
            self._log_start = log.seek(0, os.SEEK_END)
            return await asyncio.create_subprocess_exec(
                *self._command, *options, stdin=stdin, stdout=log, stderr=log,
                env=child_environment(OMP_NUM_THREADS=str(self._threads), PYTHONUNBUFFERED="1"),
                start_new_session=True,  # Ctrl-C in the terminal is the agent's to handle
            )  # fmt: skip

    def _rotate_log(self) -> None:
        if self.log_path.exists() and self.log_path.stat().st_size > _MAX_LOG_BYTES:
            os.replace(self.log_path, self.log_path.with_suffix(".log.1"))

    def _reason(self, code: int) -> str:
        """Why the process ended: what it wrote into its status, else the last thing it printed."""
        return self._failure_in_status() or final_error(self._log_tail()) or f"it {describe_exit(code)}"

    def _failure_in_status(self) -> str:
        try:
            status = read_status(self._run_dir / STATUS_FILE)
        except (OSError, ValueError):
            return ""
        is_of_this_process = status.updated_at >= self._started_at
        return status.error_msg if status.status == "failed" and is_of_this_process else ""

    def _log_tail(self) -> str:
        with self.log_path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - _TAIL_BYTES))
            return log.read(_TAIL_BYTES).decode(errors="replace")
