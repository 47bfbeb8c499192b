"""The catalog of a coordinator: what came with cotrain, and the models and datasets that people have added."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.auth.limits import Limits
from coordinator.idempotency import Keep, keep_nothing
from coordinator.models import CatalogEntryRow
from coordinator.session_paths import inside, is_hidden, is_withheld, refused_as
from coordinator.store import Store
from cotrain.catalog import (
    Catalog,
    DatasetEntry,
    EntryId,
    EntryT,
    HubId,
    ModelEntry,
    find_entry,
    is_hub_id,
    load_datasets,
    load_models,
    match_entry,
)
from cotrain.config import BYTES
from cotrain.errors import ConflictError, InvalidRequestError, NotFoundError
from cotrain.paths import SharedPaths
from cotrain.request import CamelModel, SessionRequest
from cotrain.sections import LARGEST_INTEGER, FieldsSection, ModelType, Normalization, Source, TaskName, Text, Title
from cotrain.status import now

MOST_ADDED = 1000
"""Entries of one kind that people can add in all: each is looked at for near matches."""


class EntryRequest(
    CamelModel,
    json_schema_extra={
        "oneOf": [
            {
                "required": ["huggingFaceId"],
                "properties": {"huggingFaceId": {"type": "string"}, "path": {"type": "null"}},
            },
            {"required": ["path"], "properties": {"huggingFaceId": {"type": "null"}, "path": {"type": "string"}}},
        ]
    },
):
    """Something to be added to the catalog: `huggingFaceId` or `path` says where it comes from, one of them."""

    id: EntryId
    """The name to use in requests."""
    name: Annotated[str, Field(max_length=120, pattern=r"^[^\x00-\x20/][^\x00-\x1f/]*$")]
    """What people call it. Without a slash, so that it is told from a hub id or a path."""
    hugging_face_id: HubId | None = None
    """On the hub."""
    path: Source | None = None
    """In the coordinator's folder of models or datasets, relative to it; it must be there already."""
    licence: Annotated[Title, Field(min_length=1)] = "unknown"
    """As its page states it."""
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")] = "fa"
    """ISO 639."""


class ModelEntryRequest(EntryRequest):
    """A model to be added to the catalog."""

    type: ModelType
    """Architecture."""
    size_bytes: Annotated[int, Field(ge=1, le=LARGEST_INTEGER)]
    """Of its files, about."""


class DatasetEntryRequest(EntryRequest):
    """A dataset to be added to the catalog."""

    task: TaskName
    """What it is made for."""
    size: Text = ""
    """Rows or bytes, in words."""
    normalization: Normalization = "none"
    """Spelling to unify, unless a request says otherwise."""
    fields: FieldsSection = Field(default_factory=FieldsSection)
    """What its columns are called, unless a request says otherwise."""


@dataclass(frozen=True)
class Kind(Generic[EntryT]):
    """Models or datasets.

    Attributes:
        name: for people and in the table.
        folder: of the data folder, where paths lead.
        load: those that come with cotrain.
    """

    name: Literal["model", "dataset"]
    folder: str
    load: Callable[[], list[EntryT]]
    request: type[EntryRequest]
    entry: type[EntryT]


MODELS = Kind("model", "models", load_models, ModelEntryRequest, ModelEntry)
DATASETS = Kind("dataset", "datasets", load_datasets, DatasetEntryRequest, DatasetEntry)


class CatalogEntries:
    """The catalog of this coordinator. Entries that come with cotrain stand before those that people have added."""

    def __init__(self, store: Store, limits: Limits, shared: SharedPaths):
        self._store = store
        self._limits = limits
        self._shared = shared

    async def all(self, kind: Kind[EntryT]) -> list[EntryT]:
        """Every entry of a kind."""
        async with self._store.read() as rows:
            return [*kind.load(), *await _added(rows, kind)]

    async def page(self, kind: Kind[EntryT], after: str | None, limit: int) -> tuple[list[EntryT], str | None]:
        """At most `limit` entries behind the one of this id, and the id behind which the next page begins."""
        given = kind.load()
        ids = [entry.id for entry in given]
        if after is not None:
            given = given[ids.index(after) + 1 :] if after in ids else []
        added_after = "" if after is None or after in ids else after
        async with self._store.read() as rows:
            added = await _added(rows, kind, after=added_after, limit=limit + 1 - len(given))
        found = [*given, *added]
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def find(self, kind: Kind[EntryT], name: str) -> EntryT:
        """The entry of this id or name. Raises NotFoundError naming near matches."""
        return find_entry(name, await self.all(kind), kind.name)

    async def for_request(self, request: SessionRequest) -> Catalog:
        """What the names in a request may stand for; what people have added is read only where it names anything."""
        async with self._store.read() as rows:
            return Catalog(
                [*load_models(), *(await _added(rows, MODELS) if any(_named_models(request)) else ())],
                [*load_datasets(), *(await _added(rows, DATASETS) if request.data.dataset else ())],
            )

    async def add(
        self, kind: Kind[EntryT], request: EntryRequest, owner: str, hidden: Collection[Path],
        keep: Keep = keep_nothing,
    ) -> EntryT:  # fmt: skip
        """A new entry of this account; `keep` is given it, in the transaction.

        Args:
            hidden: folders that are not there for this account (`Registry.hidden_folders`).

        Raises InvalidRequestError, ConflictError if one of its names is taken, or RateLimitedError if the account has
        too many.
        """
        request = self._checked(kind, request, hidden)
        entry = _entry(kind, request, owner)
        async with self._store.write() as transaction:
            rows = transaction.rows
            owned = select(func.count()).select_from(CatalogEntryRow).where(CatalogEntryRow.owner == owner)
            self._limits.catalog_entry(await rows.scalar(owned) or 0)
            added = await _added(rows, kind)
            if len(added) >= MOST_ADDED:
                raise ConflictError("the catalog is full", hint="an operator of this coordinator can delete entries")
            self._check_names(kind, entry, [*kind.load(), *added])
            content = request.model_dump(mode="json", by_alias=True)
            rows.add(CatalogEntryRow(kind=kind.name, id=entry.id, owner=owner, entry=content, created_at=now()))
            await rows.flush()
            await keep(transaction, entry)
        return entry

    async def delete(self, kind: Kind[Any], entry: str, check: Callable[[str], None]) -> None:
        """Delete the entry of this id; sessions that were opened with it keep what it stood for.

        Args:
            check: is given the owner, and raises if the caller may not do this.

        Raises NotFoundError, or ConflictError for one that came with cotrain.
        """
        if any(given.id == entry for given in kind.load()):
            raise ConflictError(
                f"this {kind.name} came with cotrain", field="entry",
                hint="the operator's folder of configs lists it: COTRAIN_CONFIGS",
            )  # fmt: skip
        async with self._store.write() as transaction:
            row = await transaction.rows.get(CatalogEntryRow, (kind.name, entry))
            if row is None:
                raise NotFoundError(
                    f"there is no {kind.name} of this id", field="entry", hint=f"GET /api/v1/catalog/{kind.folder}"
                )
            check(row.owner)
            await transaction.rows.delete(row)

    # ------------------------------------------------------------------------------------------ what is refused
    def _checked(self, kind: Kind[EntryT], request: EntryRequest, hidden: Collection[Path]) -> EntryRequest:
        """The request with its path as it is in the folder. Raises InvalidRequestError."""
        if (request.hugging_face_id is None) == (request.path is None):
            raise InvalidRequestError(
                "give huggingFaceId or path, one of them", field="path",
                hint="an id of the hub, or a path in the coordinator's data folder",
            )  # fmt: skip
        if request.hugging_face_id is not None and not is_hub_id(request.hugging_face_id):
            raise InvalidRequestError(
                "is no id of the hub", field="huggingFaceId", hint="it looks like organization/name"
            )
        if request.path is None:
            return request
        folder = self._shared.root / kind.folder
        with refused_as("path", kind.folder):
            target = inside(folder, request.path, field="path")
            there = target.is_dir() if kind.name == "model" else target.exists()
            withheld = is_hidden(target, hidden) if kind.name == "model" else is_withheld(target, self._shared, hidden)
        if not there or target == folder.resolve() or withheld:
            raise InvalidRequestError(
                f"there is no such {'folder' if kind.name == 'model' else 'file or folder'}", field="path",
                hint=f"put it into the coordinator's {kind.folder} first, and name it relative to that folder",
            )  # fmt: skip
        return request.model_copy(update={"path": target.relative_to(folder.resolve()).as_posix()})

    def _check_names(self, kind: Kind[EntryT], entry: EntryT, others: Sequence[EntryT]) -> None:
        """Raises ConflictError where a name of the entry already means something."""
        for other in others:
            if taken := entry.names & other.names:
                name = min(taken)
                raise ConflictError(
                    f"{name!r} is a name of the {kind.name} {other.id} already",
                    field="id" if name == entry.id else "name", hint="choose another one",
                )  # fmt: skip
        if kind.name == "model" and (self._shared.root / kind.folder / entry.id).exists() and entry.id != entry.path:
            raise ConflictError(
                f"{entry.id!r} is in the coordinator's folder of models", field="id", hint="choose another one"
            )


def with_sources(request: SessionRequest, catalog: Catalog, shared: SharedPaths) -> SessionRequest:
    """The request with what people have added to the catalog replaced by where it comes from, and columns spelled out.

    A config then says everything by itself: the checkpointer has no database, and an entry may be deleted meanwhile.
    The names have been checked before (`session_paths.check_names`).
    """
    models = shared.root / MODELS.folder

    def model_source(name: str | None) -> str | None:
        if name is None or name == BYTES or (models / name).is_dir():
            return name
        entry = match_entry(name, catalog.models)
        return entry.source if entry is not None and entry.owner else name

    data = request.data
    dataset = match_entry(data.dataset or "", catalog.datasets)
    changes: dict[str, Any] = {"tokenizer": model_source(data.tokenizer)}
    if dataset is not None:
        # a config has every column's name, so that the catalog's would not count where it is read
        changes["fields"] = dataset.fields_beside(data.fields)
        changes["normalization"] = data.normalization or dataset.normalization
        if dataset.owner:
            changes |= {"dataset": dataset.hugging_face_id, "data_path": dataset.path}
    model, distillation = request.model, request.distillation
    if request.training.enable_distillation:
        distillation = distillation.model_copy(update={"teacher": model_source(distillation.teacher)})
    return request.model_copy(
        update={
            "data": data.model_copy(update=changes),
            "model": model.model_copy(update={"source": model_source(model.source)}),
            "distillation": distillation,
        }
    )


def _named_models(request: SessionRequest) -> tuple[str | None, ...]:
    return request.model.source, request.distillation.teacher, request.data.tokenizer


async def _added(
    rows: AsyncSession, kind: Kind[EntryT], *, after: str = "", limit: int = MOST_ADDED
) -> list[EntryT]:  # fmt: skip
    """Those of this kind that people have added with an id above `after`, by id."""
    found = await rows.scalars(
        select(CatalogEntryRow).where(CatalogEntryRow.kind == kind.name, CatalogEntryRow.id > after)
        .order_by(CatalogEntryRow.id).limit(max(0, limit))
    )  # fmt: skip
    return [_entry(kind, kind.request.model_validate(row.entry), row.owner) for row in found]


def _entry(kind: Kind[EntryT], request: EntryRequest, owner: str) -> EntryT:
    return kind.entry.model_validate({**request.model_dump(), "owner": owner, "verified": False})
