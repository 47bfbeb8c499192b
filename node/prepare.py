"""From a registration to a job: the config is checked and written, the assets are fetched."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from cotrain.config import parse_config
from cotrain.display import format_bytes
from cotrain.errors import ProtocolError
from cotrain.paths import SharedPaths
from cotrain.protocol import MODEL_ASSETS, Asset, RegisterAnswer
from cotrain.status import replace_file
from node.assets import AssetStore
from node.client import CoordinatorClient

TRAIN_ASSET = "train.safetensors"
_NOTICE_INTERVAL_S = 5.0


class DownloadNotices:
    """Turns progress into lines: when a file is complete, else at most one in 5 s."""

    def __init__(self, notice: Callable[[str], None]):
        self._notice = notice
        self._told_at = time.monotonic()

    def __call__(self, asset: Asset, size_bytes: int) -> None:
        now = time.monotonic()
        is_complete = size_bytes >= asset.size_bytes
        if not is_complete and now - self._told_at < _NOTICE_INTERVAL_S:
            return
        self._told_at = now
        self._notice(f"{asset.name}: {format_bytes(size_bytes)} of {format_bytes(asset.size_bytes)}")


def write_config(answer: RegisterAnswer, shared: SharedPaths) -> Path:
    """Check the session's TOML and put it in its place. Raises ConfigError, OSError."""
    parse_config(answer.config, source=f"config of session {answer.session}")
    path = shared.generated_config(answer.session)
    replace_file(path, answer.config.encode())
    return path


async def fetch_assets(
    answer: RegisterAnswer, shared: SharedPaths, client: CoordinatorClient, notice: Callable[[str], None]
) -> dict[str, Path]:
    """Fetch every asset of the session; returns the paths of the files, by name.

    Raises ProtocolError if the session has none, and what AssetStore.fetch raises.
    """
    store = AssetStore(shared.processed_datasets, client, answer.session, answer.token)
    notices = DownloadNotices(notice)
    paths = {asset.name: await store.fetch(asset, notices) for asset in answer.assets}
    if TRAIN_ASSET not in paths:
        raise ProtocolError(
            f"the session lists no {TRAIN_ASSET}", field=answer.session,
            hint="tell the operator: the session's data are not ready",
        )  # fmt: skip
    return paths


def assemble_model(paths: dict[str, Path], role: str, run_dir: Path) -> Path | None:
    """A folder in which the model of this role (`source`, `teacher`) lies as it is loaded; None if there is none."""
    files = {name: paths[f"{role}.{name}"] for name in MODEL_ASSETS if f"{role}.{name}" in paths}
    if len(files) < len(MODEL_ASSETS):
        return None
    folder = run_dir / role
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, path in files.items():
        (folder / name).symlink_to(path)
    return folder
