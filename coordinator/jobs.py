"""What people ask to be done to models, as jobs in the database: they outlive the coordinator."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from sqlalchemy import ColumnElement, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.checkpointer_messages import Exported, Order, Save, SaveFailed
from coordinator.idempotency import Keep, keep_nothing
from coordinator.model_rows import JobKind, JobState, ModelJobRow, ModelVersionRow
from coordinator.model_views import AskedEvaluationView
from coordinator.models import SessionRow
from coordinator.registry import Registry
from coordinator.removal import remove_set_aside, set_aside
from coordinator.saves import OPEN, check_savable
from coordinator.sessions import Position, find_session
from coordinator.store import Store
from coordinator.views import iso_time
from cotrain.errors import ConflictError, NotFoundError
from cotrain.paths import SharedPaths
from cotrain.request import CamelModel
from cotrain.sections import SequenceLength, Source
from cotrain.status import now

_logger = logging.getLogger(__name__)

MOST_OPEN = 16
"""Jobs of one account that have not ended: each costs time or disk."""
MOST_BATCHES = 1000


class EvaluationRequest(
    CamelModel,
    json_schema_extra={
        "not": {
            "required": ["dataPath", "dataset"],
            "properties": {"dataPath": {"type": "string"}, "dataset": {"type": "string"}},
        }
    },
):
    """What a model is to be evaluated on."""

    version: Annotated[int, Field(ge=1, lt=10**9)] | None = None
    """Left out: the newest one that has its files."""
    dataset: Source | None = None
    """Of the catalog; with neither this nor `dataPath`: the data that it was trained with."""
    data_path: Source | None = None
    """A file or folder in the coordinator's `datasets`."""
    seq_length: SequenceLength | None = None
    """Tokens of a sample; left out: as in its training. Results at one length are compared, of two they are not."""
    split: Literal["validation"] = "validation"
    """The part that is held out of training."""
    batches: Annotated[int, Field(ge=1, le=MOST_BATCHES)] | None = None
    """Left out: as many as in the evaluations of its training."""

    @model_validator(mode="after")
    def _one_of_both(self) -> EvaluationRequest:
        if self.dataset is not None and self.data_path is not None:
            raise ValueError("give dataset or dataPath, not both")
        return self


class SavedView(CamelModel):
    """What a save has made: a version of the model that the job names."""

    round: int
    """Whose outer parameters it has."""


class JobView(CamelModel):
    """A job."""

    id: str
    kind: JobKind
    status: JobState
    session_id: str | None
    """That is saved; null for an evaluation, and once the session was deleted."""
    model: str | None
    """Id; of a save, once it is completed."""
    version: int | None
    asked: EvaluationRequest | None
    """Of an evaluation, with what was left out filled in."""
    result: AskedEvaluationView | SavedView | None
    """Of a completed one."""
    message: str
    """Why it failed."""
    hint: str
    """What can be done about that."""
    created_at: str
    updated_at: str


class Jobs:
    """The jobs of this coordinator, and those that the checkpointer does.

    Args:
        send: hands an order to the checkpointer, without waiting.
    """

    def __init__(self, store: Store, shared: SharedPaths, registry: Registry, send: Callable[[Order], None]):
        self._store = store
        self._shared = shared
        self._registry = registry
        self._send = send

    async def get(self, job: str, account: str) -> JobView:
        """Raises NotFoundError, also for a job that this account may not see."""
        async with self._store.read() as rows:
            row = await rows.scalar(select(ModelJobRow).where(ModelJobRow.id == job, _seen_by(account)))
        if row is None:
            raise NotFoundError("there is no such job", field="job", hint="GET /api/v1/jobs lists yours")
        return job_view(row)

    async def newest_first(
        self, account: str, session: str | None, before: Position | None, limit: int
    ) -> tuple[list[JobView], Position | None]:
        """At most `limit` jobs older than `before` that this account may see, and where the next page begins.

        `session`: only those that save it.
        """
        query = (
            select(ModelJobRow).where(_seen_by(account))
            .order_by(ModelJobRow.created_at.desc(), ModelJobRow.id.desc()).limit(limit + 1)
        )  # fmt: skip
        if session is not None:
            query = query.where(ModelJobRow.session_id == session)
        if before is not None:
            query = query.where(tuple_(ModelJobRow.created_at, ModelJobRow.id) < before)
        async with self._store.read() as rows:
            found = list(await rows.scalars(query))
        page = found[:limit]
        return [job_view(row) for row in page], (page[-1].created_at, page[-1].id) if len(found) > limit else None

    async def save(self, session: str, account: str, keep: Keep = keep_nothing) -> JobView:
        """Have the newest outer state of a session saved as a version; `keep` is given the answer, in the transaction.

        Raises NotFoundError, or ConflictError.
        """
        async with self._store.write() as transaction:
            row = await find_session(transaction.rows, session)
            check_savable(row.state)
            # what is lost on the way is told again as soon as the checkpointer follows the session
            job = await new_job(transaction.rows, "save", account, session_id=session)
            view = job_view(job)
            await keep(transaction, view)
        self._send(Save(session=session, job=job.id))
        return view

    async def on_report(self, report: Exported | SaveFailed) -> None:
        """Apply what has become of a save. A model that nobody waits for any more is removed."""
        waits = True
        saved = await self._registry.look_at(report.session, report.path) if isinstance(report, Exported) else None
        async with self._store.write() as transaction:
            rows = transaction.rows
            job = await rows.get(ModelJobRow, report.job)
            row = await rows.get(SessionRow, report.session)
            if job is None or job.state not in OPEN or row is None:
                waits = False
            elif isinstance(report, SaveFailed):
                end_job(job, message=report.message, hint=report.hint)
            elif saved is not None:
                made = await self._registry.add(transaction, row, saved, report.round, [report.evaluation])
                job.model_id, job.version = made.model_id, made.version
                end_job(job, result=SavedView(round=report.round))
        if not waits and isinstance(report, Exported):
            _logger.info("the model of session %s after round %d comes too late", report.session, report.round)
            await self._remove_unused(Path(report.path))

    async def _remove_unused(self, folder: Path) -> None:
        """Remove a saved model that is no version."""
        if folder.parent != self._shared.final_models.resolve():
            return
        relative = str(self._shared.final_models.relative_to(self._shared.root) / folder.name)
        async with self._store.write() as transaction:
            used = select(func.count()).select_from(ModelVersionRow).where(ModelVersionRow.path == relative)
            if not await transaction.rows.scalar(used):
                set_aside(folder)
        await asyncio.to_thread(remove_set_aside, [self._shared.final_models])


async def new_job(
    rows: AsyncSession, kind: JobKind, account: str, *, asked: EvaluationRequest | None = None,
    session_id: str | None = None, model_id: str | None = None, version: int | None = None,
) -> ModelJobRow:  # fmt: skip
    """Raises ConflictError if the account has too many that have not ended."""
    open_jobs = select(func.count()).where(ModelJobRow.account == account, ModelJobRow.state.in_(OPEN))
    if (await rows.scalar(open_jobs) or 0) >= MOST_OPEN:
        raise ConflictError(
            f"{MOST_OPEN} jobs of this account have not ended", hint="wait for one of them: GET /api/v1/jobs"
        )
    created = now()
    job = ModelJobRow(
        id=f"j-{secrets.token_hex(8)}", kind=kind, state="queued", account=account, session_id=session_id,
        model_id=model_id, version=version, asked={} if asked is None else asked.model_dump(by_alias=True), result=None,
        message="", hint="", created_at=created, updated_at=created,
    )  # fmt: skip
    rows.add(job)
    await rows.flush()
    return job


def end_job(job: ModelJobRow, *, result: CamelModel | None = None, message: str = "", hint: str = "") -> None:
    """Completed with a result, failed without one."""
    job.state = "failed" if result is None else "completed"
    job.result = None if result is None else result.model_dump(by_alias=True)
    job.message, job.hint, job.updated_at = message, hint, now()


def job_view(row: ModelJobRow) -> JobView:
    """A job as those see it who may."""
    kind: type[CamelModel] = SavedView if row.kind == "save" else AskedEvaluationView
    result: Any = None if row.result is None else kind.model_validate(row.result)
    return JobView(
        id=row.id, kind=row.kind, status=row.state, session_id=row.session_id, model=row.model_id,
        version=row.version, asked=EvaluationRequest.model_validate(row.asked) if row.kind == "evaluate" else None,
        result=result, message=row.message, hint=row.hint, created_at=iso_time(row.created_at),
        updated_at=iso_time(row.updated_at),
    )  # fmt: skip


def _seen_by(account: str) -> ColumnElement[bool]:
    """Jobs that the account has asked for, or that save a session of its own."""
    owned = select(SessionRow.id).where(SessionRow.owner == account)
    return or_(ModelJobRow.account == account, ModelJobRow.session_id.in_(owned))
