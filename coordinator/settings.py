"""Everything that the coordinator can be told from outside, in one place."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from cotrain.paths import SharedPaths
from cotrain.process import python_command


@dataclass(frozen=True)
class Settings:
    """How one coordinator runs. Durations are in seconds."""

    shared: SharedPaths
    public_url: str
    """What people and nodes call this coordinator, without a slash at the end."""
    swarm_host: str = "127.0.0.1"
    swarm_port: int = 0
    """Port of the checkpointer's peer; 0: one that is picked once and kept."""
    database_url: str = ""
    """SQLAlchemy URL with an asyncio driver; empty: the SQLite file in the data folder."""
    checkpointer_command: tuple[str, ...] = field(
        default_factory=lambda: tuple(python_command("coordinator.checkpointer"))
    )
    """Program that is run with `--shared DIR --host H --port P`."""
    stop_grace_s: float = 30.0
    """How long a stopping session waits for its participants to end their round."""
    progress_interval_s: float = 0.25
    """Least time between two `training.progress` events of a session."""
    listener_queue: int = 256
    """Events that may wait for one listener before it is dropped as too slow."""
    restart_delay_s: float = 1.0
    """First delay before the checkpointer is started again; doubles up to `restart_delay_limit_s`."""
    restart_delay_limit_s: float = 30.0

    @classmethod
    def from_env(cls, *, public_url: str, swarm_host: str, swarm_port: int) -> Settings:
        """Data folder and database as `COTRAIN_SHARED` and `COTRAIN_DATABASE_URL` say."""
        return cls(
            shared=SharedPaths.from_env(), public_url=public_url.rstrip("/"), swarm_host=swarm_host,
            swarm_port=swarm_port, database_url=os.environ.get("COTRAIN_DATABASE_URL", ""),
        )  # fmt: skip

    @property
    def resolved_database_url(self) -> str:
        """The URL that the store opens."""
        return self.database_url or f"sqlite+aiosqlite:///{self.shared.database}"
