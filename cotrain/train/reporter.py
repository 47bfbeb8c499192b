"""What a run tells its supervisor: `status.json` out, `control.json` in. Inner steps never wait for the disk."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from cotrain.paths import CONTROL_FILE, STATUS_FILE
from cotrain.status import (
    MAX_RECORDS,
    MAX_RECORDS_BYTES,
    Phase,
    Record,
    RecordKind,
    State,
    Status,
    WishName,
    iso_now,
    now,
    process_rate,
    read_control,
    write_status,
)

logger = logging.getLogger(__name__)


class StatusReporter:
    """Keeps the snapshot of a run and writes it from a thread: at most once an interval, at once for what matters."""

    def __init__(
        self, folder: Path | None, *, session: str, peer: str, interval_s: float = 1.0,
        on_write: Callable[[Status], None] | None = None,
    ):  # fmt: skip
        """Snapshots go to `folder/status.json`, under a new run id, and to `on_write`, in the reporter's thread.

        Without a folder they are kept only: a node's ranks but the first have nothing of their own to tell.
        """
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._path = None if folder is None else folder / STATUS_FILE
        self._interval_s, self._on_write = interval_s, on_write
        self._status = Status(
            session=session, peer=peer, run=uuid.uuid4().hex, sequence=0, updated_at=now(), status="waiting",
            phase="starting",
        )  # fmt: skip
        self._pending: dict[str, Any] = {}
        self._records: list[Record] = []
        self._lock = threading.Lock()
        self._urgent = threading.Event()
        self._stopping = False
        self._dirty = True
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def start(self) -> None:
        """Begin to write. Start it only after the last fork of the process."""
        self._thread.start()

    @property
    def status(self) -> Status:
        """The snapshot as it is now."""
        with self._lock:
            return self._merge()

    def update(self, **fields: Any) -> None:
        """Change fields of the snapshot; written within the interval. Cheap enough for every inner step."""
        with self._lock:
            self._pending.update(fields)
            self._dirty = True

    def phase(self, phase: Phase, state: State | None = None, *, message: str = "", **fields: Any) -> None:
        """Enter a phase; written at once. A message makes it a record of the training log."""
        with self._lock:
            before = self._merge()
            changed = (phase, state or before.status) != (before.phase, before.status)
            if state is not None:
                fields["status"] = state
            self._pending.update(fields, phase=phase)
            self._dirty = True
            if phase == "done":
                self._begin_wait("")
            self._merge()
            if message:
                self._add_record("phase", message, "info", {"phase": phase, "status": self._status.status})
        if changed or message:
            self._urgent.set()

    def record(
        self, kind: RecordKind, message: str, *, level: Literal["info", "warning", "error"] = "info",
        data: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Add a record to the training log; written at once."""
        with self._lock:
            self._add_record(kind, message, level, data or {})
        self._urgent.set()

    def wait(self, what: str) -> None:
        """This is waited for from now on, which is recorded; empty: nothing is any more."""
        with self._lock:
            if not self._begin_wait(what):
                return
            if what:
                self._add_record("log", f"waiting for {what}", "info", {})
        self._urgent.set()

    def idle(self, what: str) -> None:
        """What a wait that comes in every round is for. Not recorded, and nothing where another wait has been told."""
        with self._lock:
            if not self._merge().waiting_for:
                self._begin_wait(what)

    def flush(self) -> None:
        """Write the snapshot now, in this thread: for before `start`."""
        self._write()

    def stop(self) -> None:
        """Write the last snapshot and end the thread."""
        self._stopping = True
        self._urgent.set()
        if self._thread.is_alive():
            self._thread.join()
        self._write()

    # ------------------------------------------------------------------------------------------ under the lock
    def _merge(self) -> Status:
        """Build the snapshot from what has changed since the last one; progress never falls."""
        if self._pending:
            merged = self._status.model_copy(update=self._pending)
            done = merged.samples_committed + merged.samples_pending
            rate = process_rate(merged.phase, done, merged.samples_wanted)
            if merged.phase == "done" and merged.status != "completed":
                rate = 0.0  # it ended where it was
            self._status = merged.model_copy(update={"process_rate": max(rate, self._status.process_rate)})
            self._pending = {}
        return self._status

    def _begin_wait(self, what: str) -> bool:
        if what == self._merge().waiting_for:
            return False
        self._pending.update(waiting_for=what, waiting_since=now() if what else None)
        self._dirty = True
        return True

    def _add_record(self, kind: RecordKind, message: str, level: Any, data: dict[str, Any]) -> None:
        number = self._records[-1].number + 1 if self._records else 1
        entry = Record(number=number, time=now(), kind=kind, message=message[:1000], level=level, data=data)
        self._records = _newest([*self._records, entry])
        self._pending["records"] = self._records
        self._dirty = True

    # ------------------------------------------------------------------------------------------ the thread
    def _run(self) -> None:
        while not self._stopping:
            self._urgent.wait(self._interval_s)
            self._urgent.clear()
            self._write()

    def _write(self) -> None:
        with self._lock:
            if not self._dirty:
                return
            self._dirty = False
            self._merge()
            sequence = self._status.sequence + 1
            stamp: dict[str, Any] = {"sequence": sequence, "updated_at": now()}
            if self._status.status == "training":
                stamp["last_train_at"] = iso_now()
            self._status = snapshot = self._status.model_copy(update=stamp)
        if self._on_write is not None:
            self._on_write(snapshot)
        if self._path is None:
            return
        try:
            write_status(self._path, snapshot)
        except OSError as error:  # a full disk must not end a training run
            logger.warning("status.json could not be written: %s", error)


def _newest(records: list[Record]) -> list[Record]:
    """As many as a snapshot has room for, and the last one at least."""
    first, size = len(records) - 1, len(records[-1].model_dump_json(by_alias=True).encode())
    while first > max(0, len(records) - MAX_RECORDS):
        size += len(records[first - 1].model_dump_json(by_alias=True).encode())
        if size > MAX_RECORDS_BYTES:
            break
        first -= 1
    return records[first:]


class ControlFile:
    """The wish in `control.json`, read again only when the file has changed."""

    def __init__(self, folder: Path):
        self._path = folder / CONTROL_FILE
        self._seen: tuple[int, int] | None = None
        self._wish: WishName = "run"

    def wish(self) -> WishName:
        """What is wished now; costs one `stat` when nothing has changed."""
        try:
            stat = self._path.stat()
        except OSError:
            return "run"
        mark = (stat.st_mtime_ns, stat.st_ino)
        if mark != self._seen:
            self._seen, self._wish = mark, read_control(self._path).wish
        return self._wish
