"""Emits `training.progress` at a bounded rate: many snapshots become one event, states and logs never do."""

from __future__ import annotations

import asyncio
import time

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
        self._due: dict[str, None] = {}
        self._emitted_at: dict[str, float] = {}

    def mark(self, session: str) -> None:
        """Emit the session's progress as soon as the rate allows."""
        self._due[session] = None
        self._marked.set()

    async def run(self) -> None:
        """Emit until cancelled."""
        while True:
            await self._marked.wait()
            self._marked.clear()
            clock = time.monotonic()
            for session in [s for s in self._due if self._wait_s(s, clock) <= 0]:
                del self._due[session]
                self._emitted_at[session] = clock
                await self._emit(session)
            self._forget(clock)
            if self._due:
                await self._next_due()

    async def _next_due(self) -> None:
        clock = time.monotonic()
        await asyncio.sleep(max(0.0, min(self._wait_s(session, clock) for session in self._due)))
        self._marked.set()

    def _wait_s(self, session: str, clock: float) -> float:
        return self._emitted_at.get(session, float("-inf")) + self._interval_s - clock

    def _forget(self, clock: float) -> None:
        """Sessions that have been quiet may emit at once anyway."""
        self._emitted_at = {s: at for s, at in self._emitted_at.items() if clock - at < self._interval_s}

    async def _emit(self, session: str) -> None:
        async with self._store.write() as transaction:
            row = await transaction.rows.get(SessionRow, session)
            if row is None:  # deleted meanwhile
                return
            projection = current_projection(row, self._uplinks)
            row.progress = projection.model_dump(by_alias=True)
            event = progress_event(session, projection)
            await transaction.emit(session, "training.progress", event.model_dump(by_alias=True))
