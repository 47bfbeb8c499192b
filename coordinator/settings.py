"""Everything that the coordinator can be told from outside, in one place."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from coordinator.auth.addresses import is_loopback
from coordinator.config import CoordinatorConfig
from coordinator.database import URL_VARIABLE
from coordinator.scheduler import QueueLimits
from cotrain.errors import ConfigError
from cotrain.paths import SharedPaths
from cotrain.process import python_command
from cotrain.request import HIGHEST_PRIORITY

_HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
_PUBLIC_URL = re.compile(rf"https?://{_HOST}(?::[0-9]{{1,5}})?(?:/[A-Za-z0-9._~/-]*)?", re.ASCII)


@dataclass(frozen=True)
class Settings:
    """How one coordinator runs. Durations are in seconds."""

    shared: SharedPaths
    public_url: str
    """What people and nodes call this coordinator, without a slash at the end."""
    host: str = "127.0.0.1"
    """Address that it listens on."""
    config: CoordinatorConfig = field(default_factory=CoordinatorConfig)
    """What stands in its file: sign-in, limits, proxy."""
    swarm_host: str = "127.0.0.1"
    swarm_port: int = 0
    """Port of the checkpointer's peer; 0: one that is picked once and kept."""
    database_url: str = ""
    """SQLAlchemy URL with an asyncio driver; empty: the SQLite file in the data folder."""
    checkpointer_command: tuple[str, ...] = field(
        default_factory=lambda: tuple(python_command("coordinator.checkpointer"))
    )
    """Program that is run with `--shared DIR --host H --port P`."""
    evaluation_command: tuple[str, ...] = field(default_factory=lambda: tuple(python_command("coordinator.evaluation")))
    """Program that is run with `--shared DIR` for each model that somebody wants evaluated."""
    learning_command: tuple[str, ...] = field(
        default_factory=lambda: tuple(python_command("coordinator.learning.process"))
    )
    """Program that is run, with its task on stdin, for each cycle of auto-learning."""
    serve_command: tuple[str, ...] = field(default_factory=lambda: tuple(python_command("cotrain.serve.process")))
    """Program that serves one version of a model to chats."""
    stop_grace_s: float = 30.0
    """How long a stopping session waits for its participants to end their round."""
    progress_interval_s: float = 0.25
    """Least time between two `training.progress` events of a session."""
    listener_queue: int = 256
    """Events that may wait for one listener before it is dropped as too slow."""
    link_interval_s: float = 5.0
    """Least time between two questions of a node that waits for a wallet in a browser."""
    restart_delay_s: float = 1.0
    """First delay before the checkpointer is started again; doubles up to `restart_delay_limit_s`."""
    restart_delay_limit_s: float = 30.0

    @classmethod
    def from_env(
        cls, *, public_url: str, host: str, swarm_host: str, swarm_port: int, config: CoordinatorConfig
    ) -> Settings:
        """Data folder and database as `COTRAIN_SHARED` and `COTRAIN_DATABASE_URL` say. Raises ConfigError."""
        check_public_url(public_url)
        return cls(
            shared=SharedPaths.from_env(), public_url=public_url.rstrip("/"), host=host, config=config,
            swarm_host=swarm_host, swarm_port=swarm_port, database_url=os.environ.get(URL_VARIABLE, ""),
        )  # fmt: skip

    @property
    def resolved_database_url(self) -> str:
        """The URL that the store opens."""
        return self.database_url or _default_database_url(self.shared)

    @property
    def over_https(self) -> bool:
        """Whether browsers reach it over TLS, whoever ends that."""
        return urlsplit(self.public_url).scheme == "https"

    @property
    def only_this_machine(self) -> bool:
        """Whether nobody else can reach it, by its address or by what it is called."""
        return is_loopback(self.host) and is_loopback(urlsplit(self.public_url).hostname or "")

    @property
    def limits_enforced(self) -> bool:
        """Whether what one account may do is limited."""
        return self.config.limits.on_loopback or not self.only_this_machine

    @property
    def highest_priority(self) -> int:
        """Up to which whoever is no operator may ask for a session to come before others."""
        return self.config.queue.highest_priority if self.limits_enforced else HIGHEST_PRIORITY

    @property
    def queue_limits(self) -> QueueLimits:
        """How many sessions may be under way at a time."""
        queue = self.config.queue
        return QueueLimits(queue.under_way, queue.under_way_per_account if self.limits_enforced else queue.under_way)


def database_url_from_env(shared: SharedPaths) -> str:
    """The URL that a coordinator with this data folder opens, as `COTRAIN_DATABASE_URL` says."""
    return os.environ.get(URL_VARIABLE, "") or _default_database_url(shared)


def _default_database_url(shared: SharedPaths) -> str:
    return f"sqlite+aiosqlite:///{shared.database}"


def check_public_url(url: str) -> None:
    """Raises ConfigError unless browsers can open it and wallets can name its host in what they sign."""
    if _PUBLIC_URL.fullmatch(url) is None:
        raise ConfigError(
            "is not the address of a web page", field="--public-url",
            hint="it looks like https://train.example; an international name stands in its xn-- form",
        )  # fmt: skip
