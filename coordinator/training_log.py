"""The training log of a session: records of participants and of the checkpointer, and the coordinator's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from coordinator.models import LogRow, RunRow
from coordinator.store import Transaction
from coordinator.views import LogView
from cotrain.status import Record, now

COORDINATOR = "coordinator"
"""The source of the coordinator's own records; all are of one run."""
SUSPICION = "suspicion"
"""The kind of a record about what is held against a participant. Nobody but the coordinator can write one."""


async def run_row(transaction: Transaction, session: str, source: str, run: str) -> RunRow:
    """How far a run has been applied; made if there is none yet."""
    row = await transaction.rows.get(RunRow, (session, source, run))
    if row is None:
        row = RunRow(session_id=session, source=source, run=run, applied_seq=0, last_record=0, updated_at=now())
        transaction.rows.add(row)
        await transaction.rows.flush()
    return row


async def add_records(transaction: Transaction, run: RunRow, records: Sequence[Record]) -> list[Record]:
    """Store and announce the records that are newer than those of the run so far; returns them in order."""
    fresh = sorted((r for r in records if r.number > run.last_record), key=lambda record: record.number)
    fresh = [r for i, r in enumerate(fresh) if i == 0 or r.number != fresh[i - 1].number]
    for record in fresh:
        await _add(transaction, run, record.model_dump())
    return fresh


async def add_suspicion(
    transaction: Transaction, session: str, message: str, data: dict[str, Any], *,
    level: Literal["info", "warning", "error"] = "warning",
) -> None:  # fmt: skip
    """A record of the coordinator's own."""
    run = await run_row(transaction, session, COORDINATOR, COORDINATOR)
    record = {"number": run.last_record + 1, "time": now(), "kind": SUSPICION, "level": level}
    await _add(transaction, run, {**record, "message": message, "data": data})


async def _add(transaction: Transaction, run: RunRow, record: dict[str, Any]) -> None:
    values = {"session_id": run.session_id, "source": run.source, "run": run.run, **record}
    values["message"] = record["message"].replace("\0", "\ufffd")  # PostgreSQL refuses the character 0
    transaction.append(LogRow, values)
    run.last_record, run.updated_at = record["number"], now()
    data = LogView(**{name: values[name] for name in LogView.model_fields}).model_dump(by_alias=True)
    await transaction.emit(run.session_id, "training.log", {"sessionId": run.session_id, **data})
