"""SpoolFile: a Spool that survives its process, as an append-only file of JSON lines.

Every change is handed to the kernel at once, so that it outlives `kill -9` of the agent; it is flushed to the
disk at most every half second, off the event loop. A full or broken disk costs durability, never training:
the queue lives on in memory and the file is written anew when that works again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from cotrain.errors import storage_hint
from cotrain.protocol import Goodbye, StatusMessage
from cotrain.request import CamelModel
from cotrain.status import Status
from node.events import Event
from node.spool import MAX_BYTES, Entry, Mark, Spool

_FLUSH_INTERVAL_S = 0.5
_REWRITE_AFTER_LINES = 1024
_REWRITE_AFTER_BYTES = 2 * MAX_BYTES

_log = logging.getLogger(__name__)


class Position(CamelModel):
    """A place in a run's events."""

    run: str
    seq: int
    snapshot: int = -1


class Line(CamelModel):
    """One line of the file: an event, what was acknowledged, or how far a run has come."""

    event: Annotated[StatusMessage | Goodbye | None, Field(discriminator="type")] = None
    acknowledged: Position | None = None
    mark: Position | None = None


def dump_line(line: Line) -> bytes:
    return line.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n"


def load_lines(content: bytes) -> tuple[Spool, int]:
    """The queue that the lines of a file leave behind, and the number of lines that could not be read.

    The last line may be half written: the process was killed in the middle of it.
    """
    spool, broken = Spool(), 0
    for raw in content.splitlines():
        try:
            line = Line.model_validate_json(raw)
        except ValidationError:
            broken += 1
            continue
        if line.event is not None:
            spool.restore(line.event)
        if line.mark is not None:
            spool.restore_mark(line.mark.run, Mark(line.mark.seq, line.mark.snapshot))
        if line.acknowledged is not None:
            spool.acknowledge(line.acknowledged.run, line.acknowledged.seq)
    return spool, broken


def dump_spool(spool: Spool) -> bytes:
    """The shortest file that leaves the same queue behind."""
    marks = [Line(mark=Position(run=run, seq=mark.seq, snapshot=mark.snapshot)) for run, mark in spool.marks.items()]
    events = [Line(event=entry.event) for entry in spool.entries]
    return b"".join(dump_line(line) for line in [*marks, *events])


def write_anew(path: Path, content: bytes) -> int:
    """Replace the file, flushed to the disk; returns a descriptor that appends to it. Raises OSError."""
    temporary = path.with_name(f".{path.name}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        with os.fdopen(descriptor, "ab", closefd=False) as file:
            file.write(content)
        os.fsync(descriptor)
        os.replace(temporary, path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class SpoolFile:
    """The node's queue on disk. Everything but `flush_forever` runs on the event loop and returns at once."""

    def __init__(self, path: Path):
        """Open or make the file; what an earlier process left in it is queued again. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = path
        content = path.read_bytes() if path.exists() else b""
        self._spool, broken = load_lines(content)
        if broken:
            _log.warning("%s: %d lines could not be read and are left out", path, broken)
        self._changed = asyncio.Event()
        self._dirty = asyncio.Event()
        self._lines = self._bytes = 0
        self._told_dropped = 0
        self._file_is_behind = self._told_failure = False
        self._held: list[bytes] | None = None
        self._spool.shrink()  # what is restored is whole: merges are not in the file
        self._descriptor = write_anew(path, dump_spool(self._spool))
        self._tell_dropped()

    @property
    def is_empty(self) -> bool:
        """Whether everything has been acknowledged."""
        return not self._spool.entries

    def __len__(self) -> int:
        return len(self._spool.entries)

    def next_after(self, place: int) -> Entry | None:
        """See Spool.next_after."""
        return self._spool.next_after(place)

    def add_status(self, status: Status) -> None:
        """Queue a snapshot; one that was queued before is ignored."""
        self._append([Line(event=event) for event in self._spool.add_status(status)])
        self._tell_dropped()

    def add_goodbye(self, run: str, reason: str) -> None:
        """Queue the end of a run."""
        event: Event = self._spool.add_goodbye(run, reason)
        self._append([Line(event=event)])

    def acknowledge(self, run: str, seq: int) -> None:
        """The coordinator has stored the run's events up to `seq`."""
        if self._spool.acknowledge(run, seq):
            self._append([Line(acknowledged=Position(run=run, seq=seq))])

    async def wait_changed(self) -> None:
        """Until an event is added or acknowledged."""
        self._changed.clear()
        await self._changed.wait()

    async def wait_empty(self) -> None:
        """Until everything has been acknowledged."""
        while not self.is_empty:
            await self.wait_changed()

    async def flush_forever(self) -> None:
        """Bring changes to the disk, at most every half second."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            if self._file_is_behind or self._is_long:
                await self._rewrite()
            try:
                await asyncio.to_thread(os.fsync, self._descriptor)
            except OSError as error:
                self._note_failure(error)
            await asyncio.sleep(_FLUSH_INTERVAL_S)

    def close(self) -> None:
        """Flush and close; for the end of the process."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self._note_failure(error)
        os.close(self._descriptor)

    @property
    def _is_long(self) -> bool:
        """Whether the file has grown by much more than the queue that it stands for."""
        return self._lines > _REWRITE_AFTER_LINES + len(self) or self._bytes > _REWRITE_AFTER_BYTES

    def _tell_dropped(self) -> None:
        """Say that progress is given up: when it begins, and each time when it has become twice as much."""
        if self._spool.dropped < max(1, 2 * self._told_dropped):
            return
        self._told_dropped = self._spool.dropped
        _log.warning(
            "the coordinator has been away for so long that the oldest progress is given up: %d records so far, %d "
            "snapshots merged; changes of state are kept",
            self._spool.dropped, self._spool.merged,
        )  # fmt: skip

    def _append(self, lines: list[Line]) -> None:
        if not lines:
            return
        self._lines += len(lines)
        content = b"".join(dump_line(line) for line in lines)
        self._bytes += len(content)
        if self._held is not None:
            self._held.append(content)
        elif not self._file_is_behind:
            self._write(content)
        self._dirty.set()
        self._changed.set()

    def _write(self, content: bytes) -> None:
        try:
            written = os.write(self._descriptor, content)
        except OSError as error:
            self._note_failure(error)
        else:
            if written < len(content):
                self._file_is_behind = True

    async def _rewrite(self) -> None:
        """Replace the file by the shortest one; what is added meanwhile is held back, then appended."""
        self._held = []
        lines, before_bytes = len(self), self._bytes
        try:
            descriptor = await asyncio.to_thread(write_anew, self._path, dump_spool(self._spool))
        except OSError as error:
            self._held = None
            self._note_failure(error)
            return
        os.close(self._descriptor)
        self._descriptor, self._lines, self._file_is_behind = descriptor, lines, False
        self._bytes -= before_bytes
        self._told_failure = False
        held, self._held = self._held, None
        self._write(b"".join(held))

    def _note_failure(self, error: OSError) -> None:
        if not self._told_failure:  # a write that was cut short has told nothing yet
            hint = f" ({what})" if (what := storage_hint(error)) else ""
            _log.warning(
                "%s cannot be written (%s): events are kept in memory until it can%s",
                self._path, error.strerror, hint,
            )  # fmt: skip
        self._file_is_behind = self._told_failure = True
        self._dirty.set()
