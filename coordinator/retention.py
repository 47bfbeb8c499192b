"""Which versions of a model keep their files: a pure decision, and the deletion that follows it."""

from __future__ import annotations

import asyncio
import logging
import os
import tomllib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.model_rows import ModelRow, ModelVersionRow
from coordinator.models import SessionRow
from coordinator.removal import remove_set_aside, set_aside
from coordinator.store import Store
from cotrain.paths import SharedPaths

_logger = logging.getLogger(__name__)

_PATH_KEYS = (("model", "source"), ("distillation", "teacher"), ("data", "tokenizer"))
"""Keys of a config that may lead to a model's folder."""


@dataclass(frozen=True)
class Candidate:
    """A version whose files are there. Paths are relative to the data folder."""

    model: str
    version: int
    path: str
    pinned: bool = False
    """Or promoted: it answers chats."""


def superfluous(
    versions: Iterable[Candidate], *, keep: int, started_from: Collection[str]
) -> list[Candidate]:  # fmt: skip
    """Those whose files may go, oldest first.

    Of each model stay the newest `keep`, those that are pinned, and those that a session started from; and whatever
    shares its folder with one that stays.

    Args:
        started_from: paths that configs name, each a version's folder or something in it.
    """
    stays: list[Candidate] = []
    goes: list[Candidate] = []
    kept: dict[str, int] = {}
    for candidate in sorted(versions, key=lambda one: -one.version):
        kept[candidate.model] = kept.get(candidate.model, 0) + 1
        wanted = kept[candidate.model] <= keep or candidate.pinned or _is_used(candidate.path, started_from)
        (stays if wanted else goes).append(candidate)
    shared = {candidate.path for candidate in stays}
    return [candidate for candidate in reversed(goes) if candidate.path not in shared]


def _is_used(path: str, started_from: Collection[str]) -> bool:
    return any(used == path or used.startswith(f"{path}/") for used in started_from)


def paths_in_config(config: str, shared: SharedPaths) -> list[str]:
    """Where a config's TOML may find models, relative to the data folder; a name of the hub leads nowhere there."""
    table = tomllib.loads(config)
    named = (table.get(section, {}).get(key) for section, key in _PATH_KEYS)
    paths = (Path(os.path.normpath(shared.final_models.parent / name)) for name in named if isinstance(name, str))
    return [str(path.relative_to(shared.root)) for path in paths if path.is_relative_to(shared.root)]


class Retention:
    """Removes the files of versions that need not stay; what is known of them stays.

    Args:
        keep: how many versions of a model keep their files at least.
    """

    def __init__(self, store: Store, shared: SharedPaths, keep: int):
        self._store = store
        self._shared = shared
        self._keep = keep

    async def apply(self) -> Sequence[Candidate]:
        """Remove the files of superfluous versions; returns these versions."""
        async with self._store.read() as rows:
            if not superfluous(await self._candidates(rows), keep=self._keep, started_from=()):
                return ()
        async with self._store.write() as transaction:
            rows = transaction.rows
            started_from = await self._started_from(rows)
            goes = superfluous(await self._candidates(rows), keep=self._keep, started_from=started_from)
            for candidate in goes:
                row = await rows.get_one(ModelVersionRow, (candidate.model, candidate.version))
                set_aside(self._shared.root / candidate.path)
                row.path = ""
        for candidate in goes:
            _logger.info(
                "removed the files of version %d of model %s (%s): the newest %d versions are kept",
                candidate.version, candidate.model, candidate.path, self._keep,
            )  # fmt: skip
        await asyncio.to_thread(remove_set_aside, [self._shared.final_models])
        return goes

    async def _candidates(self, rows: AsyncSession) -> list[Candidate]:
        """Versions in the folder of final models; what an operator has put elsewhere is left to them."""
        found = await rows.execute(
            select(
                ModelVersionRow.model_id, ModelVersionRow.version, ModelVersionRow.path, ModelVersionRow.pinned,
                ModelRow.promoted_version,
            ).join(ModelRow, ModelRow.id == ModelVersionRow.model_id).where(ModelVersionRow.path != "")
        )  # fmt: skip
        candidates = (
            Candidate(model, version, path, pinned or version == promoted)
            for model, version, path, pinned, promoted in found
        )
        finals = self._shared.final_models.relative_to(self._shared.root)
        return [candidate for candidate in candidates if Path(candidate.path).parent == finals]

    async def _started_from(self, rows: AsyncSession) -> set[str]:
        configs = [*await rows.scalars(select(SessionRow.config)), *await rows.scalars(select(ModelVersionRow.config))]
        return {path for config in configs for path in paths_in_config(config, self._shared)}
