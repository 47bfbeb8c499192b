"""What this machine can do, as far as it can be found out without loading torch."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import psutil

from cotrain.protocol import Hardware

_QUERY_TIMEOUT_S = 5.0
_CPU_INFO = Path("/proc/cpuinfo")


def detect_hardware() -> Hardware:
    """Device, memory and processors. Blocks for up to 5 s where a GPU driver answers slowly."""
    return Hardware(
        device=(", ".join(cuda_names()) or f"cpu ({cpu_model()})")[:200],
        memory_bytes=psutil.virtual_memory().total,
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


def cuda_names() -> list[str]:
    """The names of the NVIDIA GPUs; none where there is no GPU or no working driver."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    if answer.returncode != 0:
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]
