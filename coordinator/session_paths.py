"""Where the paths in a session's config may lead: into the coordinator's data folder, since anybody may ask for one."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from cotrain.catalog import Catalog, ModelEntry, is_hub_id, resolve_dataset, resolve_model
from cotrain.config import BYTES, RunConfig
from cotrain.errors import ConfigError, InvalidRequestError, NotFoundError
from cotrain.paths import SharedPaths
from cotrain.request import request_field
from cotrain.sections import Section

S = TypeVar("S", bound=Section)

_OWN_FOLDERS = tuple((part,) for part in ("final", "temp"))
"""Of `models`: what sessions have made, and what they need while they run."""


def confine(config: RunConfig, shared: SharedPaths) -> RunConfig:
    """The config with every path in it made absolute, and models by catalog name replaced by where they come from.

    `data.data_path` is looked for in the data folder's `datasets`; `model.source`, `distillation.teacher` and
    `data.tokenizer` in its `models`, unless they name a model of the catalog or the hub. Raises ConfigError for a
    path that leads elsewhere, NotFoundError for a name that nothing has.
    """
    models = shared.root / "models"
    source, teacher, data = config.model.source, config.distillation.teacher, config.data
    if data.data_path is not None:
        data = _with(data, data_path=str(inside(shared.datasets, data.data_path, field="data.data_path")))
    if data.tokenizer not in (None, BYTES):
        data = _with(data, tokenizer=_model(models, data.tokenizer, field="data.tokenizer"))
    model, distillation = config.model, config.distillation
    if source is not None:
        model = _with(model, source=_model(models, source, field="model.source"))
    if config.distillation.enabled and teacher is not None:
        distillation = _with(distillation, teacher=_model(models, teacher, field="distillation.teacher"))
    return _with(config, data=data, model=model, distillation=distillation)


def check_names(config: RunConfig, shared: SharedPaths, catalog: Catalog, hidden: Collection[Path] = ()) -> None:
    """Whether every path and name of a request leads somewhere that `confine` allows; what hub ids name is not fetched.

    Names that people have added to the catalog count, too: `catalog_entries.with_sources` replaces them.

    Args:
        hidden: folders that are not there for whoever asks (`Registry.hidden_folders`).

    Raises InvalidRequestError that names the request's field, with near matches for a name that nothing has.
    """
    models, data = shared.root / "models", config.data
    names = {"model.source": config.model.source, "data.tokenizer": None if data.tokenizer == BYTES else data.tokenizer}
    if config.distillation.enabled:
        names["distillation.teacher"] = config.distillation.teacher
    for key, name in names.items():
        with refused_as(request_field(key), "models"):
            if name is not None:
                _model(models, name, catalog.models, field=key, hidden=hidden)
    if data.data_path is not None:
        check_data_path(data.data_path, shared, hidden, field=request_field("data.data_path"))
    with refused_as(request_field("data.dataset"), "datasets"):
        if data.dataset is not None:
            resolve_dataset(data.dataset, catalog.datasets)


def check_data_path(path: str, shared: SharedPaths, hidden: Collection[Path], *, field: str) -> None:
    """Whether a request may name this path for its data. It may come later, unless it is one that cotrain fills.

    Args:
        hidden: folders that are not there for whoever asks (`Registry.hidden_folders`).

    Raises InvalidRequestError that names the request's field.
    """
    with refused_as(field, "datasets"):
        target = inside(shared.datasets, path, field=field)
        if is_withheld(target, shared, hidden):
            raise NotFoundError(
                f"there is no data {path}", field=field, hint="name a file or folder in the coordinator's datasets"
            )


def is_withheld(target: Path, shared: SharedPaths, hidden: Collection[Path]) -> bool:
    """Whether an absolute path in `datasets` leads to what became of chats, and is not there for whoever asks.

    Nor is a folder that holds the data of all models, for some are private, or will be. Raises OSError for a path that
    cannot be looked for.
    """
    learned = shared.learned_datasets.resolve()
    is_there = target.exists()
    if target.is_relative_to(learned):
        return target == learned or not is_there or is_hidden(target, hidden)
    return learned.is_relative_to(target)


@contextlib.contextmanager
def refused_as(field: str, folder: str) -> Iterator[None]:
    """Errors about a path or a name as errors about the request's field, without the coordinator's own paths."""
    try:
        yield
    except NotFoundError as error:
        raise InvalidRequestError(error.message, field=field, hint=error.hint, details=error.details) from error
    except OSError as error:  # a name that is too long for the file system, above all
        raise InvalidRequestError(
            f"cannot be a path: {error.strerror}", field=field, hint=f"name a file or folder in {folder}"
        ) from error
    except ConfigError as error:
        raise InvalidRequestError(
            f"leads out of the coordinator's {folder}", field=field,
            hint="name it relative to that folder",
        ) from error  # fmt: skip


def inside(folder: Path, path: str, *, field: str) -> Path:
    """The absolute path of `path` in `folder`. Raises ConfigError if it leads out of it."""
    folder = folder.resolve()
    target = (folder / path).resolve()
    if not target.is_relative_to(folder):
        raise ConfigError(
            f"{path} lies outside {folder}", field=field, hint="put it there and name it relative to that folder"
        )
    return target


def is_hidden(path: Path, hidden: Collection[Path]) -> bool:
    """Whether an absolute path lies in one of these folders."""
    return any(path.is_relative_to(folder) for folder in hidden)


def _model(
    models: Path, name: str, catalog: Sequence[ModelEntry] | None = None, *, field: str, hidden: Collection[Path] = ()
) -> str:  # fmt: skip
    folder = inside(models, name, field=field)
    if folder.is_dir() and not is_hidden(folder, hidden):
        return str(folder)
    if folder.relative_to(models.resolve()).parts[:1] in _OWN_FOLDERS:  # it looks like an id of the hub, and is none
        raise NotFoundError(f"there is no model {name}", field=field, hint="GET /api/v1/models lists those that are")
    if is_hub_id(name) and Path(name).exists():  # a folder of the coordinator's own, read as one by whoever loads it
        raise ConfigError(f"{name} lies outside {models}", field=field, hint="move it there, or start elsewhere")
    return resolve_model(name, catalog)


def _with(section: S, **changes: object) -> S:
    return section.model_copy(update=changes)
