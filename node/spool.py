"""The node's outgoing events until the coordinator has stored them: what is kept, what may go. Pure, no I/O.

Events are numbered from 1 within a run. A coordinator that is away for hours costs no record: snapshots are merged into
later ones, the oldest first. One that is away for days costs the oldest progress; in its place a record says how much
of it is missing. Changes of state, the end of a run and each run's last snapshot are never given up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cotrain.protocol import MAX_MESSAGE_BYTES, Goodbye, StatusMessage
from cotrain.status import Status
from node.events import Event, fit_message, merged, missing_in, size_of, thinned

MAX_EVENTS = 256
MAX_BYTES = 8 * 2**20
"""Of the messages that carry them."""
_MAX_MARKS = 16


@dataclass(frozen=True)
class Entry:
    """An event at its place in the queue; places rise by one and are never used twice.

    Attributes:
        size_bytes: of the message that carries it.
    """

    place: int
    event: Event
    size_bytes: int


@dataclass(frozen=True)
class Mark:
    """How far a run has come: the highest event number given out, and the newest snapshot in an event."""

    seq: int = 0
    snapshot: int = -1


@dataclass
class Spool:
    """The queue of events that are not yet acknowledged, in the order in which they were added.

    It holds at most `max_events` events and `max_bytes` bytes, or what may not be given up if that is more: changes of
    state, goodbyes, each run's last snapshot.

    Attributes:
        merged: snapshots that went into later ones.
        dropped: records of progress that were given up.
    """

    max_events: int = MAX_EVENTS
    max_bytes: int = MAX_BYTES
    message_bytes: int = MAX_MESSAGE_BYTES
    entries: list[Entry] = field(default_factory=list)
    marks: dict[str, Mark] = field(default_factory=dict)
    next_place: int = 0
    merged: int = 0
    dropped: int = 0
    _stored: dict[str, int] = field(default_factory=dict)
    """Number of the last record that the coordinator has of each run, as far as this process has heard."""
    _given_up: dict[str, int] = field(default_factory=dict)
    """Number of the last record of each run that has been told to be missing."""
    _full: set[int] = field(default_factory=set)
    """Places of messages that did not fit into the next one: to try costs time."""

    @property
    def size_bytes(self) -> int:
        """Of the messages that carry its events."""
        return sum(entry.size_bytes for entry in self.entries)

    @property
    def is_over(self) -> bool:
        """Whether it holds more than it should."""
        return len(self.entries) > self.max_events or self.size_bytes > self.max_bytes

    def add_status(self, status: Status) -> list[Event]:
        """Queue a snapshot; returns the events made of it (none for a snapshot that was queued before)."""
        mark = self.marks.get(status.run, Mark())
        if status.sequence <= mark.snapshot:
            return []
        gone = self._given_up.get(status.run, 0)
        records = [record for record in status.records if record.number > gone]
        message = StatusMessage(run=status.run, seq=mark.seq + 1, status=status.model_copy(update={"records": records}))
        parts = fit_message(message, limit_bytes=self.message_bytes)
        for part in parts:
            self.restore(part)
        self.shrink()
        return list(parts)

    def add_goodbye(self, run: str, reason: str) -> Goodbye:
        """Queue the end of a run."""
        goodbye = Goodbye(run=run, seq=self.marks.get(run, Mark()).seq + 1, reason=reason[:500])
        self.restore(goodbye)
        self.shrink()
        return goodbye

    def restore(self, event: Event) -> None:
        """Put back an event that already has its number."""
        snapshot = event.status.sequence if isinstance(event, StatusMessage) else -1
        self.restore_mark(event.run, Mark(event.seq, snapshot))
        if isinstance(event, StatusMessage):
            self._give_up(event)
        self.entries.append(Entry(self.next_place, event, size_of(event)))
        self.next_place += 1

    def restore_mark(self, run: str, mark: Mark) -> None:
        """Note how far a run has come; the newest 16 runs are remembered besides those that are queued."""
        old = self.marks.pop(run, Mark())
        self.marks[run] = Mark(max(old.seq, mark.seq), max(old.snapshot, mark.snapshot))
        queued = {entry.event.run for entry in self.entries}
        for other in list(self.marks)[:-_MAX_MARKS]:
            if other not in queued:
                del self.marks[other]
                self._stored.pop(other, None)
                self._given_up.pop(other, None)

    def acknowledge(self, run: str, seq: int) -> int:
        """Drop the run's events up to number `seq`; returns how many went."""
        gone = [entry for entry in self.entries if entry.event.run == run and entry.event.seq <= seq]
        if gone:
            places = {entry.place for entry in gone}
            self.entries = [entry for entry in self.entries if entry.place not in places]
            self._full -= places
            self._note_stored(run, [entry.event for entry in gone])
        return len(gone)

    def _note_stored(self, run: str, events: Sequence[Event]) -> None:
        numbers = [
            record.number for event in events if isinstance(event, StatusMessage) for record in event.status.records
        ]
        self._stored[run] = max([self._stored.get(run, 0), *numbers])

    def next_after(self, place: int) -> Entry | None:
        """The first queued event behind `place` (-1: the first of all)."""
        return next((entry for entry in self.entries if entry.place > place), None)

    # ---------------------------------------------------------------------------------------------- the bounds
    def shrink(self) -> None:
        """Keep the bounds: merge what can be merged without a loss, then give progress up; the oldest first."""
        while self.is_over and (self._merge_oldest() or self._thin_oldest()):
            pass

    def _merge_oldest(self) -> bool:
        """Let the first snapshot that fits into the run's next one go into it; False if there is none."""
        for index, entry in enumerate(self.entries):
            if entry.place in self._full or (later := self._later(index)) is None:
                continue
            following = self.entries[later].event
            assert isinstance(entry.event, StatusMessage)
            assert isinstance(following, StatusMessage)
            union = merged(entry.event, following, known=self._known(index))
            if (size_bytes := size_of(union)) > self.message_bytes:
                self._full.add(entry.place)
                continue
            self.entries[later] = Entry(self.entries[later].place, union, size_bytes)
            self._full.discard(self.entries[later].place)
            del self.entries[index]
            self.merged += 1
            return True
        return False

    def _thin_oldest(self) -> bool:
        """Give up the progress in the first message that is smaller without; False if there is none."""
        too_large = self.size_bytes > self.max_bytes
        for index, entry in enumerate(self.entries):
            # a message alone brings the number of events down only if it can then go into the next one
            if not isinstance(entry.event, StatusMessage) or not (too_large or entry.place in self._full):
                continue
            later = self._later(index)
            following = None if later is None else self.entries[later].event
            assert not isinstance(following, Goodbye)
            for thin in thinned(entry.event, following, known=self._known(index)):
                if (size_bytes := size_of(thin)) < entry.size_bytes:
                    self.dropped += _missing(thin) - _missing(entry.event)
                    self._give_up(thin)
                    self.entries[index] = Entry(entry.place, thin, size_bytes)
                    self._full -= {other.place for other in self.entries[: index + 1] if other.event.run == thin.run}
                    return True
        return False

    def _give_up(self, message: StatusMessage) -> None:
        """What a message says to be missing must not come in a later snapshot of the run, whose records overlap."""
        numbers = [record.number for record in message.status.records if missing_in(record)]
        self._given_up[message.run] = max([self._given_up.get(message.run, 0), *numbers])

    def _known(self, index: int) -> int:
        """Number of the run's last record that the coordinator has, or gets before the message at this place."""
        run = self.entries[index].event.run
        before = [entry.event for entry in self.entries[:index] if entry.event.run == run]
        numbers = [
            event.status.records[-1].number
            for event in before
            if isinstance(event, StatusMessage) and event.status.records
        ]
        return max([self._stored.get(run, 0), *numbers])

    def _later(self, index: int) -> int | None:
        """Where the next snapshot of the same run is; None for a goodbye, and for a snapshot that none follows."""
        event = self.entries[index].event
        for place in range(index + 1, len(self.entries) if isinstance(event, StatusMessage) else 0):
            other = self.entries[place].event
            if other.run == event.run:
                return place if isinstance(other, StatusMessage) else None
        return None


def _missing(message: StatusMessage) -> int:
    return sum(map(missing_in, message.status.records))
