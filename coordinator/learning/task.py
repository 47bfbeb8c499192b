"""What a cycle's process is told, and what it says at its end."""

from __future__ import annotations

from coordinator.config import CoordinatorConfig
from coordinator.learning.rows import Trigger
from cotrain.request import CamelModel


class CycleTask(CamelModel):
    """What a cycle's process is told."""

    shared: str
    database_url: str
    url: str
    trigger: Trigger
    config: CoordinatorConfig


class CycleDone(CamelModel):
    """What it says at its end."""

    cycle: str | None = None
    """That has ended; None if there were too few chats to begin one."""
    message: str
    failed: bool = False
    """Whether the cycle could not go on, and wants to be taken up again."""
