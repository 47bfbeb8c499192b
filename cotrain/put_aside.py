"""Bad records: counted by reason, listed with their places, and more than one in a hundred stops the preparation."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from cotrain.errors import ConfigError
from cotrain.records import Place

FILE_NAME = "put_aside.jsonl"
MAX_SHARE = 0.01
"""A larger share of bad records stops the preparation."""
MAX_LISTED = 1000

logger = logging.getLogger(__name__)


class PutAside:
    """The bad records of one pass over the data. Their content is never kept: it may be private, or huge."""

    def __init__(self) -> None:
        self.total = 0
        """Records seen, the good ones included."""
        self.counts: Counter[str] = Counter()
        """Bad records by reason."""
        self._listed: list[tuple[Place, str]] = []

    def add(self, place: Place, reason: str) -> None:
        """Count one bad record."""
        self.counts[reason] += 1
        if len(self._listed) < MAX_LISTED:
            self._listed.append((place, reason))

    @property
    def listed(self) -> tuple[tuple[Place, str], ...]:
        """The first MAX_LISTED of them: where each stands, and why it cannot be used."""
        return tuple(self._listed)

    def require_few(self) -> None:
        """Raises ConfigError, at the first bad record, if more than MAX_SHARE of them are bad."""
        bad = self.counts.total()
        if bad > MAX_SHARE * self.total:
            place, reason = self._listed[0]
            raise ConfigError(
                f"{bad} of {self.total} records cannot be used: {describe(self.counts)}; the first: {reason}",
                field=str(place), hint="mend them or take them out; columns are named in [data.fields]",
                details={"counts": dict(self.counts)},
            )  # fmt: skip

    def write(self, folder: Path) -> None:
        """List the first bad records in `put_aside.jsonl`, if there are any."""
        if self._listed:
            lines = (
                json.dumps({"file": str(place.path), place.unit: place.number, "reason": reason})
                for place, reason in self._listed
            )
            (folder / FILE_NAME).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def describe(counts: Mapping[str, int]) -> str:
    """`3 not UTF-8, 1 malformed JSON`: the most frequent first."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))


def warn(counts: Mapping[str, int], folder: Path) -> None:
    """One warning for each reason."""
    for reason, count in counts.items():
        logger.warning("put aside %d records: %s (listed in %s)", count, reason, folder / FILE_NAME)
