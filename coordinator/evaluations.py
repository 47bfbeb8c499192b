"""Evaluations of models that people ask for: queued in the database, carried out one at a time."""

from __future__ import annotations

import asyncio

from sqlalchemy import ColumnElement, select, true

from coordinator.catalog_entries import DATASETS, CatalogEntries
from coordinator.evaluation_process import Evaluated, EvaluationTask, NotEvaluated, Outcome, evaluate_in_process
from coordinator.idempotency import Keep, keep_nothing
from coordinator.jobs import EvaluationRequest, JobView, end_job, job_view, new_job
from coordinator.model_rows import ModelJobRow, ModelVersionRow
from coordinator.model_views import AskedEvaluationView
from coordinator.registry import Registry
from coordinator.saves import OPEN
from coordinator.session_paths import check_data_path
from coordinator.settings import Settings
from coordinator.store import Store
from coordinator.views import iso_time
from cotrain.catalog import DatasetEntry
from cotrain.config import dump_config, parse_config
from cotrain.errors import ConflictError, CotrainError, InvalidRequestError, NotFoundError
from cotrain.sections import FieldsSection
from cotrain.status import now


class Evaluations:
    """The evaluations of this coordinator."""

    def __init__(self, store: Store, settings: Settings, registry: Registry, catalog: CatalogEntries):
        self._store = store
        self._settings = settings
        self._registry = registry
        self._catalog = catalog
        self._asked = asyncio.Event()

    async def ask(
        self, model: str, wanted: EvaluationRequest, account: str, seen: ColumnElement[bool], keep: Keep = keep_nothing
    ) -> JobView:  # fmt: skip
        """A new job; `keep` is given it, in the transaction.

        Args:
            seen: which versions are there for whoever asks (`Invitations.versions_seen`).

        Raises NotFoundError, ConflictError if the version has no files, InvalidRequestError for an unknown dataset or
        a path that leads out of the coordinator's datasets.
        """
        if wanted.data_path is not None:
            hidden = await self._registry.hidden_folders(seen)
            check_data_path(wanted.data_path, self._settings.shared, hidden, field="dataPath")
        dataset = None if wanted.dataset is None else (await self._dataset(wanted.dataset)).id
        version = await self._registry.version(model, wanted.version or (await self._newest(model, seen)), seen)
        if not version.available:
            raise ConflictError(
                f"the files of version {version.version} have been removed", field="version",
                hint="GET /api/v1/models/{model} says which versions are available",
            )  # fmt: skip
        batches = wanted.batches or parse_config(version.config).monitoring.evaluation_batches
        asked = wanted.model_copy(update={"version": version.version, "dataset": dataset, "batches": batches})
        async with self._store.write() as transaction:
            job = await new_job(
                transaction.rows, "evaluate", account, asked=asked, model_id=version.model, version=version.version
            )
            view = job_view(job)
            await keep(transaction, view)
        self._asked.set()
        return view

    async def _newest(self, model: str, seen: ColumnElement[bool]) -> int:
        return (await self._registry.folder(model, None, seen))[0].version

    async def _dataset(self, name: str) -> DatasetEntry:
        try:
            return await self._catalog.find(DATASETS, name)
        except NotFoundError as error:
            raise InvalidRequestError(
                error.message, field="dataset", hint=error.hint, details=error.details
            ) from error  # fmt: skip

    async def run(self) -> None:
        """Carry out what is asked for, oldest first; begins with what the last coordinator did not end."""
        while True:
            self._asked.clear()
            job = await self._next()
            if job is None:
                await self._asked.wait()
                continue
            try:
                outcome = await evaluate_in_process(self._settings, await self._task(job))
            except CotrainError as error:
                outcome = NotEvaluated(message=error.message, hint=error.hint)
            await self._end(job.id, outcome)

    async def _next(self) -> ModelJobRow | None:
        query = (
            select(ModelJobRow).where(ModelJobRow.kind == "evaluate", ModelJobRow.state.in_(OPEN))
            .order_by(ModelJobRow.created_at, ModelJobRow.id).limit(1)
        )  # fmt: skip
        async with self._store.write() as transaction:
            job: ModelJobRow | None = await transaction.rows.scalar(query)
            if job is not None:
                job.state, job.updated_at = "running", now()
        return job

    async def _task(self, job: ModelJobRow) -> EvaluationTask:
        """Raises NotFoundError if version or dataset are gone, ConfigError."""
        asked = EvaluationRequest.model_validate(job.asked)
        version, folder = await self._registry.folder(job.model_id or "", job.version, true())
        detail = await self._registry.version(version.model, version.version, true())
        entry = None if asked.dataset is None else await self._catalog.find(DATASETS, asked.dataset)
        config = config_on(detail.config, entry, asked.data_path, asked.seq_length)
        return EvaluationTask(
            config=config, model_path=str(folder.resolve()), batches=asked.batches or 1,
            data_fingerprint=version.data_fingerprint if config == detail.config else "",
        )  # fmt: skip

    async def _end(self, job_id: str, outcome: Outcome) -> None:
        async with self._store.write() as transaction:
            job = await transaction.rows.get(ModelJobRow, job_id)
            if job is None:  # gone with its model
                return
            if not isinstance(outcome, Evaluated):
                end_job(job, message=outcome.message, hint=outcome.hint)
                return
            result = result_of(job, outcome)
            end_job(job, result=result)
            version = await transaction.rows.get(ModelVersionRow, (job.model_id, job.version))
            if version is not None:
                version.last_evaluation = result.model_dump(by_alias=True)


def config_on(
    config: str, entry: DatasetEntry | None, data_path: str | None = None, seq_length: int | None = None
) -> str:  # fmt: skip
    """The TOML of a version with other data, or another length, in the place of its own. Raises ConfigError.

    Args:
        entry: None, as `data_path`: none is named.
    """
    parsed = parse_config(config)
    own: dict[str, object] = {}
    if entry is not None:
        hub = entry.hugging_face_id if entry.owner else entry.id
        own = {
            "dataset": hub if entry.path is None else None, "data_path": entry.path, "fields": entry.fields,
            "normalization": entry.normalization,
        }  # fmt: skip
    elif data_path is not None:
        own = {"dataset": None, "data_path": data_path, "fields": FieldsSection()}
    if seq_length is not None:
        own["seq_length"] = seq_length
    return dump_config(parsed.model_copy(update={"data": parsed.data.model_copy(update=own)})) if own else config


def result_of(job: ModelJobRow, outcome: Evaluated) -> AskedEvaluationView:
    """What is told of an evaluation, with the job and with the version."""
    asked = EvaluationRequest.model_validate(job.asked)
    return AskedEvaluationView(
        job=job.id, dataset=asked.dataset, data_path=asked.data_path, split=asked.split,
        data_fingerprint=outcome.data_fingerprint, targets=outcome.targets, metrics=outcome.metrics,
        evaluated_at=iso_time(now()),
    )  # fmt: skip
