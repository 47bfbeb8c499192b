"""What may be wrong with a volunteer's machine: each check takes facts and says what they mean and what mends it. Pure.

The lines of `docs/troubleshooting.md` are these; a test holds the one against the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from cotrain.display import format_bytes, format_seconds
from cotrain.errors import CotrainError
from cotrain.estimate import MemoryEstimate, fits
from cotrain.process import SHARED_MEMORY, SHARED_MEMORY_HINT
from cotrain.protocol import PROTOCOL_VERSION
from cotrain.reachability import Attachment, way_to_mend

State = Literal["ok", "warning", "failed"]
UNAVAILABLE, UNFIT = 69, 78
"""Exit codes, of the sysexits kind: the others cannot be had, or this machine cannot do it."""
OLDEST_PYTHON = (3, 11)
MOST_CLOCK_S = 3.0
"""hivemind's DHT takes nobody in whose clock differs by more (`hivemind/dht/protocol.py`)."""
MUCH_CLOCK_S = 1.0
SPARE_DISK_BYTES = 2**30
SLOW_ANSWER_S = 2.0
LONG_DOWNLOAD_S = 1800.0
_UPGRADE = "run: pip install --upgrade cotrain"
_ELSEWHERE = frozenset({"coordinator", "session", "reachable", "line"})


@dataclass(frozen=True)
class Check:
    """What a look at one thing has shown.

    Attributes:
        name: of the check, the same in every version.
        remedy: the command or setting that mends it; empty where nothing needs mending.
    """

    name: str
    state: State
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Estimate(Check):
    """A check that has failed by an estimate, which may be wrong."""


def exit_code(checks: Sequence[Check]) -> int:
    """0 if none has failed; 69 if only others are at fault (coordinator, network); else 78."""
    failed = {check.name for check in checks if check.state == "failed"}
    if not failed:
        return 0
    return UNAVAILABLE if failed <= _ELSEWHERE else UNFIT


def line_of(check: Check) -> str:
    """A check for people, in one line, or in two where something is to be mended."""
    line = f"{check.state:<8} {check.name}: {check.detail}"
    return f"{line}\n         mend it: {check.remedy}" if check.remedy else line


def unanswered(name: str, limit_s: float) -> Check:
    """Of a look that took too long."""
    return Check(
        name, "warning", f"could not be found out within {limit_s:.0f} s",
        "try again when the machine, its disk or its line is less busy",
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- what is installed
def python(version: tuple[int, int], system: str, machine: str) -> Check:
    """`system` and `machine` as `platform` names them."""
    found = f"{version[0]}.{version[1]}"
    if (system, machine) != ("Linux", "x86_64"):
        return Check(
            "python", "failed", f"cotrain runs on Linux x86-64, this is {system} {machine}",
            "use a Linux machine; on Windows use WSL2",
        )  # fmt: skip
    if version < OLDEST_PYTHON:
        return Check(
            "python", "failed", f"cotrain needs Python 3.11 or newer, this is {found}",
            "make the virtual environment anew: python3.11 -m venv .venv",
        )  # fmt: skip
    return Check("python", "ok", f"Python {found} on {system} {machine}")


def packages(requirements: Sequence[str], installed: Mapping[str, str | None]) -> Check:
    """`requirements` as the package declares them, and the version that is installed for each, None: none is.

    Those for extras are passed over: a node needs none.
    """
    if not requirements:
        return Check(
            "packages", "warning", "cotrain is not installed as a package: versions were not compared",
            "run in the checkout: pip install -c constraints.txt -e .",
        )  # fmt: skip
    wanted = [(text, Requirement(text)) for text in requirements]
    wanted = [(text, found) for text, found in wanted if found.marker is None or found.marker.evaluate({"extra": ""})]
    wrong = []
    for text, requirement in wanted:
        version = installed.get(text)
        if version is None:
            wrong.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, {requirement.specifier} is needed")
    if wrong:
        return Check("packages", "failed", f"packages do not fit: {'; '.join(wrong)}", _UPGRADE)
    return Check("packages", "ok", f"all {len(wanted)} fit")


def torch_build(version: str | None, cuda: str | None, gpus: int) -> Check:
    """`cuda` is the version that torch was built with; None: it is a build for processors."""
    if version is None:
        return Check("torch", "failed", "torch is not installed", _UPGRADE)
    if gpus and cuda is None:
        return Check(
            "torch", "warning", f"torch {version} is a build for processors: of {gpus} GPUs none is used",
            "install the build for this GPU: https://pytorch.org/get-started/locally",
        )  # fmt: skip
    return Check("torch", "ok", f"torch {version}, {f'for CUDA {cuda}' if cuda else 'for processors'}")


# ---------------------------------------------------------------------------------------------- the machine
@dataclass(frozen=True)
class Folder:
    """A folder that cotrain writes to.

    Attributes:
        variable: names the folder in the environment.
        needed_bytes: what the session will put there.
        trouble: why nothing can be written there; empty if something can.
    """

    variable: str
    path: Path
    free_bytes: int
    needed_bytes: int
    trouble: str = ""


def disk(folders: Sequence[Folder]) -> Check:
    """The first folder that is in trouble counts, failures first."""
    for folder in folders:
        if folder.trouble:
            return Check(
                "disk", "failed", f"{folder.path} cannot be written: {folder.trouble}",
                f"make it writable, or let {folder.variable} name another folder",
            )  # fmt: skip
    for folder in folders:
        if folder.free_bytes < folder.needed_bytes:
            return Estimate(
                "disk", "failed",
                f"{folder.path} has {format_bytes(folder.free_bytes)} free, {format_bytes(folder.needed_bytes)} are "
                "needed", f"make room, or let {folder.variable} name a folder on a larger disk",
            )  # fmt: skip
    for folder in folders:
        if folder.free_bytes < folder.needed_bytes + SPARE_DISK_BYTES:
            return Check(
                "disk", "warning",
                f"{folder.path} has only {format_bytes(folder.free_bytes)} free; {format_bytes(folder.needed_bytes)} "
                "of it are needed", f"make room, or let {folder.variable} name a folder on a larger disk",
            )  # fmt: skip
    return Check("disk", "ok", ", ".join(f"{format_bytes(f.free_bytes)} free in {f.path}" for f in folders))


def memory(
    need: MemoryEstimate | None, total_bytes: int, available_bytes: int, *, gpu_bytes: int | None = None,
    unknown: str = "",
) -> Check:  # fmt: skip
    """`need` of the session, None without one or where `unknown` says why nobody knows.

    `gpu_bytes` is the memory of the smallest GPU; None where there is none, or it is not known.
    """
    here = f"{format_bytes(available_bytes)} of {format_bytes(total_bytes)} are free"
    if need is None and unknown:
        return Check(
            "memory", "warning", f"what the session needs is not known ({unknown}); {here}",
            "ask who opened the session, or watch the memory during the first round",
        )  # fmt: skip
    if need is None:
        return Check("memory", "ok", here)
    if reason := fits(need, total_bytes, gpu_bytes):
        return Estimate("memory", "failed", reason, "join a smaller session, or with a larger machine")
    if need.total_bytes > available_bytes:
        return Check(
            "memory", "warning", f"a node needs about {format_bytes(need.total_bytes)} of memory, {here}",
            "end other programs first",
        )  # fmt: skip
    return Check("memory", "ok", f"a node needs about {format_bytes(need.total_bytes)}, {here}")


def shared_memory(free_bytes: int | None, needed_bytes: int) -> Check:
    """`free_bytes` is None where memory is shared otherwise; `needed_bytes` is 0 without a session."""
    if free_bytes is None:
        return Check("shared-memory", "ok", f"this machine shares memory without {SHARED_MEMORY}")
    here = f"{SHARED_MEMORY} has {format_bytes(free_bytes)} free"
    if free_bytes < needed_bytes:
        return Check(
            "shared-memory", "failed", f"{here}, the outer state needs {format_bytes(needed_bytes)}", SHARED_MEMORY_HINT
        )
    return Check("shared-memory", "ok", f"{here}, {format_bytes(needed_bytes)} are needed" if needed_bytes else here)


def gpu(names: Sequence[str], driver: str, trouble: str) -> Check:
    """`driver` is its version, `trouble` what it says in place of an answer."""
    if trouble:
        return Check(
            "gpu", "warning", f"the NVIDIA driver does not answer: {trouble}",
            "see what nvidia-smi says; a driver that was just installed wants a restart",
        )  # fmt: skip
    if not names:
        return Check("gpu", "ok", "none: the processor trains")
    return Check("gpu", "ok", f"{', '.join(names)}; driver {driver}")


def port(host: str, number: int, trouble: str) -> Check:
    """`trouble`: why nothing can listen there; empty if something can. Port 0: any free one."""
    if trouble:
        return Check(
            "port", "failed", f"port {number} on {host} cannot be had: {trouble}",
            "take another one with --port, or leave it out",
        )  # fmt: skip
    return Check("port", "ok", f"port {number} on {host} is free" if number else "any free one is taken")


# ---------------------------------------------------------------------------------------------- earlier agents
def agent(pid: int | None, session: str) -> Check:
    """The agent that runs with this home folder, if any."""
    if pid is None:
        return Check("agent", "ok", "none runs with this COTRAIN_HOME")
    return Check(
        "agent", "warning", f"process {pid} takes part in session {session} with this identity: the session was not "
        "asked", "cotrain node status says how it does; to look at all, end it with: cotrain node leave",
    )  # fmt: skip


def orphans(pids: Sequence[int], crashed: int | None) -> Check:
    """What an agent that has ended without cleaning up (`crashed`, its process id) has left running."""
    if pids:
        listed = " ".join(map(str, pids))
        return Check(
            "orphans", "failed", f"of the agent that was process {crashed} there still runs: {listed}",
            f"run: kill {listed}",
        )  # fmt: skip
    if crashed is not None:
        return Check(
            "orphans", "warning", f"the last agent (process {crashed}) was killed or lost its power; nothing of it "
            "runs", "nothing to mend: cotrain node join goes on from the swarm's newest outer state",
        )  # fmt: skip
    return Check("orphans", "ok", "nothing is left of an earlier agent")


# ---------------------------------------------------------------------------------------------- the coordinator
def coordinator(url: str, answer_s: float, error: CotrainError | None) -> Check:
    """`answer_s`: how long it took to answer; `error`: why it cannot be used."""
    if error is not None:
        return Check(
            "coordinator", "failed", f"{url} cannot be used: {error.message}",
            error.hint or "check the address and your network, or ask the operator whether it is running",
        )  # fmt: skip
    if answer_s > SLOW_ANSWER_S:
        return Check(
            "coordinator", "warning", f"{url} took {answer_s:.1f} s to answer",
            "is the line busy? else tell the operator",
        )  # fmt: skip
    return Check(
        "coordinator", "ok", f"{url} answers in {1000 * answer_s:.0f} ms and speaks protocol {PROTOCOL_VERSION}"
    )


def clock(ahead_s: float, doubt_s: float) -> Check:
    """How far this machine's clock is ahead of the coordinator's, give or take `doubt_s`; the doubt is its gain."""
    word = "ahead of" if ahead_s > 0 else "behind"
    off_s = max(0.0, abs(ahead_s) - doubt_s)
    detail = f"this machine's clock is {abs(ahead_s):.1f} s {word} the coordinator's"
    remedy = "set the clock by the network: sudo timedatectl set-ntp true"
    if off_s > MOST_CLOCK_S:
        return Check("clock", "failed", f"{detail}; at most {MOST_CLOCK_S:.0f} s are allowed", remedy)
    if off_s > MUCH_CLOCK_S:
        return Check("clock", "warning", detail, remedy)
    return Check("clock", "ok", f"within {abs(ahead_s) + doubt_s:.1f} s of the coordinator's")


def session(name: str, error: CotrainError | None) -> Check:
    """Whether the coordinator lets this node into the session."""
    if error is not None:
        return Check(
            "session", "failed", f"this node is not let into {name}: {error.message}",
            error.hint or "ask who opened the session",
        )  # fmt: skip
    return Check("session", "ok", f"this node is let into {name}")


def offers(base_url: str, error: CotrainError | None, best: str = "") -> Check:
    """Which session `cotrain node join` would take with a coordinator's address: `best`, or why none."""
    if error is not None:
        return Check("session", "warning", error.message, error.hint or "ask the operator")
    return Check("session", "ok", f"with {base_url} this node would join {best}")


def reachable(found: Attachment | CotrainError) -> list[Check]:
    """Two checks: whether others can connect to this machine, and whether they can through the relay."""
    if isinstance(found, CotrainError):
        remedy = found.hint or "does a firewall here let connections out?"
        return [Check("reachable", "failed", f"there is no way into the swarm: {found.message}", remedy)]
    mend = way_to_mend(found.port)
    if found.connection == "direct":
        if found.notice:  # nobody has tried
            return [Check("reachable", "warning", found.notice, "try again in a minute")]
        return [
            Check("reachable", "ok", "others can connect to this machine"),
            Check("relay", "ok", "none is needed"),
        ]
    closed = Check("reachable", "warning", f"others cannot connect to port {found.port} of this machine", mend)
    if found.connection == "relayed":
        return [closed, Check("relay", "ok", "others connect through the coordinator's machine")]
    refused = "the coordinator's machine does not relay for this one: it only contributes, and has no vote"
    return [closed, Check("relay", "warning", refused, mend)]


def line(bytes_per_s: float, wanted_bytes: int, error: CotrainError | None = None) -> Check:
    """`bytes_per_s` from the coordinator; `wanted_bytes`: what has to come before the training begins."""
    if error is not None or bytes_per_s <= 0:
        reason = error.message if error is not None else "nothing came"
        return Check(
            "line", "failed", f"the session's data cannot be fetched: {reason}",
            (error.hint if error else "") or "try again; if it stays, tell the operator",
        )  # fmt: skip
    speed, takes_s = f"{format_bytes(round(bytes_per_s))}/s come in", wanted_bytes / bytes_per_s
    detail = f"{speed}: data and outer state ({format_bytes(wanted_bytes)}) take about {format_seconds(takes_s)}"
    if takes_s > LONG_DOWNLOAD_S:
        remedy = "let the node run: a download that breaks off goes on where it was"
        return Check("line", "warning", detail, remedy)
    return Check("line", "ok", detail)


# ---------------------------------------------------------------------------------------------- training
def benchmark(tokens_per_s: float, device: str, gpus: int, trouble: str = "") -> Check:
    """A few inner steps of a nano model; `device` is torch's name of what took them, `trouble` why none were taken."""
    if trouble:
        return Check(
            "benchmark", "failed", f"no inner step could be taken: {trouble}",
            "see all of it: python -m cotrain.train.benchmark; then install again: pip install --force-reinstall torch",
        )  # fmt: skip
    detail = f"{tokens_per_s:,.0f} tokens/s with a nano model on {device}"
    if gpus and device == "cpu":
        return Check(
            "benchmark", "warning", f"{detail}, though there are GPUs",
            "see the lines torch and gpu; is CUDA_VISIBLE_DEVICES set?",
        )  # fmt: skip
    return Check("benchmark", "ok", detail)
