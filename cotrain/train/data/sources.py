"""What lies at a data path: its kind of files, which are for training and for validation, and how they are read."""

from __future__ import annotations

import functools
import json
import logging
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from cotrain.errors import ConfigError
from cotrain.json_rows import read_json
from cotrain.records import Reader
from cotrain.status import read_json_object
from cotrain.train.data.arrow_rows import class_names_of, read_arrow, read_class_names, read_parquet
from cotrain.train.data.csv_rows import read_csv
from cotrain.train.data.documents import read_pieces, read_whole, standard_library_files

Kind: TypeAlias = Literal["text", "JSON", "CSV", "Parquet", "Arrow"]
KINDS: dict[str, Kind] = {
    ".txt": "text", ".md": "text", ".py": "text", ".jsonl": "JSON", ".ndjson": "JSON", ".json": "JSON",
    ".csv": "CSV", ".tsv": "CSV", ".parquet": "Parquet", ".arrow": "Arrow",
}  # fmt: skip
"""What is read, by the suffix of its name; everything else (pickles, archives, scripts) is refused."""

_DESCRIPTIONS = re.compile(r"(readme|licen[cs]e|citation).*|dataset_infos?\.json|dataset_dict\.json|state\.json", re.I)
"""Files beside the rows of a dataset that hold none."""
_SPLIT_NAMES = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip
_MOST_METADATA_BYTES = 16 * 2**20

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """The files of a dataset."""

    name: str
    """For people."""
    kind: Kind
    train: tuple[Path, ...]
    validation: tuple[Path, ...] = ()
    """Where the dataset has a validation split of its own; else one is split off."""
    lone: bool = False
    """One text file, which is cut into documents."""
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the classes of integer columns, where the files have them."""

    def reader(self, columns: Collection[str]) -> Reader:
        """Reads one of the files; `columns` are those that its rows must have."""
        match self.kind:
            case "text":
                return read_pieces if self.lone else read_whole
            case "JSON":
                return read_json
            case "CSV":
                return functools.partial(read_csv, wanted=columns)
            case "Parquet":
                return functools.partial(read_parquet, wanted=columns)
            case "Arrow":
                return functools.partial(read_arrow, wanted=columns)


def builtin_source() -> Source:
    """The source text of Python's standard library."""
    return Source("the standard library's source text", "text", tuple(standard_library_files()))


def find_source(path: Path, *, name: str, pattern: str = "") -> Source:
    """What lies at `path`; `name` is what the person called it.

    Args:
        pattern: of a folder only the files that match this glob are taken.

    Raises ConfigError if there is nothing that can be read, or more than one kind of it; OSError where the file
    system refuses.
    """
    if path.is_dir():
        if (path / "dataset_dict.json").is_file():
            return _saved_splits(path, name)
        return _saved_split(path, name) if (path / "state.json").is_file() else _folder(path, name, pattern)
    path.stat()
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(
            f"{path.name} is of no kind that is read here", field=name,
            hint=f"give text, JSONL, CSV or Parquet ({', '.join(KINDS)}), unpacked; code and pickles are never loaded",
        )  # fmt: skip
    return _source(name, kind, [path], lone=True)


def _source(
    name: str, kind: Kind, train: Sequence[Path], validation: Sequence[Path] = (), *, lone: bool = False
) -> Source:  # fmt: skip
    class_names = read_class_names(train[0]) if kind in ("Parquet", "Arrow") else {}
    return Source(name, kind, tuple(train), tuple(validation), lone, class_names)


# ----------------------------------------------------------------------------------------------- folders
def _folder(path: Path, name: str, pattern: str) -> Source:
    files: dict[Kind, list[Path]] = defaultdict(list)
    other: list[str] = []
    for relative in _inner_files(path):
        if pattern and not relative.match(pattern):
            continue
        if kind := KINDS.get(relative.suffix.lower()):
            files[kind].append(relative)
        else:
            other.append(relative.name)
    if files.keys() - {"text"}:
        for kind in list(files):
            files[kind] = [file for file in files[kind] if not _DESCRIPTIONS.fullmatch(file.name)]
    kinds = [kind for kind in files if files[kind]]
    if not kinds:
        found = f"only {', '.join(other[:3])}, which are not read" if other else "no file"
        raise ConfigError(
            f"holds no text and no rows, but {found}", field=name,
            hint=f"give a folder with {', '.join(KINDS)} files, unpacked; code and pickles are never loaded",
        )  # fmt: skip
    if len(kinds) > 1:
        examples = " and ".join(f"{kind} ({files[kind][0]})" for kind in kinds)
        raise ConfigError(f"holds more than one kind of data: {examples}", field=name, hint="keep one kind in a folder")
    kind = kinds[0]
    if kind == "text":
        return _source(name, kind, [path / file for file in files[kind]])
    train, validation = named_splits(files[kind])
    return _source(name, kind, [path / file for file in train], [path / file for file in validation])


def _inner_files(root: Path) -> Iterator[Path]:
    """The files below a folder, relative to it and in order; hidden ones and links that lead out are passed over."""
    inside = root.resolve()
    for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).as_posix()):
        relative = path.relative_to(root)
        if any(part.startswith(".") for part in relative.parts) or not path.is_file():
            continue
        if path.resolve().is_relative_to(inside):
            yield relative
        else:
            logger.warning("passed over %s: the link leads out of the folder", path)


def named_splits(files: list[Path]) -> tuple[list[Path], list[Path]]:
    """The files for training and for validation, by the split that their names or folders tell.

    Where none tells `train`, all are for training. A test split is left alone: it is for judging the final model.
    """
    by_split: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        words = re.split(r"[^a-z]+", file.with_suffix("").as_posix().lower())
        by_split[next((_SPLIT_NAMES[word] for word in reversed(words) if word in _SPLIT_NAMES), "")].append(file)
    return (by_split["train"], by_split["validation"]) if by_split["train"] else (files, [])


# --------------------------------------------------------------------- saved by Hugging Face `datasets`
def _saved_splits(path: Path, name: str) -> Source:
    """A `DatasetDict`: a folder for each split."""
    splits = _metadata(path / "dataset_dict.json").get("splits")
    if not isinstance(splits, list) or "train" not in splits:
        raise ConfigError(
            f"holds the splits {splits}, but none is called train", field=name, hint="name the folder of one split"
        )
    train = _saved_split(path / "train", name)
    validation = _saved_split(path / "validation", name).train if "validation" in splits else ()
    return Source(name, "Arrow", train.train, validation, class_names=train.class_names)


def _saved_split(path: Path, name: str) -> Source:
    """A `Dataset`: Arrow streams, named in `state.json`."""
    listed = _metadata(path / "state.json").get("_data_files")
    names = [entry.get("filename") for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    files = [path / file for file in names if isinstance(file, str) and Path(file).name == file]
    if not files or len(files) < len(names):
        raise ConfigError("does not name its data files", field=str(path / "state.json"), hint="save the dataset again")
    source = _source(name, "Arrow", files)
    described = path / "dataset_info.json"
    if source.class_names or not described.is_file():
        return source
    class_names = class_names_of(_metadata(described).get("features"))
    return Source(name, "Arrow", source.train, class_names=class_names)


def _metadata(path: Path) -> dict[str, object]:
    try:
        return read_json_object(path, limit_bytes=_MOST_METADATA_BYTES)
    except (ValueError, json.JSONDecodeError) as error:
        raise ConfigError(f"is not a dataset's description: {error}", field=str(path)) from error
