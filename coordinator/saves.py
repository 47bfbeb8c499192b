"""What sessions are still to be saved for: told to the checkpointer when it follows, failed when the session ends."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.checkpointer_messages import Save
from coordinator.lifecycle import possible_actions
from coordinator.model_rows import ModelJobRow
from coordinator.models import SessionRow
from cotrain.errors import ConflictError
from cotrain.status import FINAL_STATES, State, now

OPEN = ("queued", "running")
"""States of jobs that have not ended."""
SAVABLE_STATES: frozenset[State] = frozenset({"waiting", "training", "paused"})
"""In which the checkpointer follows the session, and is not about to save it anyway."""
_HINTS: Mapping[State, str] = {
    "draft": "start it first", "pending": "it can be saved once it is open to nodes",
    "stopping": "it saves its model by itself now",
}  # fmt: skip


def check_savable(state: State) -> None:
    """Raises ConflictError with the present state and what a person can do."""
    if state in SAVABLE_STATES:
        return
    raise ConflictError(
        f"a session that is {state} cannot be saved",
        hint=_HINTS.get(state, "GET /api/v1/models lists what has been saved"),
        details={"state": state, "possible": possible_actions(state)},
    )  # fmt: skip


async def open_saves(rows: AsyncSession, session: str) -> list[Save]:
    """What a checkpointer that follows the session must do, oldest first; it may have been told before."""
    return [Save(session=session, job=job.id) for job in await _open_jobs(rows, session)]


async def fail_saves_of_ended(rows: AsyncSession, row: SessionRow) -> None:
    """After a session's state has changed: if it has ended, nothing more of it can be saved."""
    if row.state not in FINAL_STATES:
        return
    for job in await _open_jobs(rows, row.id):
        job.state, job.updated_at = "failed", now()
        job.message = f"the session was {row.state} before its model could be saved"
        job.hint = "its final model is among its versions" if row.model_path else "it has no final model"


async def _open_jobs(rows: AsyncSession, session: str) -> list[ModelJobRow]:
    found = await rows.scalars(
        select(ModelJobRow)
        .where(ModelJobRow.session_id == session, ModelJobRow.kind == "save", ModelJobRow.state.in_(OPEN))
        .order_by(ModelJobRow.created_at, ModelJobRow.id)
    )
    return list(found)
