"""The file of a split: samples as named 1-D arrays in one safetensors file, mapped into memory.

Packed tasks keep one stream of tokens; the others keep each column of all samples end to end, with the offsets at
which the samples begin. The metadata holds the DataSpec, so that whoever trains needs only this file.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from cotrain.errors import ConfigError, IntegrityError
from cotrain.train.data.permutation import Indices
from cotrain.train.spec import DataSpec
from cotrain.train.tasks.base import Sample, Task
from cotrain.train.tasks.metrics import Batch

FORMAT = "1"
TOKENS = "tokens"
"""The one column of packed samples."""
_OFFSETS = ".offsets"
_REMAKE = "remove it, and it is made or fetched again"
_DTYPES: dict[str, type[np.integer[Any]]] = {
    "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16, "U32": np.uint32, "I32": np.int32,
    "I64": np.int64,
}  # fmt: skip
"""By their names in safetensors, the smallest first."""
_DTYPE_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_COPIED_AT_ONCE = 2**20

Integers = NDArray[np.integer[Any]]


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest type that holds every token id below `vocab_size`."""
    return np.min_scalar_type(vocab_size - 1)


# ----------------------------------------------------------------------------------------------- writing
class _Column:
    """Values of one array on their way to disk, and their range."""

    def __init__(self, name: str, path: Path, dtype: np.dtype[Any]):
        self.name, self.path, self.dtype = name, path, dtype
        self.count, self._low, self._high = 0, 0, 0
        self._file = path.open("wb")

    def append(self, values: Integers) -> None:
        if len(values):
            self._low, self._high = min(self._low, int(values.min())), max(self._high, int(values.max()))
            self._file.write(values.astype(self.dtype, copy=False).tobytes())
            self.count += len(values)

    def close(self) -> None:
        self._file.close()

    def smallest_dtype(self) -> np.dtype[Any]:
        ranges = ((np.dtype(dtype), np.iinfo(dtype)) for dtype in _DTYPES.values())
        return next(dtype for dtype, fits in ranges if fits.min <= self._low and self._high <= fits.max)

    def copy_to(self, target: BinaryIO, dtype: np.dtype[Any]) -> None:
        with self.path.open("rb") as source:
            while chunk := source.read(_COPIED_AT_ONCE * self.dtype.itemsize):
                target.write(np.frombuffer(chunk, self.dtype).astype(dtype).tobytes())


class SampleWriter:
    """Writes a split of any size in little memory: values go to flat files first, the header is known last.

    A context manager; the file is there when `finish` has returned.
    """

    def __init__(self, path: Path, spec: DataSpec):
        self._path, self._spec = path, spec
        self._spool = path.with_name(f".{path.name}.spool")
        self._columns: dict[str, _Column] = {}
        self.samples = 0
        """Rows written; packed files know only tokens."""

    def __enter__(self) -> SampleWriter:
        self._spool.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for column in self._columns.values():
            column.close()
        shutil.rmtree(self._spool)

    @property
    def tokens(self) -> int:
        """Tokens of a packed split so far."""
        return self._columns[TOKENS].count if TOKENS in self._columns else 0

    def add_tokens(self, tokens: Integers) -> None:
        """Append to the stream of a packed split: 1-D, ids below the vocabulary's size."""
        self._column(TOKENS, token_dtype(self._spec.vocab_size)).append(tokens)

    def add_sample(self, sample: Sample) -> None:
        """Append one sample: the same columns each time, 1-D integers."""
        for name, values in sample.items():
            column = self._column(name, np.dtype(np.int64))
            offsets = self._column(name + _OFFSETS, np.dtype(np.int64))
            if not offsets.count:
                offsets.append(np.zeros(1, np.int64))
            column.append(values)
            offsets.append(np.array([column.count]))
        self.samples += 1

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Put the file together, with `metadata` beside the spec."""
        arrays = []
        for column in self._columns.values():
            column.close()
            ragged = not self._spec.packed and not column.name.endswith(_OFFSETS)
            arrays.append((column, column.smallest_dtype() if ragged else column.dtype))
        arrays.sort(key=lambda array: -array[1].itemsize)  # each then begins at a multiple of its item's size
        header: dict[str, Any] = {"__metadata__": {**metadata, "format": FORMAT, "spec": self._spec.model_dump_json()}}
        end = 0
        for column, dtype in arrays:
            start, end = end, end + column.count * dtype.itemsize
            header[column.name] = {
                "dtype": _DTYPE_NAMES[dtype], "shape": [column.count], "data_offsets": [start, end],
            }  # fmt: skip
        encoded = json.dumps(header).encode()
        encoded += b" " * (-len(encoded) % 8)
        with self._path.open("wb") as file:
            file.write(struct.pack("<Q", len(encoded)) + encoded)
            for column, dtype in arrays:
                column.copy_to(file, dtype)

    def _column(self, name: str, dtype: np.dtype[Any]) -> _Column:
        if name not in self._columns:
            self._columns[name] = _Column(name, self._spool / str(len(self._columns)), dtype)
        return self._columns[name]


# ----------------------------------------------------------------------------------------------- reading
@dataclass(frozen=True)
class _Arrays:
    metadata: dict[str, str]
    arrays: dict[str, Integers]


def _map_arrays(path: Path) -> _Arrays:
    """Raises IntegrityError for a file that is not whole, or not of this kind."""
    try:
        with safe_open(path, "numpy") as file:  # checks the header against the file's size
            metadata = file.metadata() or {}
        with path.open("rb") as raw:
            length = struct.unpack("<Q", raw.read(8))[0]
            header = json.loads(raw.read(length))
        arrays: dict[str, Integers] = {}
        for name, entry in header.items():
            if name != "__metadata__":
                (count,) = entry["shape"]
                arrays[name] = _map_array(path, _DTYPES[entry["dtype"]], 8 + length + entry["data_offsets"][0], count)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise IntegrityError(f"is not a file of samples: {error}", field=str(path), hint=_REMAKE) from error
    return _Arrays(metadata, arrays)


def _map_array(path: Path, dtype: Any, start: int, count: int) -> Integers:
    if count == 0:  # which cannot be mapped
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, "r", start, (count,)).view(np.ndarray)


class SampleFile:
    """A split, mapped into memory. Raises IntegrityError for a file that `SampleWriter` did not write whole."""

    def __init__(self, path: Path, *, window: int | None = None, stride: int | None = None):
        """
        Args:
            window: tokens in a sample of a packed file; None: the spec's `seq_length`.
            stride: tokens between the beginnings of two windows; None: a window.
        """
        file = _map_arrays(path)
        self.path, self.metadata = path, file.metadata
        try:
            if file.metadata.get("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            self.spec = DataSpec.model_validate_json(file.metadata.get("spec", ""))
            self._columns = _check_arrays(self.spec, file.arrays)
        except (ValueError, ValidationError) as error:
            raise IntegrityError(f"is not a file of samples: {error}", field=str(path), hint=_REMAKE) from error
        self._offsets = {name: file.arrays[name + _OFFSETS] for name in self._columns if not self.spec.packed}
        self._windows = None
        if self.spec.packed:
            self._windows = _windows(self._columns[TOKENS], window or self.spec.seq_length, stride)

    @property
    def columns(self) -> Mapping[str, Integers]:
        """All values of each column, end to end: the `tokens` of a packed file are the whole stream."""
        return self._columns

    def __len__(self) -> int:
        """Number of samples."""
        if self._windows is not None:
            return len(self._windows)
        return len(next(iter(self._offsets.values()))) - 1

    def read(self, indices: Indices) -> list[Sample]:
        """The samples with these indices (int64, 1-D). Raises IndexError for one that is out of range."""
        if self._windows is not None:
            return [{TOKENS: window} for window in self._windows[indices]]
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(self):
            raise IndexError(f"a sample's index lies outside 0 .. {len(self) - 1}")
        return [
            {
                name: values[self._offsets[name][index] : self._offsets[name][index + 1]]
                for name, values in self._columns.items()
            }
            for index in indices
        ]


def _windows(tokens: Integers, window: int, stride: int | None) -> Integers:
    """[samples, window], a view; none if there are too few tokens."""
    if len(tokens) < window:
        return tokens[:0].reshape(0, window)
    return np.lib.stride_tricks.sliding_window_view(tokens, window)[:: stride or window]


def _check_arrays(spec: DataSpec, arrays: Mapping[str, Integers]) -> dict[str, Integers]:
    """The columns without their offsets. Raises ValueError if they are not what the spec says."""
    columns = {name: values for name, values in arrays.items() if not name.endswith(_OFFSETS)}
    if spec.packed:
        if arrays.keys() != {TOKENS} or arrays[TOKENS].dtype != token_dtype(spec.vocab_size):
            raise ValueError(f"it holds {sorted(arrays)}, expected {TOKENS} of {token_dtype(spec.vocab_size)}")
        return columns
    if not columns or arrays.keys() != columns.keys() | {name + _OFFSETS for name in columns}:
        raise ValueError(f"it holds {sorted(arrays)}, expected columns and their offsets")
    for name, values in columns.items():
        offsets = arrays[name + _OFFSETS]
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(values):
            raise ValueError(f"the offsets of {name} do not fit")
    if len({len(arrays[name + _OFFSETS]) for name in columns}) > 1:
        raise ValueError("its columns have different numbers of samples")
    return columns


class TaskDataset:
    """Batches of a split for a task. Raises ConfigError if the split is for another task or holds no sample."""

    def __init__(self, path: Path, task: Task):
        self.task = task
        self.file = SampleFile(path, window=task.window or None, stride=task.stride or None)
        if self.file.spec.task != task.name:
            raise ConfigError(
                f"the samples are for {self.file.spec.task}, not for {task.name}", field=str(path),
                hint="set train.task to what they are for, or prepare the data again",
            )  # fmt: skip
        if not len(self.file):
            raise ConfigError(
                "holds less than one sample", field=str(path), hint="give more text, or use a shorter data.seq_length"
            )

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.file)

    def batch(self, indices: Indices, keys: Indices) -> Batch:
        """The samples with these indices as the model takes them; `keys` seed what the task draws for each.

        Both int64 [n]. Raises IndexError for an index that is out of range.
        """
        return self.task.collate(self.file.read(indices), keys)
