"""The queue in the database: sessions enter it, the scheduler is asked, and what it decides is written down.

All of it happens in the transaction of what changed. A session's job says whether it still waits; order and reasons
outlive the coordinator.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import cast

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.lifecycle import FOLLOWED_STATES
from coordinator.models import JobRow, SessionRow
from coordinator.scheduler import QueueLimits, Reason, Task, WaitCode, decide
from cotrain.status import FINAL_STATES, State, now

_TRAINING = "training"
_ENDS: dict[State, str] = {"completed": "done", "stopped": "done", "failed": "failed", "cancelled": "cancelled"}
"""What a session's end is called in its job."""


def under_way() -> ColumnElement[bool]:
    """Sessions that the checkpointer follows: started, and let out of the queue."""
    queued = exists().where(JobRow.session_id == SessionRow.id, JobRow.kind == _TRAINING, JobRow.state == "queued")
    return SessionRow.state.in_(FOLLOWED_STATES) & ~queued


class Queue:
    """Sessions that have been started, until there is room for them."""

    def __init__(self, limits: QueueLimits):
        self._limits = limits

    async def on_change(self, rows: AsyncSession, session: SessionRow) -> list[SessionRow]:
        """After a session's state has changed: those that the checkpointer shall follow from now on, in order."""
        if session.state == "pending":
            rows.add(_new_job(session))
        elif session.state in FINAL_STATES:
            await _end_job(rows, session)
        else:
            return []
        return await self.advance(rows)

    async def advance(self, rows: AsyncSession) -> list[SessionRow]:
        """Let out of the queue what may start, and note for the others why they wait."""
        jobs = {job.session_id: job for job in await _queued_jobs(rows)}
        if not jobs:
            return []
        pending = [_task(row, jobs[row.id]) for row in await _sessions(rows, SessionRow.id.in_(jobs))]
        running = [_task(row) for row in await _sessions(rows, under_way())]
        decision = decide(pending, running, self._limits)
        for session, reason in decision.waiting.items():
            jobs[session].wait_code, jobs[session].wait_reason = reason.code, reason.message
        for session in decision.start:
            job = jobs[session]
            job.state, job.wait_code, job.wait_reason = "running", "", ""
            job.started_at, job.attempts = now(), job.attempts + 1
        return [await rows.get_one(SessionRow, session) for session in decision.start]


async def queue_reasons(rows: AsyncSession, sessions: Sequence[str]) -> dict[str, Reason]:
    """Why each of these sessions waits in the queue; those that do not are not in it."""
    if not sessions:
        return {}
    jobs = await _queued_jobs(rows, JobRow.session_id.in_(sessions))
    return {job.session_id: Reason(cast(WaitCode, job.wait_code), job.wait_reason) for job in jobs}


async def _queued_jobs(rows: AsyncSession, *which: ColumnElement[bool]) -> Sequence[JobRow]:
    found = await rows.scalars(select(JobRow).where(JobRow.kind == _TRAINING, JobRow.state == "queued", *which))
    return found.all()


async def _sessions(rows: AsyncSession, which: ColumnElement[bool]) -> Sequence[SessionRow]:
    return (await rows.scalars(select(SessionRow).where(which))).all()


def _task(row: SessionRow, job: JobRow | None = None) -> Task:
    return Task(
        session=row.id, owner=row.owner, dataset=row.dataset, shares_dataset=row.shares_dataset,
        priority=row.priority, asked_at=row.created_at if job is None else job.created_at,
        is_private=row.visibility == "private",
    )  # fmt: skip


def _new_job(session: SessionRow) -> JobRow:
    return JobRow(
        id=secrets.token_hex(16), session_id=session.id, kind=_TRAINING, state="queued", priority=session.priority,
        wait_reason="", wait_code="", attempts=0, error_msg="", created_at=now(),
    )  # fmt: skip


async def _end_job(rows: AsyncSession, session: SessionRow) -> None:
    open_jobs = select(JobRow).where(
        JobRow.session_id == session.id, JobRow.kind == _TRAINING, JobRow.state.in_(("queued", "running"))
    )
    for job in await rows.scalars(open_jobs):
        job.state, job.ended_at, job.error_msg = _ENDS[session.state], now(), session.error_msg
        job.wait_code, job.wait_reason = "", ""
