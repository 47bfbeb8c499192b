"""StatusWatcher: folders of status.json -> a stream of snapshots.

Directories are watched, never the files: each snapshot replaces its file, and a watch on a file goes with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from watchfiles import Change, awatch

from cotrain.paths import STATUS_FILE
from cotrain.status import Status, read_status

logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it logs every change, several a second for each session

_DEBOUNCE_MS = 50
_STEP_MS = 10
_POLL_MS = 100
_RESCAN_S = 1.0
_RETRY_S = 0.05

_Signature = tuple[int, int, int]
"""Inode, time of modification and size of a file."""


@dataclass(frozen=True)
class StatusChange:
    """A new snapshot, or (`stale`) the last good one of a file that cannot be read at present."""

    path: Path
    status: Status
    stale: bool


def accept(previous: Status | None, new: Status) -> bool:
    """Whether `new` is news: the first snapshot, one of another run, or a later one of the same run."""
    return previous is None or new.run != previous.run or new.sequence > previous.sequence


class StatusWatcher:
    """Follows every `status.json` in any folder below `root`, which is made if it is not there.

    Args:
        root: folder to watch; folders below it may appear and vanish at any time.
        poll: look at the files at intervals instead of asking the kernel (network file systems).
    """

    def __init__(self, root: Path, *, poll: bool = False):
        self._root = root
        self._poll = poll
        self._last: dict[Path, Status] = {}
        self._stale: set[Path] = set()
        self._signatures: dict[Path, _Signature] = {}

    async def changes(self) -> AsyncIterator[StatusChange]:
        """First what is already there, then every change, for ever. Each snapshot is yielded once.

        Snapshots written faster than they are read coalesce to the newest; `Status.sequence` shows the gap.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        async with aclosing(self._file_events()) as events:
            upcoming = asyncio.ensure_future(anext(events))
            # The watches are installed in the first step of `events`; only then can the scan miss nothing.
            await asyncio.sleep(0)
            try:
                paths = find_status_files(self._root)
                while True:
                    for change in await self._read_all(paths):
                        yield change
                    paths = await upcoming
                    upcoming = asyncio.ensure_future(anext(events))
            finally:
                upcoming.cancel()
                await asyncio.gather(upcoming, return_exceptions=True)

    async def _file_events(self) -> AsyncGenerator[list[Path], None]:
        """Paths of status files that may have changed: by events, and by a scan every second."""
        watching = awatch(
            self._root, watch_filter=_is_relevant, debounce=_DEBOUNCE_MS, step=_STEP_MS, recursive=True,
            force_polling=True if self._poll else None, poll_delay_ms=_POLL_MS,
            rust_timeout=int(_RESCAN_S * 1000), yield_on_timeout=True, ignore_permission_denied=True,
        )  # fmt: skip
        scanned_at = time.monotonic()
        async for events in watching:
            paths = _status_files_of(path for _, path in events)
            if not events or time.monotonic() - scanned_at >= _RESCAN_S:
                # The kernel tells nothing of a file that was written into a new folder before the watch on
                # that folder was in place, and polling nothing of a second change within a second.
                paths.update(path for path in find_status_files(self._root) if self._looks_new(path))
                scanned_at = time.monotonic()
            yield sorted(paths)

    async def _read_all(self, paths: list[Path]) -> list[StatusChange]:
        changes, unreadable = self._read(paths)
        if unreadable:
            await asyncio.sleep(_RETRY_S)
            more, unreadable = self._read(unreadable)
            changes += more
        return changes + self._mark_stale(unreadable)

    def _read(self, paths: Iterable[Path]) -> tuple[list[StatusChange], list[Path]]:
        """What is new in `paths`, and the files that could not be read."""
        changes: list[StatusChange] = []
        unreadable: list[Path] = []
        for path in paths:
            try:
                self._signatures[path] = _signature(path)
                status = _read_regular(path)
            except FileNotFoundError:
                self._forget(path)
                continue
            except (OSError, ValueError):  # pydantic's ValidationError is a ValueError
                unreadable.append(path)
                continue
            recovered = path in self._stale and status == self._last[path]
            self._stale.discard(path)
            if recovered or accept(self._last.get(path), status):
                self._last[path] = status
                changes.append(StatusChange(path, status, stale=False))
        return changes, unreadable

    def _mark_stale(self, paths: Iterable[Path]) -> list[StatusChange]:
        news = [path for path in paths if path in self._last and path not in self._stale]
        self._stale.update(news)
        return [StatusChange(path, self._last[path], stale=True) for path in news]

    def _looks_new(self, path: Path) -> bool:
        """Whether the file is another one than was read last: every snapshot is a new file."""
        try:
            return self._signatures.get(path) != _signature(path)
        except FileNotFoundError:
            return path in self._last

    def _forget(self, path: Path) -> None:
        self._signatures.pop(path, None)
        self._last.pop(path, None)
        self._stale.discard(path)


def find_status_files(root: Path) -> list[Path]:
    """Every `status.json` below `root`, sorted; linked folders are not entered."""
    found = [Path(folder) / STATUS_FILE for folder, _, names in os.walk(root) if STATUS_FILE in names]
    return sorted(found)


def _signature(path: Path) -> _Signature:
    facts = path.lstat()
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


def _read_regular(path: Path) -> Status:
    """Raises OSError or ValueError; a pipe or a device is refused before it could block the reader."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(f"{path} is not a regular file")
    return read_status(path)


def _is_relevant(change: Change, path: str) -> bool:
    return os.path.basename(path) == STATUS_FILE or (change is Change.added and os.path.isdir(path))


def _status_files_of(paths: Iterable[str]) -> set[Path]:
    """Status files that events on `paths` speak of; for a new folder, those that it already holds."""
    found: set[Path] = set()
    for name in paths:
        path = Path(name)
        found.update([path] if path.name == STATUS_FILE else find_status_files(path))
    return found
