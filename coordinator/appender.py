"""What one transaction appends: events with their numbers, and other rows that nothing in it reads.

Synchronous, since all of it is computing and a few statements: coroutines run it on their transaction's connection.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select

from coordinator.models import Base, EventRow, SessionRow
from cotrain.protocol import Event, EventType
from cotrain.status import now

_PROGRESS_KEPT = 2048
_PRUNE_EVERY = 256


class Appender:
    """Rows that are written together at the end of their transaction."""

    def __init__(self) -> None:
        self.events: defaultdict[str, list[Event]] = defaultdict(list)
        self._appended: defaultdict[type[Base], list[dict[str, Any]]] = defaultdict(list)
        self._stored_seq: dict[str, int] = {}
        """The newest event of each session before this transaction."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing was appended."""
        return not self._appended

    def expects(self, session: str) -> bool:
        """Whether events of this session can be appended."""
        return session in self._stored_seq

    def expect_events(self, connection: Connection, sessions: Collection[str]) -> None:
        """Look up where the logs of these sessions end; to be done before the first event of each."""
        newest = select(func.max(EventRow.seq)).where(EventRow.session_id == SessionRow.id).scalar_subquery()
        found = connection.execute(select(SessionRow.id, newest).where(SessionRow.id.in_(set(sessions))))
        self._stored_seq |= dict.fromkeys(sessions, 0) | {session: seq or 0 for session, seq in found}

    def emit(self, session: str, kind: EventType, data: dict[str, Any]) -> Event:
        """Append to the log of a session that is expected; listeners hear of it after the commit."""
        listed = self.events[session]
        entry = Event(seq=self._stored_seq[session] + len(listed) + 1, time=now(), type=kind, data=data)
        listed.append(entry)
        values = {"session_id": session, "seq": entry.seq, "time": entry.time, "type": entry.type, "data": entry.data}
        self.append(EventRow, values)
        return entry

    def append(self, kind: type[Base], values: dict[str, Any]) -> None:
        """Add a row that nothing in this transaction reads: it is written with all others of its kind at the end.

        What it refers to must be stored or flushed.
        """
        self._appended[kind].append(values)

    def finish(self, connection: Connection) -> None:
        """Write what was appended; the commit follows."""
        for kind, rows in self._appended.items():
            connection.execute(insert(table_of(kind)), rows)
        for session, events in self.events.items():
            _prune(connection, session, events[0].seq - 1, events[-1].seq)


def table_of(kind: type[Base]) -> Table:
    """The table of mapped rows: as mapped objects many rows would take four times as long to write."""
    return kind.metadata.tables[kind.__tablename__]


def _prune(connection: Connection, session: str, before: int, newest: int) -> None:
    """Old progress says nothing that a newer one does not; states and logs are kept for good."""
    pruned = before - before % _PRUNE_EVERY
    if newest < pruned + _PRUNE_EVERY:
        return
    # what is older was looked at when event `pruned` was written, so that a long log costs no more than a short one
    connection.execute(
        delete(EventRow).where(
            EventRow.session_id == session, EventRow.seq >= pruned - _PROGRESS_KEPT,
            EventRow.seq < newest - _PROGRESS_KEPT, EventRow.type == "training.progress",
        )
    )  # fmt: skip
