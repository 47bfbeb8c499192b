"""Applies snapshots, once each: a participant's by (run, seq), the checkpointer's by (run, sequence)."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.models import MetricRow, ParticipantRow, SessionRow
from coordinator.participants import announce
from coordinator.progress import ProgressPump
from coordinator.projection import mean, total_speed
from coordinator.sessions import change_state, find_session
from coordinator.store import Store, Transaction
from coordinator.suspicions import Suspicions
from coordinator.training_log import add_records, run_row
from coordinator.uplinks import Uplink, Uplinks
from cotrain.errors import ProtocolError
from cotrain.protocol import Goodbye, StatusMessage
from cotrain.status import Record, Status, now

CHECKPOINTER = "checkpointer"


class Ingest:
    """Everything that arrives from peers goes through here into the store."""

    def __init__(self, store: Store, uplinks: Uplinks, pump: ProgressPump, suspicions: Suspicions):
        self._store = store
        self._uplinks = uplinks
        self._pump = pump
        self._suspicions = suspicions

    async def participant_messages(
        self, session: str, uplink: Uplink, messages: Sequence[StatusMessage | Goodbye]
    ) -> dict[str, int]:
        """Apply the messages in one transaction; returns the highest applied `seq` of each run in them.

        Raises NotFoundError if the session is gone.
        """
        newest: Status | None = None
        applied: dict[str, int] = {}
        fresh: list[Record] = []
        async with self._store.write() as transaction:
            row = await find_session(transaction.rows, session)
            for message in messages:
                run = await run_row(transaction, session, uplink.participant, message.run)
                if message.seq > run.applied_seq:
                    run.applied_seq, run.updated_at = message.seq, now()
                    if isinstance(message, StatusMessage):
                        newest = message.status
                        fresh += await add_records(transaction, run, message.status.records)
                applied[message.run] = run.applied_seq
            if newest is not None:
                await self._apply_newest(transaction, row, uplink, newest, fresh)
        if newest is not None:
            uplink.status = newest
            self._pump.mark(session)
        return applied

    async def _apply_newest(
        self, transaction: Transaction, row: SessionRow, uplink: Uplink, status: Status, fresh: Sequence[Record]
    ) -> None:
        participant = await transaction.rows.get(ParticipantRow, uplink.participant)
        if participant is not None:
            participant.status = status.model_dump(by_alias=True, exclude={"records"})
            participant.last_seen_at = now()
            await announce(transaction, participant, status, connected=True)
            await self._suspicions.note_rounds(transaction, row, participant, fresh)
        if row.state == "waiting" and status.status == "training":
            await change_state(transaction, row, "progress")

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
            for record in await add_records(transaction, run, status.records):
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
                validation_loss=None,
            )  # fmt: skip
            transaction.rows.add(point)
        if record.kind == "evaluation":
            point.validation_loss = _number(record, "validationLoss", status.validation_loss)


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
