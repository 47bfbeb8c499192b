"""Emits `training.progress` at a bounded rate: many snapshots become one event, states and logs never do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from coordinator.appender import Appender, table_of
from coordinator.models import SessionRow
from coordinator.projection import Projection, progress_event, project
from coordinator.store import Store
from coordinator.uplinks import Uplinks
from cotrain.status import State, Status


@dataclass(frozen=True)
class Peers:
    """Who is connected to a session now: the newest snapshots, and how many there are."""

    statuses: Sequence[Status]
    connected: int

    @classmethod
    def of(cls, uplinks: Uplinks, session: str) -> Peers:
        """As it is at this moment."""
        return cls(uplinks.statuses(session), len(uplinks.connected(session)))


def current_projection(row: SessionRow, uplinks: Uplinks) -> Projection:
    """The session's progress from its row and from those who are connected now."""
    return project_stored(row.state, row.checkpointer_status, row.progress, Peers.of(uplinks, row.id))


def project_stored(
    state: State, checkpointer: dict[str, Any] | None, previous: dict[str, Any] | None, peers: Peers
) -> Projection:
    """The progress from what is stored of a session, and from its peers. Pure."""
    return project(
        state, Status.model_validate(checkpointer) if checkpointer else None, peers.statuses,
        connected=peers.connected, previous=Projection.model_validate(previous or {}),
    )  # fmt: skip


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
        peers = {session: Peers.of(self._uplinks, session) for session in sessions}
        await self._store.apply(lambda connection, appender: _write_progress(connection, appender, peers))


def _write_progress(connection: Connection, appender: Appender, peers: Mapping[str, Peers]) -> None:
    """Project, store and announce the progress of these sessions; not of those that were deleted meanwhile."""
    appender.expect_events(connection, peers)
    found = connection.execute(
        select(SessionRow.id, SessionRow.state, SessionRow.checkpointer_status, SessionRow.progress)
        .where(SessionRow.id.in_(peers))
    ).all()  # fmt: skip
    changed = []
    for session, state, checkpointer, previous in found:
        projection = project_stored(state, checkpointer, previous, peers[session])
        changed.append({"of": session, "progress": projection.model_dump(by_alias=True)})
        told = progress_event(session, projection).model_dump(by_alias=True)
        appender.emit(session, "training.progress", told)
    if changed:
        table = table_of(SessionRow)
        connection.execute(update(table).where(table.c.id == bindparam("of")), changed)
