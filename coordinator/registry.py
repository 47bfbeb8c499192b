"""The registry of models: each round of a session whose model is saved makes a version of a named one."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, not_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql import ColumnElement

from coordinator.certificates import CHECKPOINTER
from coordinator.contributions import count_rounds, credits_of, rounds_credited
from coordinator.downloads import model_size_bytes
from coordinator.model_rows import ModelRow, ModelVersionRow
from coordinator.model_views import (
    ContributorView,
    ModelDetailView,
    ModelView,
    VersionDetailView,
    VersionView,
    is_servable,
    model_view,
    version_detail_view,
    version_view,
)
from coordinator.models import LogRow, ParticipantRow, SessionRow
from coordinator.store import Store, Transaction
from coordinator.version_facts import contributors_of, evaluation_at, model_names
from cotrain.errors import ConflictError, NotFoundError
from cotrain.paths import STATUS_FILE, SharedPaths
from cotrain.status import FINAL_STATES, Status, now, read_status

_logger = logging.getLogger(__name__)

Position = tuple[float, str]
"""Where a page of models begins: creation time and id of the last one seen."""

_SAVED_STATES = ("completed", "stopped")
_MOST_EVALUATIONS = 1000


@dataclass(frozen=True)
class SavedModel:
    """A final model as it lies on disk, and what the checkpointer last said of its session."""

    path: str
    """Relative to the data folder; empty if it is not there, or lies elsewhere."""
    size_bytes: int
    status: Status | None


def look_at_saved(shared: SharedPaths, session: str, path: str) -> SavedModel:
    """What is there of a final model; reads the disk."""
    folder = Path(path)
    size_bytes = model_size_bytes(folder)
    roots = (root for root in (shared.root, shared.root.resolve()) if folder.is_relative_to(root))
    relative = next((str(folder.relative_to(root)) for root in roots), "") if size_bytes else ""
    if not relative:
        _logger.warning("session %s: no model can be downloaded from %s", session, path)
    try:
        # the watcher may not have seen yet what was written just before the model was saved
        status = read_status(shared.run_dir(session, CHECKPOINTER) / STATUS_FILE)
    except (OSError, ValueError) as error:
        _logger.warning("the checkpointer's last status of session %s cannot be read: %s", session, error)
        status = None
    return SavedModel(relative, size_bytes, status if status is not None and status.session == session else None)


class Registry:
    """The models of this coordinator and their versions.

    Readers bring the condition on versions that says which are there for them (`Invitations.versions_seen`): about any
    other, and about a model without one that they see, they hear what they would hear if there were none.
    """

    def __init__(self, store: Store, shared: SharedPaths):
        self._store = store
        self._shared = shared

    async def look_at(self, session: str, path: str) -> SavedModel:
        """`look_at_saved`, in a thread."""
        return await asyncio.to_thread(look_at_saved, self._shared, session, path)

    async def add(
        self, transaction: Transaction, row: SessionRow, saved: SavedModel, round_: int | None,
        records: Sequence[Mapping[str, Any]] = (),
    ) -> ModelVersionRow:  # fmt: skip
        """The version that a session has made of this round: the one that there is, or a new one.

        Files that were removed meanwhile are there again.

        Args:
            round_: whose outer parameters were saved; None: not known.
            records: data of evaluation records that may not be stored yet.
        """
        rows = transaction.rows
        found = await rows.scalar(
            select(ModelVersionRow).where(ModelVersionRow.session_id == row.id, ModelVersionRow.round == round_)
        )
        if found is not None:
            if not found.path:
                found.path, found.size_bytes = saved.path, saved.size_bytes
            return found
        model = await _model_of(rows, row)
        newest = await rows.scalar(select(func.max(ModelVersionRow.version)).where(ModelVersionRow.model_id == model))
        newer = [] if saved.status is None else [r.data for r in saved.status.records if r.kind == "evaluation"]
        evaluation = evaluation_at(round_, [*await _evaluations(rows, row.id), *newer, *records])
        if saved.status is not None:
            await count_rounds(transaction, row.id, saved.status.records)
        said = row.checkpointer_status or {}
        parameters = saved.status.parameters if saved.status else int(said.get("parameters", 0))
        rounds = saved.status.round if saved.status else said.get("round")
        contributors, uncredited = await _contributors(rows, row.id, None if rounds is None else int(rounds))
        made = ModelVersionRow(
            model_id=model, version=(newest or 0) + 1, session_id=row.id, config=row.config,
            data_fingerprint=row.data_key, path=saved.path, size_bytes=saved.size_bytes, round=round_,
            contributors=[one.model_dump(by_alias=True) for one in contributors], uncredited_rounds=uncredited,
            evaluation=None if evaluation is None else evaluation.model_dump(by_alias=True),
            parameters=parameters, pinned=False, visibility=row.visibility,
            created_at=row.updated_at if row.state in FINAL_STATES else now(),
        )  # fmt: skip
        rows.add(made)
        await rows.flush()
        _logger.info("session %s made version %d of model %s", row.id, made.version, model)
        return made

    async def catch_up(self) -> int:
        """Give a version to each saved model that has none: from before there was a registry. Returns how many."""
        query = (
            select(SessionRow.id, SessionRow.model_path)
            .where(
                SessionRow.state.in_(_SAVED_STATES), SessionRow.model_path != "",
                SessionRow.id.not_in(select(ModelVersionRow.session_id).where(ModelVersionRow.session_id.is_not(None))),
            )
            .order_by(SessionRow.updated_at)
        )  # fmt: skip
        async with self._store.read() as rows:
            missing = list(await rows.execute(query))
        for session, path in missing:
            saved = await self.look_at(session, path)
            async with self._store.write() as transaction:
                row = await transaction.rows.get(SessionRow, session)
                if row is not None:
                    await self.add(transaction, row, saved, None)
        return len(missing)

    async def models(
        self, before: Position | None, limit: int, seen: ColumnElement[bool]
    ) -> tuple[list[ModelView], Position | None]:
        """At most `limit` models older than `before`, newest first, and where the next page begins."""
        query = (
            select(ModelRow)
            .where(_with_a_version(seen))
            .order_by(ModelRow.created_at.desc(), ModelRow.id.desc())
            .limit(limit + 1)
        )
        if before is not None:
            query = query.where(tuple_(ModelRow.created_at, ModelRow.id) < before)
        async with self._store.read() as rows:
            found = list(await rows.scalars(query))
            page = found[:limit]
            views = await _views(rows, page, seen)
        return views, (page[-1].created_at, page[-1].id) if len(found) > limit else None

    async def model(
        self, name: str, before: int | None, limit: int, seen: ColumnElement[bool]
    ) -> tuple[ModelDetailView, int | None]:
        """A model by id or name with at most `limit` versions below `before`, newest first, and where to go on.

        Raises NotFoundError.
        """
        query = select(ModelVersionRow).where(seen).order_by(ModelVersionRow.version.desc()).limit(limit + 1)
        if before is not None:
            query = query.where(ModelVersionRow.version < before)
        async with self._store.read() as rows:
            model = await find_model(rows, name, seen)
            (view,) = await _views(rows, [model], seen)
            found = list(await rows.scalars(query.where(ModelVersionRow.model_id == model.id)))
        items = [version_view(row) for row in found[:limit]]
        following = items[-1].version if len(found) > limit else None
        return ModelDetailView(**view.model_dump(), items=items), following

    async def owner(self, name: str, seen: ColumnElement[bool]) -> str:
        """The account whose model it is. Raises NotFoundError."""
        async with self._store.read() as rows:
            return (await find_model(rows, name, seen)).owner

    async def version(self, name: str, number: int | None, seen: ColumnElement[bool]) -> VersionDetailView:
        """A version by number, or the newest one. Raises NotFoundError."""
        async with self._store.read() as rows:
            return version_detail_view(await _find_version(rows, name, number, seen))

    async def folder(
        self, name: str, number: int | None, seen: ColumnElement[bool]
    ) -> tuple[VersionView, Path]:  # fmt: skip
        """A version and where its files lie: by number, or the newest one that has any. Raises NotFoundError."""
        async with self._store.read() as rows:
            row = await _find_version(rows, name, number, seen, with_files=number is None)
        if not row.path:
            raise NotFoundError(
                f"the files of version {row.version} have been removed", field="version",
                hint="GET /api/v1/models/{model} says which versions are available",
            )  # fmt: skip
        return version_view(row), self._shared.root / row.path

    async def hidden_folders(self, seen: ColumnElement[bool]) -> frozenset[Path]:
        """Absolute paths of the files of versions that are not seen, and of what became of chats with their models."""
        query = select(ModelVersionRow.model_id, ModelVersionRow.path).where(not_(seen))
        async with self._store.read() as rows:
            found = [(model, path) for model, path in await rows.execute(query)]
        files = {self._shared.root / path for _, path in found if path}
        data = {self._shared.learned_dataset(model) for model, _ in found}
        return frozenset(folder.resolve() for folder in files | data)

    async def pin(self, name: str, number: int, seen: ColumnElement[bool], *, pinned: bool) -> VersionView:
        """Say whether the files of a version stay. Raises NotFoundError, or ConflictError if they are gone."""
        async with self._store.write() as transaction:
            row = await _find_version(transaction.rows, name, number, seen)
            if pinned and not row.path:
                raise ConflictError(
                    f"the files of version {row.version} have been removed",
                    field="version",
                    hint="pin a version that is available",
                )
            row.pinned = pinned
            return version_view(row)

    async def promote(self, name: str, number: int, seen: ColumnElement[bool]) -> ModelView:
        """Let this version answer chats with the model, an older one as well.

        Raises NotFoundError, or ConflictError if it cannot be chatted with.
        """
        async with self._store.write() as transaction:
            row = await _find_version(transaction.rows, name, number, seen)
            if not is_servable(row.path, row.config):
                raise ConflictError(
                    f"version {row.version} has no files, or is no model that goes on with a text", field="version",
                    hint="GET /api/v1/models/{model} says which versions are servable",
                )  # fmt: skip
            model = await transaction.rows.get_one(ModelRow, row.model_id)
            model.promoted_version = row.version
            (view,) = await _views(transaction.rows, [model], seen)
        _logger.info("version %d of model %s answers its chats", row.version, row.model_id)
        return view


async def _model_of(rows: AsyncSession, row: SessionRow) -> str:
    """Id of the model that a session makes a version of; made, with the session's id, if there is none."""
    unused = secrets.token_hex(8)
    names = model_names(row.name, row.owner, unused)
    found = {model.name: model for model in await rows.scalars(select(ModelRow).where(ModelRow.name.in_(names)))}
    for name in names:
        if name in found and found[name].owner == row.owner:
            return found[name].id
        if name not in found:
            break
    # a model outlives its session, whose id may have been given again
    id_ = row.id if await rows.get(ModelRow, row.id) is None else f"{row.id}-{unused}"
    rows.add(ModelRow(id=id_, name=name, owner=row.owner, created_at=row.updated_at))
    await rows.flush()
    return id_


async def _contributors(
    rows: AsyncSession, session: str, rounds: int | None
) -> tuple[list[ContributorView], int | None]:  # fmt: skip
    """Who gave what to a session of so many rounds (None: not known), and of how many rounds that is not known."""
    found = list(await rows.scalars(
        select(ParticipantRow).where(ParticipantRow.session_id == session)
        .order_by(ParticipantRow.created_at, ParticipantRow.id)
    ))  # fmt: skip
    uncredited = None if rounds is None else max(0, rounds - await rounds_credited(rows, session))
    credits = await credits_of(rows, session, [row.id for row in found])
    return contributors_of(found, credits, all_credited=uncredited == 0), uncredited


async def _evaluations(rows: AsyncSession, session: str) -> list[dict[str, object]]:
    """Data of the last evaluation records of the checkpointer, oldest first."""
    found = await rows.scalars(
        select(LogRow.data)
        .where(LogRow.session_id == session, LogRow.source == CHECKPOINTER, LogRow.kind == "evaluation")
        .order_by(LogRow.id.desc()).limit(_MOST_EVALUATIONS)
    )  # fmt: skip
    return list(found)[::-1]


def _with_a_version(seen: ColumnElement[bool]) -> ColumnElement[bool]:
    return ModelRow.id.in_(select(ModelVersionRow.model_id).where(seen))


async def find_model(rows: AsyncSession, name: str, seen: ColumnElement[bool]) -> ModelRow:
    """By id, else by name. Raises NotFoundError."""
    for names in (ModelRow.id, ModelRow.name):
        found = await rows.scalar(select(ModelRow).where(names == name, _with_a_version(seen)))
        if found is not None:
            return found
    raise NotFoundError("there is no such model", field="model", hint="GET /api/v1/models lists them")


async def _find_version(
    rows: AsyncSession, name: str, number: int | None, seen: ColumnElement[bool], *, with_files: bool = False
) -> ModelVersionRow:
    model = await find_model(rows, name, seen)
    query = select(ModelVersionRow).where(ModelVersionRow.model_id == model.id, seen)
    if number is not None:
        query = query.where(ModelVersionRow.version == number)
    if with_files:
        query = query.where(ModelVersionRow.path != "")
    found = await rows.scalar(query.order_by(ModelVersionRow.version.desc()).limit(1))
    if found is None:
        raise NotFoundError(
            "the model has no such version", field="version", hint=f"GET /api/v1/models/{model.id} lists them"
        )
    return found


async def _views(rows: AsyncSession, models: list[ModelRow], seen: ColumnElement[bool]) -> list[ModelView]:
    """Models with how many versions of them are seen, and the newest of those."""
    counted = await rows.execute(
        select(ModelVersionRow.model_id, func.count(), func.max(ModelVersionRow.version))
        .where(ModelVersionRow.model_id.in_([model.id for model in models]), seen).group_by(ModelVersionRow.model_id)
    )  # fmt: skip
    counts = {model: (count, newest) for model, count, newest in counted}
    wanted = [(model, newest) for model, (_, newest) in counts.items()]
    found = await rows.scalars(
        select(ModelVersionRow).where(tuple_(ModelVersionRow.model_id, ModelVersionRow.version).in_(wanted))
    )
    newest_rows = {row.model_id: row for row in found}
    return [model_view(model, counts.get(model.id, (0, 0))[0], newest_rows.get(model.id)) for model in models]
