"""What this machine can do, as far as it can be found out without loading torch."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from cotrain.protocol import Hardware
from node.gpu_memory import GpuMemory, usable

_QUERY_TIMEOUT_S = 5.0
_CPU_INFO = Path("/proc/cpuinfo")


def detect_hardware(gpu_memory: GpuMemory | None = None) -> Hardware:
    """Device, memory and processors; of GPUs as much memory as `gpu_memory` gives.

    Blocks for up to 5 s where a GPU driver answers slowly.
    """
    gpus = cuda_gpus()
    return Hardware(
        device=(", ".join(name for name, _ in gpus) or f"cpu ({cpu_model()})")[:200],
        memory_bytes=psutil.virtual_memory().total,
        gpu_memory_bytes=usable(gpu_memory, min((memory_bytes for _, memory_bytes in gpus), default=0)),
        cpu_count=physical_cores(),
        platform=platform.platform()[:200],
    )


def physical_cores() -> int:
    """Physical cores; the logical ones where the machine does not tell."""
    return psutil.cpu_count(logical=False) or psutil.cpu_count() or 1


def cpu_model() -> str:
    """The processor's name for people, or its architecture."""
    try:
        text = _CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.machine()
    return parse_cpu_model(text) or platform.machine()


def parse_cpu_model(cpuinfo: str) -> str:
    """The first `model name` in the text of /proc/cpuinfo, or an empty string."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return ""


def cuda_gpus() -> list[tuple[str, int]]:
    """Name and memory (bytes; 0 where the driver does not tell) of each NVIDIA GPU.

    None where there is no GPU or no working driver.
    """
    return ask_driver().gpus


@dataclass(frozen=True)
class DriverAnswer:
    """What the NVIDIA driver says.

    Attributes:
        gpus: name and memory (bytes; 0 where it does not tell) of each.
        version: of the driver; empty without a GPU.
        trouble: why there is no answer, for people; empty where there is one, or no driver.
    """

    gpus: list[tuple[str, int]]
    version: str = ""
    trouble: str = ""


def ask_driver() -> DriverAnswer:
    """The GPUs and their driver. Blocks for up to 5 s where it answers slowly."""
    command = ["nvidia-smi", "--query-gpu=driver_version,memory.total,name", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return DriverAnswer([], trouble=f"no word within {_QUERY_TIMEOUT_S:.0f} s")
    except OSError:
        return DriverAnswer([])
    lines = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    if answer.returncode != 0:
        said = [*lines, *answer.stderr.strip().splitlines(), f"exit code {answer.returncode}"]
        return DriverAnswer([], trouble=said[0])
    rows = [line.partition(",") for line in lines]
    return DriverAnswer([parse_gpu(rest) for _, _, rest in rows], version=rows[0][0].strip() if rows else "")


def parse_gpu(line: str) -> tuple[str, int]:
    """`81559, NVIDIA H100 80GB HBM3` (MiB and name) -> name and bytes; 0 bytes for `[N/A]`."""
    memory, _, name = line.partition(",")
    memory = memory.strip()
    return name.strip(), int(memory) * 2**20 if memory.isdecimal() else 0
