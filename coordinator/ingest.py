"""Applies snapshots, once each: a participant's by (run, seq), the checkpointer's by (run, sequence).

Participants' messages are committed in groups: what has arrived from all uplinks while the commit before was under way
goes into one transaction, so that a thousand uplinks cost little more than a few.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import select, tuple_
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import defer

from coordinator.contributions import count_rounds
from coordinator.models import MetricRow, ParticipantRow, RunRow, SessionRow
from coordinator.participants import announce
from coordinator.progress import ProgressPump
from coordinator.projection import mean, total_speed
from coordinator.sessions import change_state
from coordinator.store import Store, Transaction
from coordinator.suspicions import Suspicions
from coordinator.training_log import add_records, run_row
from coordinator.uplinks import Uplink, Uplinks
from cotrain.errors import NotFoundError, ProtocolError
from cotrain.protocol import Goodbye, StatusMessage
from cotrain.status import Record, Status, now

CHECKPOINTER = "checkpointer"

RunKey = tuple[str, str, str]
"""Session, participant, run."""

_logger = logging.getLogger(__name__)

_GROUP_LIMIT = 256
"""Uplinks whose messages are committed together at most: others wait for it, and so does the event loop."""
_GROUP_INTERVAL_S = 0.025
"""Least time between the beginnings of two groups; a message that comes after a pause does not wait."""


@dataclass(eq=False)
class _Batch:
    """What has arrived from one uplink, to be applied in order."""

    session: str
    uplink: Uplink
    messages: Sequence[StatusMessage | Goodbye]
    done: asyncio.Future[dict[str, int]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def fail(self, error: Exception) -> None:
        """Tell whoever waits, if he still does."""
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(frozen=True)
class _Applied:
    """What one batch has changed.

    Attributes:
        acknowledged: the highest applied `seq` of each run in it.
        newest: the newest snapshot, None if all were known.
    """

    acknowledged: dict[str, int]
    newest: Status | None


@dataclass(frozen=True)
class _Rows:
    """The rows that a group needs; a session or a participant that is missing has been deleted."""

    sessions: dict[str, SessionRow]
    participants: dict[str, ParticipantRow]
    runs: dict[RunKey, RunRow]


class Ingest:
    """Everything that arrives from peers goes through here into the store."""

    def __init__(self, store: Store, uplinks: Uplinks, pump: ProgressPump, suspicions: Suspicions):
        self._store = store
        self._uplinks = uplinks
        self._pump = pump
        self._suspicions = suspicions
        self._waiting: list[_Batch] = []
        self._arrived = asyncio.Event()

    # ------------------------------------------------------------------------------------ participants
    async def participant_messages(
        self, session: str, uplink: Uplink, messages: Sequence[StatusMessage | Goodbye]
    ) -> dict[str, int]:
        """Apply the messages; returns, after the commit, the highest applied `seq` of each run in them.

        An uplink has one call under way at most: that bounds what waits here. Raises NotFoundError if the session is
        gone.
        """
        batch = _Batch(session, uplink, messages)
        self._waiting.append(batch)
        self._arrived.set()
        return await batch.done

    async def run(self) -> None:
        """Commit what arrives, until cancelled."""
        while True:
            await self._arrived.wait()
            group, self._waiting = self._waiting[:_GROUP_LIMIT], self._waiting[_GROUP_LIMIT:]
            if not self._waiting:
                self._arrived.clear()
            started = time.monotonic()
            await self._commit(group)
            if len(self._waiting) < _GROUP_LIMIT:
                await asyncio.sleep(max(0.0, started + _GROUP_INTERVAL_S - time.monotonic()))

    async def _commit(self, group: Sequence[_Batch]) -> None:
        """Apply a group in one transaction and tell those who wait. A batch that cannot be stored fails alone."""
        try:
            async with self._store.write() as transaction:
                applied = await self._apply(transaction, group)
        except OperationalError as error:  # a full disk, a lost connection: nobody's fault
            _logger.warning("the messages of %d uplinks could not be stored", len(group))
            for batch in group:
                batch.fail(error)
        except Exception as error:
            if len(group) == 1:
                group[0].fail(error)
                return
            for batch in group:
                await self._commit([batch])
        else:
            for batch, outcome in applied:
                self._tell(batch, outcome)

    def _tell(self, batch: _Batch, outcome: _Applied | NotFoundError) -> None:
        if isinstance(outcome, NotFoundError):
            batch.fail(outcome)
            return
        if outcome.newest is not None:
            batch.uplink.status = outcome.newest
            self._pump.mark(batch.session)
        if not batch.done.done():
            batch.done.set_result(outcome.acknowledged)

    async def _apply(
        self, transaction: Transaction, group: Sequence[_Batch]
    ) -> list[tuple[_Batch, _Applied | NotFoundError]]:
        rows = await _load(transaction, group)
        return [
            (
                batch,
                await self._apply_batch(transaction, rows, batch)
                if batch.session in rows.sessions else NotFoundError("the session is gone"),
            )
            for batch in group
        ]  # fmt: skip

    async def _apply_batch(self, transaction: Transaction, rows: _Rows, batch: _Batch) -> _Applied:
        newest: Status | None = None
        acknowledged: dict[str, int] = {}
        fresh: list[Record] = []
        for message in batch.messages:
            run = rows.runs[_run_key(batch, message)]
            if message.seq > run.applied_seq:
                run.applied_seq, run.updated_at = message.seq, now()
                if isinstance(message, StatusMessage):
                    newest = message.status
                    fresh += await add_records(transaction, run, message.status.records)
            acknowledged[message.run] = run.applied_seq
        if newest is not None:
            await self._apply_newest(transaction, rows, batch, newest, fresh)
        return _Applied(acknowledged, newest)

    async def _apply_newest(
        self, transaction: Transaction, rows: _Rows, batch: _Batch, status: Status, fresh: Sequence[Record]
    ) -> None:
        session, participant = rows.sessions[batch.session], rows.participants.get(batch.uplink.participant)
        if participant is not None:
            participant.status = status.model_dump(by_alias=True, exclude={"records"})
            participant.last_seen_at = now()
            if rounds := [record.time for record in fresh if record.kind == "round"]:
                # within bounds: its clock may be wrong
                participant.last_sync_at = min(max(rounds[-1], participant.created_at), now())
            await announce(transaction, participant, status, connected=True)
            await self._suspicions.note_rounds(transaction, session, participant, fresh)
        if session.state == "waiting" and status.status == "training":
            await change_state(transaction, session, "progress")

    # ------------------------------------------------------------------------------------ the checkpointer
    async def checkpointer_status(self, status: Status) -> None:
        """Apply a snapshot of the checkpointer, unless it is one that was applied already."""
        async with self._store.write() as transaction:
            row = await transaction.rows.get(SessionRow, status.session)
            if row is None:
                return
            run = await run_row(transaction, row.id, CHECKPOINTER, status.run)
            # a snapshot's number starts at 0, an applied number of 0 means none
            if status.sequence + 1 <= run.applied_seq:
                return
            run.applied_seq, run.updated_at = status.sequence + 1, now()
            row.checkpointer_status = status.model_dump(by_alias=True, exclude={"records"})
            fresh = await add_records(transaction, run, status.records)
            await count_rounds(transaction, row.id, fresh)
            for record in fresh:
                await self._add_point(transaction, status, record)
        self._pump.mark(status.session)

    async def _add_point(self, transaction: Transaction, status: Status, record: Record) -> None:
        """A round or an evaluation is a point of the curves; the second completes what the first began."""
        if record.kind not in ("round", "evaluation"):
            return
        number = _integer(record, "round", status.round)
        point = await transaction.rows.get(MetricRow, (status.session, number))
        if point is None:
            participants = self._uplinks.statuses(status.session)
            point = MetricRow(
                session_id=status.session, round=number, time=record.time,
                samples=_integer(record, "samples", status.samples_committed),
                loss=mean(s.loss for s in participants), tokens_per_second=total_speed(participants),
                learning_rate=mean(s.learning_rate for s in participants), validation_loss=None,
            )  # fmt: skip
            transaction.rows.add(point)
        if record.kind == "evaluation":
            point.validation_loss = _number(record, "validationLoss", status.validation_loss)


async def _load(transaction: Transaction, group: Sequence[_Batch]) -> _Rows:
    """By a few statements, however large the group is; runs that are new are made."""
    rows = transaction.rows
    sessions = await rows.scalars(
        select(SessionRow).where(SessionRow.id.in_({batch.session for batch in group}))
        .options(defer(SessionRow.config), defer(SessionRow.assets), defer(SessionRow.progress))
    )  # fmt: skip
    known = {row.id: row for row in sessions}
    await transaction.expect_events(known)
    participants = await rows.scalars(
        select(ParticipantRow).where(ParticipantRow.id.in_({batch.uplink.participant for batch in group}))
        .options(defer(ParticipantRow.hardware), defer(ParticipantRow.status))
    )  # fmt: skip
    present = {row.id: row for row in participants}
    wanted = {_run_key(batch, message) for batch in group if batch.session in known for message in batch.messages}
    stored = await rows.scalars(
        select(RunRow).where(tuple_(RunRow.session_id, RunRow.source, RunRow.run).in_(sorted(wanted)))
    )
    runs = {(row.session_id, row.source, row.run): row for row in stored}
    for session, source, run in sorted(wanted - runs.keys()):
        row = RunRow(session_id=session, source=source, run=run, applied_seq=0, last_record=0, updated_at=now())
        rows.add(row)
        runs[session, source, run] = row
    return _Rows(known, present, runs)


def _run_key(batch: _Batch, message: StatusMessage | Goodbye) -> RunKey:
    return batch.session, batch.uplink.participant, message.run


def check_status(status: Status, *, session: str, peer: str, run: str) -> None:
    """Raises ProtocolError unless the snapshot is of the run that sends it: nobody speaks for another."""
    for name, found, expected in (
        ("session", status.session, session), ("peer", status.peer, peer), ("run", status.run, run),
    ):  # fmt: skip
        if found != expected:
            raise ProtocolError(
                f"the status is of another {name} than the uplink", field=f"status.{name}",
                hint=f"expected {expected}",
            )  # fmt: skip


def _integer(record: Record, key: str, otherwise: int) -> int:
    value = record.data.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _number(record: Record, key: str, otherwise: float | None) -> float | None:
    value = record.data.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else otherwise
