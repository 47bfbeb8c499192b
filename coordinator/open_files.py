"""How many files the coordinator may have open: each uplink and each listener takes one."""

from __future__ import annotations

import resource

ENOUGH = 4096
"""For a thousand uplinks and their listeners, the database, and the connections of the checkpointer's peers."""


def raise_open_files() -> int:
    """Let this process, and those that it starts, open as many files as the machine allows; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # where there is no hard limit, macOS still refuses a soft one without a number
    most = max(soft, ENOUGH) if hard == resource.RLIM_INFINITY else hard
    if soft != most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def too_few(most: int) -> str | None:
    """What an operator should do about a low limit; None where it is enough."""
    if most >= ENOUGH:
        return None
    return (
        f"no more than {most} files can be open, and each node and each listener takes one: set LimitNOFILE={ENOUGH} "
        "or more in the unit file, or --ulimit nofile in a container"
    )
