"""What may become of events that wait for the coordinator: divided, merged into later ones, thinned. Pure, no I/O.

A run's changes of state are its records of kind `phase`; all else that it records is progress.
"""

from __future__ import annotations

from collections.abc import Sequence

from cotrain.protocol import MAX_MESSAGE_BYTES, Goodbye, StatusMessage
from cotrain.status import Record

Event = StatusMessage | Goodbye

MISSING = "missingRecords"
"""In the data of a record that stands for others: how many."""


def size_of(event: Event) -> int:
    """Bytes of the message that carries it."""
    return len(event.model_dump_json(by_alias=True).encode())


def fit_message(message: StatusMessage, *, limit_bytes: int = MAX_MESSAGE_BYTES) -> list[StatusMessage]:
    """The message in parts of at most `limit_bytes`, with the records divided among them and rising `seq`.

    A single record that is too large loses its data, never its place in the log.
    """
    if size_of(message) <= limit_bytes:
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


def merged(message: StatusMessage, later: StatusMessage, *, known: int = 0) -> StatusMessage:
    """The run's next message with the records of this one in front of its own: nothing is lost but old figures.

    Args:
        known: number of the run's last record that the coordinator has, or gets in an earlier message.
    """
    records = _with_one_gap([*_own_records(message, later, known), *later.status.records])
    return _with_status(later, later.seq, records=records)


def thinned(message: StatusMessage, later: StatusMessage | None, *, known: int = 0) -> list[StatusMessage]:
    """The message without the older half of its progress, and without any: a record says how much is missing.

    What it had in common with others is left out, too. A message without progress only loses that.

    Args:
        later: the run's next message; what stands in it is not missing.
        known: number of the run's last record that the coordinator has, or gets in an earlier message.
    """
    own = _own_records(message, later, known)
    progress = [record for record in own if record.kind != "phase" and not missing_in(record)]
    counts = sorted({(len(progress) + 1) // 2, len(progress)})
    return [_with_status(message, message.seq, records=_without(own, progress[:count])) for count in counts]


def _without(records: Sequence[Record], given_up: Sequence[Record]) -> list[Record]:
    """The records with one in the place of those that are given up, which takes in what such a one stood for before."""
    if not given_up:
        return list(records)
    last = given_up[-1].number
    gap = _gap(given_up[-1], len(given_up))
    gone = {record.number for record in given_up}
    return _with_one_gap([gap if r.number == last else r for r in records if r.number == last or r.number not in gone])


def missing_in(record: Record) -> int:
    """For how many others it stands; 0 for a record of the run itself."""
    count = record.data.get(MISSING)
    return count if record.kind == "log" and isinstance(count, int) else 0


def _own_records(message: StatusMessage, later: StatusMessage | None, known: int) -> list[Record]:
    """Those that come neither before nor in the run's next message: records are a window that slides."""
    following = later.status.records if later is not None else []
    return [
        record
        for record in message.status.records
        if record.number > known and (not following or record.number < following[0].number)
    ]


def _with_one_gap(records: Sequence[Record]) -> list[Record]:
    """The records with the last of those that stand for others in the place of them all."""
    gaps = [record for record in records if missing_in(record)]
    if len(gaps) < 2:
        return list(records)
    whole = _gap(gaps[-1], sum(map(missing_in, gaps)))
    return [whole if r.number == whole.number else r for r in records if not missing_in(r) or r is gaps[-1]]


def _gap(last: Record, count: int) -> Record:
    """A record in the place of the last one that is missing: numbers go on rising."""
    plural = "1 record is" if count == 1 else f"{count} records are"
    return Record(
        number=last.number, time=last.time, kind="log", level="warning", data={MISSING: count},
        message=f"{plural} missing: the coordinator was away for longer than this node keeps its progress",
    )  # fmt: skip


def _with_status(message: StatusMessage, seq: int, **changes: object) -> StatusMessage:
    return message.model_copy(update={"seq": seq, "status": message.status.model_copy(update=changes)})
