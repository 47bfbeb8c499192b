"""Cleans up after a training: checkpoints, assets, and prepared data that no other session uses."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.lifecycle import DELETABLE_STATES, FOLLOWED_STATES, possible_actions
from coordinator.models import SessionRow
from coordinator.removal import remove_set_aside, set_aside
from coordinator.sessions import find_session
from coordinator.store import Store
from cotrain.errors import ConflictError
from cotrain.paths import SharedPaths

_logger = logging.getLogger(__name__)


class Cleanup:
    """What sessions leave on disk, and how it goes."""

    def __init__(self, store: Store, shared: SharedPaths):
        self._store = store
        self._shared = shared

    async def training(self, session: str) -> None:
        """Remove what a session's training needed; session, log and final model stay.

        Raises NotFoundError, or ConflictError while it is under way.
        """
        async with self._store.write() as transaction:
            row = await find_session(transaction.rows, session)
            if row.state not in DELETABLE_STATES:
                raise ConflictError(
                    f"the training of a session that is {row.state} cannot be cleaned up",
                    hint="cancel or stop it first",
                    details={"state": row.state, "possible": possible_actions(row.state)},
                )
            folders = [
                self._shared.checkpoints / session, self._shared.temporary_models / session,
                self._shared.temporary_models / f"{session}-assets",
            ]  # fmt: skip
            if row.data_key and not await _others_use(transaction.rows, row):
                folders.append(self._shared.processed_datasets / row.data_key)
            # nobody can start a session meanwhile: that takes a transaction, too
            removed = [folder for folder in folders if set_aside(folder)]
            row.assets, row.asset_folder = [], ""
        for folder in removed:
            _logger.info("removed %s: the training of session %s was cleaned up", folder, session)
        await self.finish()

    async def finish(self) -> None:
        """Delete what was set aside, also by a coordinator that was killed before it could."""
        await asyncio.to_thread(remove_set_aside, self._places())

    def _places(self) -> list[Path]:
        shared = self._shared
        return [shared.checkpoints, shared.temporary_models, shared.processed_datasets, shared.final_models]


async def _others_use(rows: AsyncSession, row: SessionRow) -> bool:
    """Whether a session that is under way trains on the same prepared data, or on data that is not known yet."""
    query = select(func.count()).where(
        SessionRow.id != row.id, SessionRow.state.in_(FOLLOWED_STATES),
        or_(SessionRow.data_key == row.data_key, SessionRow.data_key == ""),
    )  # fmt: skip
    return bool(await rows.scalar(query))
