"""The training log of a session: records of participants and of the checkpointer, and the coordinator's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from coordinator.appender import Appender
from coordinator.models import LogRow, RunRow
from coordinator.store import Transaction
from coordinator.views import LogView
from cotrain.status import Record, now

COORDINATOR = "coordinator"
"""The source of the coordinator's own records; all are of one run."""
SUSPICION = "suspicion"
"""The kind of a record about what is held against a participant. Nobody but the coordinator can write one."""
_TOLD = tuple(LogView.model_fields)
"""None of these names is another one in camelCase."""


async def run_row(transaction: Transaction, session: str, source: str, run: str) -> RunRow:
    """How far a run has been applied; made if there is none yet."""
    row = await transaction.rows.get(RunRow, (session, source, run))
    if row is None:
        row = RunRow(session_id=session, source=source, run=run, applied_seq=0, last_record=0, updated_at=now())
        transaction.rows.add(row)
        await transaction.rows.flush()
    return row


def fresh_records(records: Sequence[Record], last: int) -> list[Record]:
    """Those with a number above `last`, in order, each number once. Pure."""
    return sorted({r.number: r for r in reversed(records) if r.number > last}.values(), key=lambda r: r.number)


def add_record(appender: Appender, session: str, source: str, run: str, record: dict[str, Any]) -> None:
    """Store and announce a record, in the form of `Record`; the session must be expected."""
    values = {"session_id": session, "source": source, "run": run, **record}
    values["message"] = record["message"].replace("\0", "\ufffd")  # PostgreSQL refuses the character 0
    appender.append(LogRow, values)
    appender.emit(session, "training.log", {"sessionId": session} | {name: values[name] for name in _TOLD})


async def add_suspicion(
    transaction: Transaction, session: str, message: str, data: dict[str, Any], *,
    level: Literal["info", "warning", "error"] = "warning",
) -> None:  # fmt: skip
    """A record of the coordinator's own."""
    run = await run_row(transaction, session, COORDINATOR, COORDINATOR)
    run.last_record, run.updated_at = run.last_record + 1, now()
    await transaction.expect_events([session])
    add_record(
        transaction.appender, session, COORDINATOR, COORDINATOR,
        {"number": run.last_record, "time": now(), "kind": SUSPICION, "level": level, "message": message, "data": data},
    )  # fmt: skip
