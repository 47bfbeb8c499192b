"""Looks at this machine before it trains: gathers the facts side by side, each within a limit, for `node/checks.py`.

Nothing here takes long; what does is in `node/doctor.py`.
"""

from __future__ import annotations

import asyncio
import errno
import importlib.metadata
import os
import platform
import re
import socket
import sys
import tempfile
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from cotrain.catalog import load_models
from cotrain.config import parse_config
from cotrain.errors import ConfigError, CotrainError, UnreachableError
from cotrain.estimate import MemoryEstimate, estimate_memory
from cotrain.model_facts import model_facts
from cotrain.paths import SharedPaths
from cotrain.process import SHARED_MEMORY
from cotrain.protocol import Asset, RegisterAnswer
from node import checks
from node.checks import Check, Estimate, Folder
from node.greeting import ask_clock
from node.hardware import DriverAnswer, ask_driver
from node.supervisor import MachineError

LIMIT_S = 6.0
"""For each look: longer than a driver's own five seconds."""
SKIP = "--skip-preflight"
"""With which a node trains whatever was found."""
_HOME_BYTES, _LOG_BYTES = 2**24, 2**26
"""Room for keys and events in the one folder, for the training process's log in the other."""
_TORCH_CUDA = re.compile(r"^cuda\b[^=\n]*=\s*(?:'([^']+)'|None)", re.MULTILINE)


@dataclass(frozen=True)
class Subject:
    """What is looked at.

    Attributes:
        host, port: where the peer would listen; port 0: any free one.
        base_url: of the coordinator, None: without one.
        answer: what the session has let this node in with, None: without one.
    """

    home: Path
    shared: SharedPaths
    host: str
    port: int
    base_url: str | None = None
    answer: RegisterAnswer | None = None


async def preflight(subject: Subject) -> list[Check]:
    """All quick looks at the machine itself and at its clock."""
    driver = asyncio.ensure_future(asyncio.to_thread(ask_driver))
    looks: dict[str, Awaitable[Check]] = {
        "python": asyncio.to_thread(look_at_python),
        "packages": asyncio.to_thread(look_at_packages),
        "torch": _look_at_torch(driver),
        "disk": asyncio.to_thread(look_at_disk, subject),
        "memory": _look_at_memory(subject, driver),
        "shared-memory": asyncio.to_thread(look_at_shared_memory, subject),
        "gpu": _look_at_gpu(driver),
        "port": asyncio.to_thread(look_at_port, subject.host, subject.port),
    }
    if subject.base_url is not None:
        looks["clock"] = look_at_clock(subject.base_url)
    return list(await asyncio.gather(*(within(name, look) for name, look in looks.items())))


async def within(name: str, look: Awaitable[Check], limit_s: float = LIMIT_S) -> Check:
    """What a look shows, or that it took too long."""
    try:
        async with asyncio.timeout(limit_s):
            return await look
    except TimeoutError:
        return checks.unanswered(name, limit_s)


def refusal(found: Sequence[Check]) -> CotrainError | None:
    """Why a node must not begin to train: the first check that has failed."""
    failed = [check for check in found if check.state == "failed"]
    if not failed:
        return None
    kind = MachineError if checks.exit_code(found) == checks.UNFIT else UnreachableError
    way_past = (
        f"; or, if this estimate is wrong: {SKIP}" if all(isinstance(check, Estimate) for check in failed) else ""
    )
    return kind(failed[0].detail, field=failed[0].name, hint=failed[0].remedy + way_past)


# ---------------------------------------------------------------------------------------------- what is installed
def look_at_python() -> Check:
    """The interpreter and the system it runs on."""
    return checks.python(sys.version_info[:2], platform.system(), platform.machine())


def look_at_packages() -> Check:
    """The versions of what cotrain needs."""
    try:
        requirements = importlib.metadata.requires("cotrain") or []
    except importlib.metadata.PackageNotFoundError:
        requirements = []
    return checks.packages(requirements, {text: _installed(Requirement(text).name) for text in requirements})


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


async def _look_at_torch(driver: asyncio.Future[DriverAnswer]) -> Check:
    version, cuda = await asyncio.to_thread(torch_build)
    return checks.torch_build(version, cuda, len((await asyncio.shield(driver)).gpus))


def torch_build() -> tuple[str | None, str | None]:
    """torch's version, and that of CUDA it was built with, read from its files: loading it takes seconds."""
    try:
        torch = importlib.metadata.distribution("torch")
    except importlib.metadata.PackageNotFoundError:
        return None, None
    return torch.version, parse_torch_cuda(Path(str(torch.locate_file("torch/version.py"))).read_text())


def parse_torch_cuda(version_file: str) -> str | None:
    """The version of CUDA in the text of `torch/version.py`; None for a build without."""
    found = _TORCH_CUDA.search(version_file)
    return found[1] if found else None


# ---------------------------------------------------------------------------------------------- the machine
def look_at_disk(subject: Subject) -> Check:
    """Room in the two folders that a node writes to, and whether it may."""
    wanted = _LOG_BYTES + (bytes_to_fetch(subject.shared, subject.answer.assets) if subject.answer else 0)
    return checks.disk(
        [
            _folder("COTRAIN_HOME", subject.home, _HOME_BYTES),
            _folder("COTRAIN_SHARED", subject.shared.root, wanted),
        ]
    )


def bytes_to_fetch(shared: SharedPaths, assets: Sequence[Asset]) -> int:
    """Of those of a session's assets that are not here yet."""
    folder = shared.processed_datasets
    return sum(asset.size_bytes for asset in assets if not (folder / asset.sha256 / asset.name).exists())


def _folder(variable: str, path: Path, needed_bytes: int) -> Folder:
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            trouble = ""
        found = os.statvfs(existing)
    except OSError as error:
        return Folder(variable, path, 0, needed_bytes, error.strerror or str(error))
    return Folder(variable, path, found.f_bavail * found.f_frsize, needed_bytes, trouble)


async def _look_at_memory(subject: Subject, driver: asyncio.Future[DriverAnswer]) -> Check:
    gpus = (await asyncio.shield(driver)).gpus
    need, unknown = await asyncio.to_thread(memory_needed, subject.answer, len(gpus))
    machine = psutil.virtual_memory()
    smallest = min((memory_bytes for _, memory_bytes in gpus), default=0)
    return checks.memory(need, machine.total, machine.available, gpu_bytes=smallest or None, unknown=unknown)


def memory_needed(answer: RegisterAnswer | None, gpus: int) -> tuple[MemoryEstimate | None, str]:
    """What the session needs of a node with so many GPUs; None without a session, or with the reason why nobody knows.

    Raises ConfigError for a config that this version cannot read.
    """
    if answer is None:
        return None, ""
    config = parse_config(answer.config, source=f"config of session {answer.session}")
    # a node takes the GPUs that it has, whatever the config says
    config = config.model_copy(
        update={"distributed": config.distributed.model_copy(update={"gpus_per_node": min(gpus, 64)})}
    )
    try:
        models = load_models()
    except ConfigError:
        models = []  # a volunteer's machine may have no catalog: it knows presets only
    known = model_facts(config, models)
    if known.facts is None:
        return None, "; ".join(f"{key} {reason}" for key, reason in known.unknown)
    return estimate_memory(config, known.facts), ""


def look_at_shared_memory(subject: Subject, folder: Path = SHARED_MEMORY) -> Check:
    """Room for the outer state."""
    need, _ = memory_needed(subject.answer, 0)
    if not folder.is_dir():
        return checks.shared_memory(None, 0)
    found = os.statvfs(folder)
    return checks.shared_memory(found.f_bavail * found.f_frsize, need.outer_state_bytes if need else 0)


async def _look_at_gpu(driver: asyncio.Future[DriverAnswer]) -> Check:
    found = await asyncio.shield(driver)
    return checks.gpu([name for name, _ in found.gpus], found.version, found.trouble)


def look_at_port(host: str, number: int) -> Check:
    """Whether a peer could listen there, over TCP and UDP."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM) if number else ():
        with socket.socket(family, kind) as probe:
            if kind == socket.SOCK_STREAM:  # a connection that has just ended is no hindrance
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, number))
            except OSError as error:
                taken = error.errno == errno.EADDRINUSE
                return checks.port(host, number, "another program has it" if taken else error.strerror or str(error))
    return checks.port(host, number, "")


# ---------------------------------------------------------------------------------------------- the coordinator
async def look_at_clock(base_url: str) -> Check:
    """This machine's clock beside the coordinator's; who cannot be asked says nothing about a clock."""
    try:
        found = await ask_clock(base_url)
    except CotrainError:
        return checks.unanswered("clock", LIMIT_S)
    return checks.clock(found.ahead_s, found.doubt_s)
