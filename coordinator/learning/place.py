"""Where cycles work."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.config import CoordinatorConfig
from cotrain.paths import SharedPaths


@dataclass(frozen=True)
class Place:
    """Where a cycle works: a coordinator's data folder, database, settings and address."""

    shared: SharedPaths
    database_url: str
    config: CoordinatorConfig
    url: str
    """Of its REST API, without a slash at the end."""
