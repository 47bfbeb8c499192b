"""The node's outgoing events until the coordinator has stored them: what is kept, what may go. Pure, no I/O.

Events are numbered from 1 within a run. A coordinator that is away for hours costs no record: of the
snapshots only those go whose records all stand in a later one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cotrain.protocol import MAX_MESSAGE_BYTES, Goodbye, StatusMessage
from cotrain.status import Status

MAX_EVENTS = 256
_MAX_MARKS = 16

Event = StatusMessage | Goodbye


@dataclass(frozen=True)
class Entry:
    """An event at its place in the queue; places rise by one and are never used twice."""

    place: int
    event: Event


@dataclass(frozen=True)
class Mark:
    """How far a run has come: the highest event number given out, and the newest snapshot in an event."""

    seq: int = 0
    snapshot: int = -1


def is_superseded(event: Event, later: Iterable[Event]) -> bool:
    """Whether nothing is lost without `event`: the run's next snapshot in `later` holds all its records.

    `Status.records` is a sliding window, so the next snapshot of a run holds the most of an event's records.
    """
    if not isinstance(event, StatusMessage):
        return False
    for other in later:
        if isinstance(other, StatusMessage) and other.run == event.run:
            kept = {record.number for record in other.status.records}
            return all(record.number in kept for record in event.status.records)
    return False


def fit_message(message: StatusMessage, *, limit_bytes: int = MAX_MESSAGE_BYTES) -> list[StatusMessage]:
    """The message in parts of at most `limit_bytes`, with the records divided among them and rising `seq`.

    A single record that is too large loses its data, never its place in the log.
    """
    if len(message.model_dump_json(by_alias=True).encode()) <= limit_bytes:
        return [message]
    records = message.status.records
    if len(records) > 1:
        middle = len(records) // 2
        first = _with_status(message, message.seq, records=records[:middle])
        parts = fit_message(first, limit_bytes=limit_bytes)
        second = _with_status(message, parts[-1].seq + 1, records=records[middle:])
        return parts + fit_message(second, limit_bytes=limit_bytes)
    bare = [record.model_copy(update={"data": {}}) for record in records]
    return [_with_status(message, message.seq, records=bare, addresses=[], baselines={})]


def _with_status(message: StatusMessage, seq: int, **changes: object) -> StatusMessage:
    return message.model_copy(update={"seq": seq, "status": message.status.model_copy(update=changes)})


@dataclass
class Spool:
    """The queue of events that are not yet acknowledged, in the order in which they were added.

    It holds at most `max_events` events, or as many more as carry records that stand in no later one.
    """

    max_events: int = MAX_EVENTS
    entries: list[Entry] = field(default_factory=list)
    marks: dict[str, Mark] = field(default_factory=dict)
    next_place: int = 0

    def add_status(self, status: Status) -> list[Event]:
        """Queue a snapshot; returns the events made of it (none for a snapshot that was queued before)."""
        mark = self.marks.get(status.run, Mark())
        if status.sequence <= mark.snapshot:
            return []
        parts = fit_message(StatusMessage(run=status.run, seq=mark.seq + 1, status=status))
        for part in parts:
            self.restore(part)
        self._merge()
        return list(parts)

    def add_goodbye(self, run: str, reason: str) -> Goodbye:
        """Queue the end of a run."""
        goodbye = Goodbye(run=run, seq=self.marks.get(run, Mark()).seq + 1, reason=reason[:500])
        self.restore(goodbye)
        return goodbye

    def restore(self, event: Event) -> None:
        """Put back an event that already has its number."""
        snapshot = event.status.sequence if isinstance(event, StatusMessage) else -1
        self.restore_mark(event.run, Mark(event.seq, snapshot))
        self.entries.append(Entry(self.next_place, event))
        self.next_place += 1

    def restore_mark(self, run: str, mark: Mark) -> None:
        """Note how far a run has come; the newest 16 runs are remembered besides those that are queued."""
        old = self.marks.pop(run, Mark())
        self.marks[run] = Mark(max(old.seq, mark.seq), max(old.snapshot, mark.snapshot))
        queued = {entry.event.run for entry in self.entries}
        for other in list(self.marks)[:-_MAX_MARKS]:
            if other not in queued:
                del self.marks[other]

    def acknowledge(self, run: str, seq: int) -> int:
        """Drop the run's events up to number `seq`; returns how many went."""
        before = len(self.entries)
        self.entries = [
            entry for entry in self.entries if entry.event.run != run or entry.event.seq > seq
        ]  # fmt: skip
        return before - len(self.entries)

    def next_after(self, place: int) -> Entry | None:
        """The first queued event behind `place` (-1: the first of all)."""
        return next((entry for entry in self.entries if entry.place > place), None)

    def _merge(self) -> None:
        """Let superseded snapshots go, oldest first, until the bound holds."""
        index = 0
        while len(self.entries) > self.max_events and index < len(self.entries):
            later = (entry.event for entry in self.entries[index + 1 :])
            if is_superseded(self.entries[index].event, later):
                del self.entries[index]
            else:
                index += 1
