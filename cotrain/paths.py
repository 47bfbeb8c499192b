"""Every path under the data folder, in one place.

`COTRAIN_SHARED` (data at run time), `COTRAIN_CONFIGS` (templates and catalogs) and `COTRAIN_HOME` (a volunteer's
keys and spool) override the defaults.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parent.parent


def home_dir() -> Path:
    """A volunteer's own folder: keys, spool, pid files (`COTRAIN_HOME`, else `~/.cotrain`)."""
    return Path(os.environ.get("COTRAIN_HOME") or Path.home() / ".cotrain")


def configs_dir() -> Path:
    """Templates and catalogs (`COTRAIN_CONFIGS`, else `configs/` of the checkout or the working directory)."""
    if override := os.environ.get("COTRAIN_CONFIGS"):
        return Path(override)
    beside_package = _REPOSITORY / "configs"
    return beside_package if beside_package.is_dir() else Path.cwd() / "configs"


def templates() -> list[Path]:
    """The shipped configs to begin with, by name."""
    return sorted((configs_dir() / "templates").glob("*.toml"))


def template_path(name: str) -> Path | None:
    """Where the template of this name lies, None if there is none."""
    return next((path for path in templates() if path.stem == name), None)


def config_file(name: str) -> Path:
    """The file of this path or, where there is none, the template of this name."""
    path = Path(name)
    return path if path.exists() else template_path(name) or path


@dataclass(frozen=True)
class SharedPaths:
    """The data folder `root` and the places in it."""

    root: Path

    @classmethod
    def from_env(cls) -> SharedPaths:
        """`COTRAIN_SHARED`, else `shared/` in the working directory."""
        return cls(Path(os.environ.get("COTRAIN_SHARED") or "shared").resolve())

    @property
    def checkpoints(self) -> Path:
        return self.root / "models" / "checkpoints"

    @property
    def final_models(self) -> Path:
        return self.root / "models" / "final"

    @property
    def temporary_models(self) -> Path:
        return self.root / "models" / "temp"

    @property
    def datasets(self) -> Path:
        """What the paths of data in configs are relative to."""
        return self.root / "datasets"

    @property
    def raw_datasets(self) -> Path:
        return self.datasets / "raw"

    @property
    def processed_datasets(self) -> Path:
        return self.datasets / "processed"

    @property
    def dataset_splits(self) -> Path:
        return self.datasets / "splits"

    @property
    def learned_datasets(self) -> Path:
        """What chats have become, a folder for each model."""
        return self.datasets / "learned"

    def learned_dataset(self, model: str) -> Path:
        """Versions of the data that chats with a model have made."""
        return self.learned_datasets / model

    @property
    def enhancement_log(self) -> Path:
        """A JSON line for each cycle of auto-learning."""
        return self.system_logs / "enhancement.jsonl"

    @property
    def learning_lock(self) -> Path:
        """Held by the one process that carries out a cycle of auto-learning."""
        return self.root / "learning.lock"

    @property
    def generated_configs(self) -> Path:
        return self.root / "configs" / "generated"

    @property
    def training_logs(self) -> Path:
        return self.root / "logs" / "training"

    @property
    def system_logs(self) -> Path:
        return self.root / "logs" / "system"

    @property
    def database(self) -> Path:
        return self.root / "cotrain.sqlite3"

    @property
    def issuer_keys(self) -> Path:
        """The coordinator's signing keys; nobody else may read them."""
        return self.root / "keys"

    def generated_config(self, session: str) -> Path:
        return self.generated_configs / f"{session}.toml"

    def run_dir(self, session: str, peer: str) -> Path:
        """Where one participant's run keeps `status.json`, `control.json` and its logs."""
        return self.training_logs / session / peer

    def final_model(self, session: str) -> Path:
        return self.final_models / session

    def interim_model(self, session: str, round_: int) -> Path:
        """Beside the final models, under a name that no session has."""
        return self.final_models / f"{session}.round-{round_}"

    def create(self) -> SharedPaths:
        """Make every folder; existing ones are left as they are."""
        for path in (
            self.checkpoints, self.final_models, self.temporary_models, self.raw_datasets,
            self.processed_datasets, self.dataset_splits, self.generated_configs, self.training_logs,
            self.system_logs,
        ):  # fmt: skip
            path.mkdir(parents=True, exist_ok=True)
        return self


CHECKPOINT_NAME = re.compile(r"checkpoint-(\d{8,})")
"""Folders of a run's checkpoints, by number."""
CHECKPOINT_MANIFEST = "checkpoint.json"
"""In each: size and hash of its tensors, and all that is not a tensor."""
STATUS_FILE = "status.json"
MEMBERSHIP_FILE = "membership.json"
"""Beside a run's status: the peer's certificate, and what it checks others' by."""
CHECKPOINTER_KEY = "checkpointer.key"
"""In the coordinator's data folder: the key of its own peer."""
CONTROL_FILE = "control.json"
