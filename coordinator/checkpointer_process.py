"""Starts the checkpointer, keeps it alive, and carries the JSON lines both ways."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from pydantic import ValidationError

from coordinator.checkpointer_messages import REPORT, Follow, Order, Ready, SessionReport
from coordinator.settings import Settings
from cotrain.process import child_environment, end_process
from cotrain.status import replace_file

_logger = logging.getLogger(__name__)

_LINE_LIMIT_BYTES = 1024 * 1024
_END_GRACE_S = 2.5
_PORT_WAIT_S = 3.0
_STEADY_AFTER_S = 60.0
PORT_FILE = "checkpointer.port"


class CheckpointerProcess:
    """The checkpointer's process, supervised.

    What the checkpointer must do is kept by the sessions, not here: after every start it is told again what
    to follow, so that a command lost with a dead process is made up for. It may be told the same thing twice.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_report: Callable[[SessionReport], Awaitable[None]],
        to_follow: Callable[[], Awaitable[list[Follow]]],
    ):
        self._settings = settings
        self._on_report = on_report
        self._to_follow = to_follow
        self._process: asyncio.subprocess.Process | None = None
        self.ready: Ready | None = None
        """What the present process said when its DHT was up; None while there is none."""

    @property
    def initial_peers(self) -> list[str]:
        """libp2p addresses of the checkpointer, empty while it is not up."""
        return list(self.ready.addresses) if self.ready else []

    async def run(self) -> None:
        """Keep it running until cancelled; then end it."""
        failures = 0
        while True:
            started = time.monotonic()
            code = await self._run_once()
            failures = 0 if time.monotonic() - started > _STEADY_AFTER_S else failures + 1
            delay = restart_delay(
                failures,
                self._settings.restart_delay_s,
                self._settings.restart_delay_limit_s,
                random.random(),
            )
            _logger.error(
                "the checkpointer ended with exit code %s; it starts again in %.1f s; its log: %s",
                code, delay, self._log_path,
            )  # fmt: skip
            await asyncio.sleep(delay)

    def send(self, command: Order) -> None:
        """Tell the checkpointer something; without a process the next one will be told what still counts."""
        if self._process is None or self._process.stdin is None or self._process.stdin.is_closing():
            _logger.info("the checkpointer is not up: %s %s waits", command.op, command.session)
            return
        self._process.stdin.write(command.model_dump_json(by_alias=True).encode() + b"\n")

    @property
    def _log_path(self) -> Path:
        return self._settings.shared.system_logs / "checkpointer.log"

    async def _run_once(self) -> int:
        try:
            process = await self._start()
        except OSError as error:
            _logger.error("the checkpointer cannot be started: %s", error)
            return -1
        self._process = process
        try:
            for command in await self._to_follow():
                self.send(command)
            await self._read_reports(process)
        finally:
            self._process, self.ready = None, None
            # a task that is being cancelled must still see its child end
            code = await asyncio.shield(asyncio.create_task(end_process(process, grace_s=_END_GRACE_S)))
        return code

    async def _start(self) -> asyncio.subprocess.Process:
        settings = self._settings
        port = await lasting_port(settings.shared.root / PORT_FILE, settings.swarm_host, settings.swarm_port)
        environment = child_environment()
        # one thread leaves the other cores to the participants of a small machine
        environment.setdefault("OMP_NUM_THREADS", "1")
        with self._log_path.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *settings.checkpointer_command, "--shared", str(settings.shared.root),
                "--host", settings.swarm_host, "--port", str(port),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                env=environment, limit=_LINE_LIMIT_BYTES,
            )  # fmt: skip

    async def _read_reports(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                _logger.error("the checkpointer sent a line of more than %d bytes", _LINE_LIMIT_BYTES)
                return
            if not line:
                return
            await self._handle(line)

    async def _handle(self, line: bytes) -> None:
        try:
            report = REPORT.validate_json(line)
        except ValidationError as error:
            _logger.warning("the checkpointer sent what is no report: %s", error.errors(include_input=False)[0]["msg"])
            return
        if isinstance(report, Ready):
            self.ready = report
            return
        try:
            await self._on_report(report)
        except Exception:
            # one session's fault must not take the other sessions' checkpointer down
            _logger.exception("a report of the checkpointer could not be applied: %s", report.event)


def restart_delay(failures: int, first_s: float, limit_s: float, jitter: float) -> float:
    """Seconds before the next start.

    Doubles with each failure from `first_s` up to `limit_s`; `jitter` in [0, 1) takes up to half of it off.
    """
    full = min(limit_s, first_s * 2.0 ** min(max(failures, 1) - 1, 32))
    return full * (1.0 - 0.5 * jitter)


async def lasting_port(path: Path, host: str, wanted: int) -> int:
    """The port that peers know the checkpointer by: `wanted`, else that remembered at `path`, else a new one.

    A remembered port may still be held by a process that is ending: it gets a moment.
    """
    if wanted:
        return wanted
    remembered = _read_port(path)
    if remembered:
        give_up = time.monotonic() + _PORT_WAIT_S
        while time.monotonic() < give_up:
            if port_is_free(host, remembered):
                return remembered
            await asyncio.sleep(0.1)
        _logger.warning("port %d of the checkpointer is taken; another is used", remembered)
    port = _free_port(host)
    replace_file(path, f"{port}\n".encode())
    return port


def port_is_free(host: str, port: int) -> bool:
    """Whether a TCP socket can listen there now."""
    with contextlib.suppress(OSError), _listening(host, port):
        return True
    return False


def _free_port(host: str) -> int:
    with _listening(host, 0) as listening:
        return int(listening.getsockname()[1])


def _listening(host: str, port: int) -> socket.socket:
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def _read_port(path: Path) -> int | None:
    if not path.exists():
        return None
    text = path.read_text().strip()
    if text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    _logger.warning("%s does not hold a port; a new one is picked", path)
    return None
