"""Which version of a model a chat is answered by, and which models there are to chat with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql import ColumnElement

from coordinator.model_rows import ModelRow, ModelVersionRow
from coordinator.model_views import is_servable
from coordinator.registry import find_model
from coordinator.store import Store
from cotrain.chat_protocol import ServedModel
from cotrain.errors import NotFoundError
from cotrain.paths import SharedPaths

_MOST_LISTED = 500
_MOST_DIGITS = 9


@dataclass(frozen=True)
class ServedVersion:
    """A version that can be chatted with."""

    model: str
    """Its model's id."""
    version: int
    folder: Path

    @property
    def name(self) -> str:
        """As requests and answers name it."""
        return f"{self.model}:{self.version}"


class ChatModels:
    """The models of the registry, as chats name them: by id or name, or the same with a colon and a version behind it.

    A name alone stands for the promoted version, or the newest one where none was promoted or its files are gone.
    """

    def __init__(self, store: Store, shared: SharedPaths):
        self._store = store
        self._shared = shared

    async def resolve(self, name: str, seen: ColumnElement[bool]) -> list[ServedVersion]:
        """The version that is meant, and behind it those that may answer in its place until it is loaded.

        Args:
            seen: which versions are there for whoever asks (`Invitations.versions_seen`).

        Raises NotFoundError.
        """
        async with self._store.read() as rows:
            model, number = await _find(rows, name, seen)
            versions = await _servable(rows, seen, ModelVersionRow.model_id == model.id)
        wanted = [row for row in versions if number in (None, row.version)]
        if not wanted:
            raise NotFoundError(
                "the model has no such version to chat with", field="model", hint="GET /v1/models lists what there is"
            )
        # of the rest the order is the newest first already, and sorting keeps it
        wanted.sort(key=lambda row: row.version != model.promoted_version)
        return [ServedVersion(row.model_id, row.version, self._shared.root / row.path) for row in wanted]

    async def listed(self, seen: ColumnElement[bool]) -> list[ServedModel]:
        """Each model by its id, and each of its versions, the newest first."""
        async with self._store.read() as rows:
            versions = await _servable(rows, seen)
            found = await rows.scalars(select(ModelRow).where(ModelRow.id.in_({row.model_id for row in versions})))
            owners = {model.id: model.owner for model in found}
        names = dict.fromkeys(row.model_id for row in versions)
        newest = {row.model_id: row for row in reversed(versions)}
        models = [_listed(name, newest[name], owners) for name in names]
        return [*models, *(_listed(f"{row.model_id}:{row.version}", row, owners) for row in versions)]


async def _find(rows: AsyncSession, name: str, seen: ColumnElement[bool]) -> tuple[ModelRow, int | None]:
    """A model, and the version if one is named; a name with a colon in it is looked for as it is first."""
    try:
        return await find_model(rows, name, seen), None
    except NotFoundError:
        model, _, number = name.rpartition(":")
        if not model or not (number.isascii() and number.isdecimal() and len(number) <= _MOST_DIGITS):
            raise
        return await find_model(rows, model, seen), int(number)


async def _servable(rows: AsyncSession, *conditions: ColumnElement[bool]) -> list[ModelVersionRow]:
    """Newest first."""
    query = (
        select(ModelVersionRow).where(ModelVersionRow.path != "", *conditions)
        .order_by(ModelVersionRow.created_at.desc(), ModelVersionRow.version.desc()).limit(_MOST_LISTED)
    )  # fmt: skip
    found: Iterable[ModelVersionRow] = await rows.scalars(query)
    return [row for row in found if is_servable(row.path, row.config)]


def _listed(name: str, row: ModelVersionRow, owners: dict[str, str]) -> ServedModel:
    return ServedModel(id=name, created=int(row.created_at), owned_by=owners.get(row.model_id, ""))
