"""The models and datasets to choose from by name; `configs/catalog/*.toml` lists those that come with cotrain.

A coordinator keeps what people have added to it. An entry that is not `verified` carries an id or a licence that could
not be checked on the hub: look at its page before you build on it.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from cotrain.config import RunConfig
from cotrain.errors import ConfigError, NotFoundError
from cotrain.paths import configs_dir
from cotrain.sections import FieldsSection, ModelType, Section, Source, TaskName

EntryId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
HubId = Annotated[str, Field(pattern=rf"^{_HUB_ID.pattern}$")]
_MOST_LISTED = 20
"""Ids in an error that knows no near match."""


class CatalogEntry(Section):
    """What models and datasets have in common."""

    id: EntryId
    """The name to use in a config."""
    name: Annotated[str, Field(min_length=1, max_length=120)]
    """What people call it."""
    hugging_face_id: HubId | None = None
    """Where it comes from."""
    path: Source | None = None
    """Where it lies instead: a path in the coordinator's folder of models or datasets."""
    licence: Annotated[str, Field(min_length=1)]
    """As its page states it; `unknown` if it states none."""
    verified: bool
    """Whether id and licence were checked against its page."""
    language: str = "fa"
    """ISO 639-1."""
    owner: str = ""
    """CAIP-10 account that has added it; empty: it came with cotrain."""

    @model_validator(mode="after")
    def _lies_somewhere(self) -> Self:
        if (self.hugging_face_id is None) == (self.path is None):
            raise ValueError("give hugging_face_id or path, one of them")
        return self

    @property
    def source(self) -> str:
        """The hub id or the path."""
        return self.hugging_face_id or self.path or ""

    @property
    def names(self) -> frozenset[str]:
        """What it can be called, in small letters. A hub id that somebody has added stays the hub's own."""
        hub_id = "" if self.owner else self.hugging_face_id or ""
        return frozenset({self.id, self.name.strip().casefold(), hub_id.casefold()}) - {""}


class ModelEntry(CatalogEntry):
    """A model to go on from."""

    type: ModelType
    """Architecture."""
    size_bytes: Annotated[int, Field(ge=1)]
    """Of the download, about."""


class DatasetEntry(CatalogEntry):
    """A dataset to learn from."""

    task: TaskName
    """What it is made for."""
    size: str
    """Rows or bytes, in words."""
    files: str = ""
    """Only the files of the repository that match this glob; empty: all data files."""
    normalization: Literal["none", "persian"] = "none"
    """Spelling to unify, unless the config says otherwise."""
    fields: FieldsSection = FieldsSection()
    """What its columns are called."""

    def fields_beside(self, fields: FieldsSection) -> FieldsSection:
        """Its columns, where `fields` does not say otherwise."""
        said = {name: getattr(fields, name) for name in fields.model_fields_set}
        return self.fields.model_copy(update=said)


EntryT = TypeVar("EntryT", bound=CatalogEntry)


@dataclass(frozen=True)
class Catalog:
    """What can be named."""

    models: Sequence[ModelEntry]
    datasets: Sequence[DatasetEntry]


# --------------------------------------------------------------------------------------------- the files
def load_models() -> list[ModelEntry]:
    """The models of `configs/catalog/models.toml`. Raises ConfigError if it cannot be read."""
    return _load("models", ModelEntry)


def load_datasets() -> list[DatasetEntry]:
    """The datasets of `configs/catalog/datasets.toml`. Raises ConfigError if it cannot be read."""
    return _load("datasets", DatasetEntry)


def _load(kind: str, entry: type[EntryT]) -> list[EntryT]:
    path = configs_dir() / "catalog" / f"{kind}.toml"
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get(kind, [])
        entries = [entry.model_validate(table) for table in tables]
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", field=str(path), hint="COTRAIN_CONFIGS names the folder of configs"
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where}: {first['msg']}", field=str(path), hint=f"see {entry.__name__}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise ConfigError(f"is not a catalog: {error}", field=str(path), hint=f"it holds [[{kind}]] tables") from error
    if len({entry.id for entry in entries}) < len(entries):
        raise ConfigError("an id stands twice", field=str(path), hint="give each entry an id of its own")
    return entries


# --------------------------------------------------------------------------------------------- look-ups
def find_model(name: str) -> ModelEntry:
    """The model of this id, name or hub id. Raises NotFoundError naming near matches."""
    return find_entry(name, load_models(), "model")


def find_dataset(name: str) -> DatasetEntry:
    """The dataset of this id, name or hub id. Raises NotFoundError naming near matches."""
    return find_entry(name, load_datasets(), "dataset")


def match_entry(name: str, entries: Sequence[EntryT]) -> EntryT | None:
    """The entry of this id, name or hub id; None if there is none."""
    wanted = name.strip().casefold()
    return next((entry for entry in entries if wanted in entry.names), None)


def find_entry(name: str, entries: Sequence[EntryT], kind: str) -> EntryT:
    """The entry of this id, name or hub id. Raises NotFoundError naming near matches; `kind` is what people call it."""
    if entry := match_entry(name, entries):
        return entry
    names = {text: entry.id for entry in entries for text in sorted(entry.names)}
    listed = [entry.id for entry in entries[:_MOST_LISTED]] + (["…"] if len(entries) > _MOST_LISTED else [])
    near = [names[text] for text in difflib.get_close_matches(name.casefold(), names, n=5, cutoff=0.4)]
    raise NotFoundError(
        f"there is no {kind} {name!r}", field=kind,
        hint=f"did you mean {' or '.join(dict.fromkeys(near))}?" if near
        else f"the catalog has {', '.join(listed)}",
        details={"near": list(dict.fromkeys(near))},
    )  # fmt: skip


def is_hub_id(text: str) -> bool:
    """Whether it has the form `organization/name` of the Hugging Face hub."""
    return _HUB_ID.fullmatch(text) is not None and ".." not in text


def resolve_model(source: str, models: Sequence[ModelEntry] | None = None) -> str:
    """Where a model comes from: the source of a catalog name, a local folder, or the hub id itself.

    Args:
        models: the catalog; None: those that come with cotrain.

    Raises NotFoundError, naming near matches, for anything else.
    """
    entries = load_models() if models is None else models
    if entry := match_entry(source, entries):
        return entry.source
    if Path(source).is_dir() or is_hub_id(source):
        return source
    return find_entry(source, entries, "model").source


def resolve_dataset(source: str, datasets: Sequence[DatasetEntry] | None = None) -> str:
    """The source of a catalog name, or the hub id itself; local data has a key of its own, `data.data_path`.

    Args:
        datasets: the catalog; None: those that come with cotrain.

    Raises NotFoundError, naming near matches, for anything else.
    """
    entries = load_datasets() if datasets is None else datasets
    if entry := match_entry(source, entries):
        return entry.source
    return source if is_hub_id(source) else find_entry(source, entries, "dataset").source


def with_resolved_models(config: RunConfig) -> RunConfig:
    """The config with catalog names of the source and the teacher replaced by where these come from.

    Raises NotFoundError, naming near matches.
    """
    model, distillation = config.model, config.distillation
    if model.source is not None:
        model = model.model_copy(update={"source": resolve_model(model.source)})
    if distillation.enabled and distillation.teacher is not None:
        distillation = distillation.model_copy(update={"teacher": resolve_model(distillation.teacher)})
    return config.model_copy(update={"model": model, "distillation": distillation})
