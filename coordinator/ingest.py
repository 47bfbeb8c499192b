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

from sqlalchemy.exc import OperationalError

from coordinator.contributions import count_rounds
from coordinator.models import MetricRow, SessionRow
from coordinator.progress import ProgressPump
from coordinator.projection import mean, total_speed
from coordinator.sessions import change_state
from coordinator.snapshots import Applied, Brought, apply_group
from coordinator.store import Store, Transaction
from coordinator.suspicions import Suspicions, tells_of_drops
from coordinator.training_log import add_record, fresh_records, run_row
from coordinator.uplinks import Uplink, Uplinks
from cotrain.errors import NotFoundError, ProtocolError
from cotrain.protocol import Goodbye, StatusMessage
from cotrain.status import Record, Status, now

CHECKPOINTER = "checkpointer"

_logger = logging.getLogger(__name__)

_GROUP_LIMIT = 256
"""Uplinks whose messages are committed together at most: others wait for it."""
_GROUP_INTERVAL_S = 0.025
"""Least time between the beginnings of two groups; a message that comes after a pause does not wait."""


@dataclass(eq=False)
class _Batch:
    """What one uplink has brought, and who waits for it to be stored."""

    uplink: Uplink
    brought: Brought
    done: asyncio.Future[dict[str, int]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def fail(self, error: Exception) -> None:
        """Tell whoever waits, if he still does."""
        if not self.done.done():
            self.done.set_exception(error)


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
        batch = _Batch(uplink, Brought(session, uplink.participant, messages))
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
        brought = [batch.brought for batch in group]
        try:
            outcomes = await self._store.apply(lambda connection, appender: apply_group(connection, appender, brought))
            await self._follow_up(brought, outcomes)
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
            for batch, outcome in zip(group, outcomes, strict=True):
                self._tell(batch, outcome)

    def _tell(self, batch: _Batch, outcome: Applied | None) -> None:
        if outcome is None:
            batch.fail(NotFoundError("the session is gone"))
            return
        if outcome.newest is not None:
            batch.uplink.status = outcome.newest
            self._pump.mark(batch.brought.session)
        if not batch.done.done():
            batch.done.set_result(outcome.acknowledged)

    async def _follow_up(self, group: Sequence[Brought], outcomes: Sequence[Applied | None]) -> None:
        """What seldom follows from snapshots.

        After a crash before it a session that waits begins with the next snapshot; drops are counted in memory anyway.
        """
        begun = {one.session for one, applied in zip(group, outcomes, strict=True) if applied and _begins(applied)}
        telling = [
            (one, records) for one, applied in zip(group, outcomes, strict=True)
            if applied and (records := [record for record in applied.records if tells_of_drops(record)])
        ]  # fmt: skip
        if not begun and not telling:
            return
        async with self._store.write() as transaction:
            for session in sorted(begun):
                row = await transaction.rows.get(SessionRow, session)
                if row is not None and row.state == "waiting":
                    await change_state(transaction, row, "progress")
            for one, records in telling:
                await self._suspicions.note_rounds(transaction, one.session, one.participant, records)

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
            fresh = fresh_records(status.records, run.last_record)
            await transaction.expect_events([row.id])
            for record in fresh:
                add_record(transaction.appender, row.id, CHECKPOINTER, run.run, record.model_dump())
                run.last_record = record.number
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


def _begins(applied: Applied) -> bool:
    """Whether a session that waits for participants has one that trains."""
    return applied.state == "waiting" and applied.newest is not None and applied.newest.status == "training"


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
