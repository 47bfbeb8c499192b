"""The validation split: each content decides for itself by a seeded hash, and the decision is written down."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from cotrain.errors import ConfigError
from cotrain.status import read_json_object

_FORMAT = 1
_RANKS = 2**256
MAX_LISTED = 100_000
"""Contents that a record lists one by one."""
_MOST_RECORD_BYTES = 100 * MAX_LISTED

logger = logging.getLogger(__name__)


def rank_of(digest: bytes, seed: int) -> int:
    """Where a content (by SHA-256) stands in an order that only the seed knows: 0 .. 2**256 - 1, evenly spread."""
    return int.from_bytes(hashlib.sha256(seed.to_bytes(8, "big") + digest).digest())


class RankSurvey:
    """The lowest and highest rank of a dataset: all that a cut depends on, whatever the number of contents."""

    def __init__(self, seed: int):
        self._seed = seed
        self._lowest, self._highest = _RANKS, -1

    def add(self, digest: bytes) -> None:
        rank = rank_of(digest, self._seed)
        self._lowest, self._highest = min(rank, self._lowest), max(rank, self._highest)

    def cut(self, share: float) -> int:
        """The contents of a rank below it are kept for validation: about `share` of them, at least one, never all.

        Equal contents stay on one side, and adding some moves no other. Raises ConfigError if there are fewer than
        two different contents.
        """
        if self._lowest >= self._highest:
            raise ConfigError(
                "there is only one document, which cannot be split into training and validation text",
                field="data.data_path", hint="give more text, or a folder with several files",
            )  # fmt: skip
        return min(max(int(share * _RANKS), self._lowest + 1), self._highest)


@dataclass(frozen=True)
class SplitRecord:
    """What was decided, as `<key>.json` in the folder of splits keeps it."""

    seed: int
    share: float
    cut: int | None
    """Contents of a rank below it are for validation; None: the dataset says itself which are."""
    train: int
    """Documents or rows for training."""
    validation: int
    validation_sha256: str
    """Over the digests of the validation contents, in the order of the data."""
    listed: tuple[str, ...] | None
    """Those digests, hexadecimal; None if there are more than MAX_LISTED."""

    def write(self, path: Path) -> None:
        cut = None if self.cut is None else f"{self.cut:064x}"
        value = {"format": _FORMAT, **vars(self), "cut": cut}
        path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def recorded_cut(path: Path, *, seed: int, share: float) -> int | None:
    """The cut of an earlier preparation of the same data, None if there was none, or none that can be read."""
    try:
        record = read_json_object(path, limit_bytes=_MOST_RECORD_BYTES)
        if (record.get("format"), record.get("seed"), record.get("share")) != (_FORMAT, seed, share):
            raise ValueError("it is of another format, seed or share")
        return int(str(record["cut"]), 16)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        logger.warning("the record of the split is made again: %s: %s", path, error)
        return None
