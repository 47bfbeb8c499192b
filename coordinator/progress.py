"""Emits `training.progress` at a bounded rate: many snapshots become one event, states and logs never do."""

from __future__ import annotations

import asyncio

from sqlalchemy import select
from sqlalchemy.orm import defer

from coordinator.models import SessionRow
from coordinator.projection import Projection, progress_event, project
from coordinator.store import Store
from coordinator.uplinks import Uplinks
from cotrain.status import Status


def current_projection(row: SessionRow, uplinks: Uplinks) -> Projection:
    """The session's progress from its row and from those who are connected now."""
    return project(
        row.state,
        Status.model_validate(row.checkpointer_status) if row.checkpointer_status else None,
        uplinks.statuses(row.id),
        connected=len(uplinks.connected(row.id)),
        previous=Projection.model_validate(row.progress or {}),
    )


class ProgressPump:
    """One task that emits for all sessions. `mark` says that a session has something new."""

    def __init__(self, store: Store, uplinks: Uplinks, interval_s: float):
        self._store = store
        self._uplinks = uplinks
        self._interval_s = interval_s
        self._marked = asyncio.Event()
        self._due: set[str] = set()

    def mark(self, session: str) -> None:
        """Emit the session's progress as soon as the rate allows."""
        self._due.add(session)
        self._marked.set()

    async def run(self) -> None:
        """Emit until cancelled: all that is due in one transaction, then nothing for the interval."""
        while True:
            await self._marked.wait()
            self._marked.clear()
            due, self._due = self._due, set()
            await self._emit(due)
            await asyncio.sleep(self._interval_s)

    async def _emit(self, sessions: set[str]) -> None:
        async with self._store.write() as transaction:
            await transaction.expect_events(sessions)
            found = await transaction.rows.scalars(
                select(SessionRow).where(SessionRow.id.in_(sessions))  # not those that were deleted meanwhile
                .options(defer(SessionRow.config), defer(SessionRow.assets))
            )  # fmt: skip
            for row in found.all():
                projection = current_projection(row, self._uplinks)
                row.progress = projection.model_dump(by_alias=True)
                event = progress_event(row.id, projection)
                await transaction.emit(row.id, "training.progress", event.model_dump(by_alias=True))
