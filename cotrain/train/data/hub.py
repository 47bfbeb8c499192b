"""Datasets of the Hugging Face hub: downloaded once, resumed where it broke off, data files only."""

from __future__ import annotations

import glob
import json
import logging
from pathlib import Path, PurePosixPath

from cotrain.errors import ConfigError, NotAuthorizedError, NotFoundError, UnreachableError
from cotrain.status import read_json_object, replace_file
from cotrain.train.data.sources import KINDS

MARKER = ".download.json"
"""Written last: what was downloaded, at which revision, under which licence."""
_CARD = "README.md"
_CONVERTED = "refs/convert/parquet"
"""The hub's own conversion of datasets that come as a script."""
_SUFFIXES = tuple(suffix for suffix in KINDS if suffix not in (".py", ".md"))

logger = logging.getLogger(__name__)


def download_dataset(hub_id: str, raw_folder: Path, *, pattern: str = "", endpoint: str | None = None) -> Path:
    """The folder `<org>--<name>` with the dataset's data files; nothing is asked of the network if it is complete.

    Args:
        pattern: only files that match this glob.
        endpoint: address of the hub; None: as the `HF_ENDPOINT` variable says, else huggingface.co.

    Raises NotFoundError, NotAuthorizedError (gated), ConfigError (no data files), UnreachableError; what has been
    downloaded until then is kept and gone on from.
    """
    folder = raw_folder / hub_id.replace("/", "--")
    if not _is_complete(folder, hub_id, pattern):
        _download(hub_id, folder, pattern, endpoint)
    marker = read_json_object(folder / MARKER)
    logger.info("dataset %s: licence %s", hub_id, marker.get("licence") or "unknown: see its page")
    return folder


def _is_complete(folder: Path, hub_id: str, pattern: str) -> bool:
    try:
        marker = read_json_object(folder / MARKER)
    except (OSError, ValueError):
        return False
    return (marker.get("id"), marker.get("pattern")) == (hub_id, pattern)


def _download(hub_id: str, folder: Path, pattern: str, endpoint: str | None) -> None:
    # loaded only when asked for: this module is the only one here that reaches the network
    from httpx2 import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        revision, files = _find_files(hub_id, pattern, endpoint)
        snapshot_download(
            hub_id, repo_type="dataset", revision=revision, local_dir=folder, endpoint=endpoint,
            allow_patterns=[_CARD, *map(glob.escape, files)],
        )  # fmt: skip
        # with the connection lost midway, what is there is given back as if it were all
        if missing := [file for file in files if not (folder / file).is_file()]:
            raise OSError(f"{missing[0]} did not arrive")
    except GatedRepoError as error:
        raise NotAuthorizedError(
            f"the dataset {hub_id} asks for a sign-in", field="data.dataset",
            hint="accept its terms on its page, and set HF_TOKEN to your access token",
        ) from error  # fmt: skip
    except RepositoryNotFoundError as error:
        raise NotFoundError(
            f"the hub has no dataset {hub_id}, or does not show it without a sign-in", field="data.dataset",
            hint="check its name; set HF_TOKEN for a private one",
        ) from error  # fmt: skip
    except (HTTPError, OSError) as error:
        raise UnreachableError(
            f"the dataset {hub_id} cannot be downloaded: {error}", field="data.dataset",
            hint="check the connection and start again, it goes on where it broke off; or name a local data.data_path",
        ) from error  # fmt: skip
    marker = {"id": hub_id, "pattern": pattern, "revision": revision, "licence": _licence(folder / _CARD)}
    replace_file(folder / MARKER, json.dumps(marker).encode())


def _find_files(hub_id: str, pattern: str, endpoint: str | None) -> tuple[str, list[str]]:
    """The newest revision that has data files, and their names. Raises ConfigError if none has."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    api = HfApi(endpoint=endpoint)
    for revision in ("main", _CONVERTED):
        try:
            info = api.dataset_info(hub_id, revision=revision)
        except RevisionNotFoundError:
            continue
        names = [sibling.rfilename for sibling in info.siblings or ()]
        if files := [name for name in names if is_wanted(name, pattern)]:
            return str(info.sha), files
    raise ConfigError(
        f"the dataset {hub_id} has no data files that are read here", field="data.dataset",
        hint=f"download and convert it yourself ({', '.join(_SUFFIXES)}), then name its folder in data.data_path",
    )  # fmt: skip


def is_wanted(name: str, pattern: str) -> bool:
    """Whether a file of a hub's dataset is downloaded: data only, no code, and nothing that leads out of the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or any(part.startswith(".") for part in path.parts):
        return False
    return path.suffix.lower() in _SUFFIXES and (not pattern or path.match(pattern))


def _licence(card: Path) -> str:
    """As the dataset's card states it; empty if it does not."""
    from huggingface_hub import DatasetCard

    try:
        licence = DatasetCard.load(card).data.license if card.is_file() else None
    except ValueError:  # the card's header is not YAML
        licence = None
    return ", ".join(licence) if isinstance(licence, list) else str(licence or "")
