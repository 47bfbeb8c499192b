"""`cotrain node doctor`: every look at this machine and at its way into a session, the slow ones included."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
from pydantic import BaseModel, ConfigDict

from cotrain import PARENT_VARIABLE
from cotrain.config import parse_config
from cotrain.errors import CotrainError
from cotrain.estimate import estimate_traffic
from cotrain.identity.challenge import Signer
from cotrain.membership.document import write_membership
from cotrain.model_facts import model_facts
from cotrain.paths import MEMBERSHIP_FILE, SharedPaths
from cotrain.peer_key import PeerSigner, load_or_create_peer_key
from cotrain.process import child_environment, end_process, python_command
from cotrain.protocol import RegisterAnswer
from cotrain.reachability import role_for
from node import checks
from node.addresses import ANY_ADDRESS, listen_host
from node.checks import Check
from node.choice import ask_offers
from node.client import CoordinatorClient, invitation_token, parse_join_url
from node.greeting import greet
from node.hardware import cuda_gpus, physical_cores
from node.join import PEER_KEY
from node.lock import last_agent
from node.network import Question, find_attachment
from node.offers import nothing_open, reason_for
from node.preflight import LIMIT_S, Subject, bytes_to_fetch, preflight, within
from node.registration import Applicant, register
from node.supervisor import MachineError, final_error

ORDER = (
    "python", "packages", "torch", "gpu", "disk", "memory", "shared-memory", "agent", "orphans", "port", "coordinator",
    "clock", "session", "reachable", "relay", "line", "benchmark",
)  # fmt: skip
"""In which the checks are told."""
BENCHMARK_LIMIT_S = 120.0
LINE_LIMIT_S = 10.0
LINE_BYTES = 4 * 2**20
_PIECE_BYTES = 2**16

_log = logging.getLogger(__name__)

Report = Callable[[Check], None]


@dataclass(frozen=True)
class DoctorOptions:
    """What a volunteer says on the command line; see `JoinOptions`."""

    url: str = field(default="", repr=False)
    """A session's address, or a coordinator's; empty: this machine alone is looked at."""
    host: str | None = None
    port: int = 0
    invitation: str = field(default="", repr=False)


class Measured(BaseModel):
    """What the training benchmark prints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    tokens_per_s: float


async def examine(
    options: DoctorOptions, home: Path, shared: SharedPaths, wallet: Callable[[], Signer], report: Report
) -> list[Check]:
    """Every check there is facts for, each reported as soon as its stage has ended; returns them in ORDER.

    A session is registered with and left again, unless an agent takes part with this identity. Raises CotrainError
    for options that cannot be used.
    """
    base_url, session = _parts(options.url)
    invitation_token(options.invitation, options.url)
    doctor = Doctor(options, home, shared, report)
    await doctor.look_at_earlier_agents()
    if base_url is None:
        await doctor.look_at_machine(options.host or ANY_ADDRESS)
    else:
        await doctor.look_at_coordinator(base_url, session, wallet)
    await doctor.look_at_training()
    return sorted(doctor.found, key=lambda check: ORDER.index(check.name))


def _parts(url: str) -> tuple[str | None, str | None]:
    """Base URL of the coordinator and session, each None if the address does not have it. Raises ConfigError."""
    if not url:
        return None, None
    return parse_join_url(url)


class Doctor:
    """One examination; `found` has the checks so far."""

    def __init__(self, options: DoctorOptions, home: Path, shared: SharedPaths, report: Report):
        self.found: list[Check] = []
        self._options, self._home, self._shared, self._report = options, home, shared, report

    def _tell(self, *found: Check) -> None:
        for check in found:
            self.found.append(check)
            self._report(check)

    # -------------------------------------------------------------------------------------------- this machine
    async def look_at_earlier_agents(self) -> None:
        """One that runs, and what one that crashed has left."""
        last = await asyncio.to_thread(last_agent, self._home)
        running = last if last is not None and last.is_alive() else None
        self._tell(checks.agent(running.pid, running.session) if running else checks.agent(None, ""))
        crashed = last if running is None else None
        left = [] if crashed is None else await asyncio.to_thread(children_of, crashed.pid, crashed.start_time)
        self._tell(checks.orphans(left, crashed.pid if crashed else None))

    async def look_at_machine(
        self, host: str, base_url: str | None = None, answer: RegisterAnswer | None = None
    ) -> None:
        """What `cotrain node join` looks at, too."""
        self._tell(*await preflight(Subject(self._home, self._shared, host, self._options.port, base_url, answer)))

    async def look_at_training(self) -> None:
        """A few inner steps."""
        gpus = len(await asyncio.to_thread(cuda_gpus))
        measured = await measure_training()
        trouble = measured if isinstance(measured, str) else ""
        speed, device = (0.0, "") if isinstance(measured, str) else (measured.tokens_per_s, measured.device)
        self._tell(checks.benchmark(speed, device, gpus, trouble))

    # -------------------------------------------------------------------------------------------- a session
    async def look_at_coordinator(self, base_url: str, session: str | None, wallet: Callable[[], Signer]) -> None:
        """Whether it answers and, if it does, the session and this machine's way into it."""
        try:
            host = await asyncio.to_thread(listen_host, self._options.host, base_url)
            answered = await greet(base_url)
        except CotrainError as error:
            self._tell(checks.coordinator(base_url, 0.0, error))
            await self.look_at_machine(self._options.host or ANY_ADDRESS)
            return
        self._tell(checks.coordinator(base_url, answered.answer_s, None))
        is_busy = any(check.name == "agent" and check.state != "ok" for check in self.found)
        if session is None:
            self._tell(await look_at_offers(base_url))
        if session is None or is_busy:
            await self.look_at_machine(host, base_url)
            return
        async with CoordinatorClient(base_url) as client:
            try:
                answer = await self._register(client, session, wallet)
            except CotrainError as error:
                self._tell(checks.session(session, error))
                await self.look_at_machine(host, base_url)
            else:
                await self._look_at_session(client, session, host, answer)

    async def _register(self, client: CoordinatorClient, session: str, wallet: Callable[[], Signer]) -> RegisterAnswer:
        key = self._home / PEER_KEY
        try:
            await asyncio.to_thread(load_or_create_peer_key, key)
            signer = wallet()
        except OSError as error:
            raise MachineError(f"it has no identity: {error.strerror}", field=str(error.filename or key)) from error
        applicant = Applicant(
            PeerSigner(key), role=role_for("direct"),
            invitation=invitation_token(self._options.invitation, self._options.url),
        )  # fmt: skip
        return await register(client, session, applicant, signer, notice=_log.warning)

    async def _look_at_session(
        self, client: CoordinatorClient, session: str, host: str, answer: RegisterAnswer
    ) -> None:  # fmt: skip
        try:
            self._tell(checks.session(session, None))
            await self.look_at_machine(host, client.base_url, answer)
            self._tell(*await self._look_at_way_in(answer, host))
            self._tell(await within("line", self._look_at_line(client, answer), LINE_LIMIT_S + LIMIT_S))
        finally:
            with suppress(CotrainError):  # the coordinator forgets who says nothing
                await client.leave(session, answer.participant, answer.token)

    async def _look_at_way_in(self, answer: RegisterAnswer, host: str) -> list[Check]:
        with tempfile.TemporaryDirectory(prefix="cotrain-doctor-") as folder:
            membership = Path(folder) / MEMBERSHIP_FILE
            write_membership(membership, answer.membership)
            question = Question(
                session=answer.session, host=host, port=self._options.port, initial_peers=answer.initial_peers,
                identity_path=self._home / PEER_KEY, membership_path=membership,
            )  # fmt: skip
            try:
                return checks.reachable(await find_attachment(question))
            except CotrainError as error:
                return checks.reachable(error)

    async def _look_at_line(self, client: CoordinatorClient, answer: RegisterAnswer) -> Check:
        wanted_bytes = bytes_to_fetch(self._shared, answer.assets) + state_bytes(answer)
        try:
            return checks.line(await measure_line(client, answer), wanted_bytes)
        except CotrainError as error:
            return checks.line(0.0, wanted_bytes, error)


async def look_at_offers(base_url: str) -> Check:
    """Which session a join with the coordinator's address would take."""
    try:
        hardware, offers = await ask_offers(base_url, _log.warning)
    except CotrainError as error:
        return checks.offers(base_url, error)
    if not offers:
        return checks.offers(base_url, nothing_open(base_url, hardware, {}))
    return checks.offers(base_url, None, f"{offers[0].session}: {reason_for(offers[0])}")


def children_of(pid: int, since: float) -> list[int]:
    """Processes that the agent of this id started after `since` (Unix seconds), and that still run.

    An agent tells each child its own id in the environment, which the kernel keeps as it was at the start.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_later = process.create_time() >= since - 1.0
            if is_later and process.environ().get(PARENT_VARIABLE) == str(pid):
                found.append(process.pid)
    return found


def state_bytes(answer: RegisterAnswer) -> int:
    """Of the outer state, which a node fetches when it joins; 0 where nobody knows. Raises ConfigError."""
    config = parse_config(answer.config, source=f"config of session {answer.session}")
    facts = model_facts(config).facts
    return estimate_traffic(config, facts.count.total).join_bytes if facts else 0


async def measure_line(client: CoordinatorClient, answer: RegisterAnswer) -> float:
    """Bytes per second of the end of the session's largest asset, at most 4 MiB and 10 s of it; 0 if nothing came.

    Raises what `CoordinatorClient.open_asset` raises.
    """
    asset = max(answer.assets, key=lambda found: found.size_bytes, default=None)
    if asset is None:
        return 0.0
    received, started = 0, time.monotonic()
    offset = max(0, asset.size_bytes - LINE_BYTES)
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(LINE_LIMIT_S):
            async with client.open_asset(answer.session, asset.sha256, answer.token, offset=offset) as response:
                async for piece in response.content.iter_chunked(_PIECE_BYTES):
                    received += len(piece)
                    if received >= LINE_BYTES:
                        break
    return received / max(1e-6, time.monotonic() - started)


async def measure_training(command: Sequence[str] = (), limit_s: float = BENCHMARK_LIMIT_S) -> Measured | str:
    """How fast a process of its own takes inner steps, or why it took none. Cancelling it ends the process."""
    process = await asyncio.create_subprocess_exec(
        *(command or python_command("cotrain.train.benchmark")), stdout=PIPE, stderr=PIPE,
        env=child_environment(OMP_NUM_THREADS=str(physical_cores())), start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(limit_s):
            answer, log = await process.communicate()
    except TimeoutError:
        return f"it was not done within {limit_s:.0f} s"
    finally:
        await end_process(process, grace_s=2.0)
    if process.returncode == 0:
        return Measured.model_validate_json(answer)
    return final_error(log.decode(errors="replace")) or f"it ended with exit code {process.returncode}"
