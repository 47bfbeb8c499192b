"""Parquet, and the Arrow streams of datasets that Hugging Face `datasets` saved: read batch by batch."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cotrain.errors import ConfigError
from cotrain.records import NOT_UTF8, BadRecord, Place, Record, require_columns

BATCH_ROWS = 256


def read_parquet(path: Path, *, wanted: Collection[str]) -> Iterator[Record | BadRecord]:
    """The wanted columns of each row. Raises ConfigError for a file that is not Parquet, or lacks one of them."""
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            require_columns(path, file.schema_arrow.names, wanted)
            yield from _rows(path, file.iter_batches(batch_size=BATCH_ROWS, columns=list(wanted)))
    except pa.ArrowException as error:
        raise _broken(path, "Parquet", error) from error


def read_arrow(path: Path, *, wanted: Collection[str]) -> Iterator[Record | BadRecord]:
    """Like `read_parquet`, of an Arrow IPC stream, which is mapped into memory."""
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            require_columns(path, stream.schema.names, wanted)
            yield from _rows(path, (batch.select(list(wanted)) for batch in stream))
    except pa.ArrowException as error:
        raise _broken(path, "an Arrow stream", error) from error


def _rows(path: Path, batches: Iterator[pa.RecordBatch]) -> Iterator[Record | BadRecord]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH_ROWS):
            part = batch.slice(start, BATCH_ROWS)
            for columns in _python_rows(part):
                number += 1
                place = Place(path, number, "row")
                yield BadRecord(place, NOT_UTF8) if columns is None else Record(place, columns)


def _python_rows(batch: pa.RecordBatch) -> list[dict[str, Any] | None]:
    """None for a row whose text is not UTF-8: Arrow does not check what it reads."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        return [row for index in range(batch.num_rows) for row in _python_rows(batch.slice(index, 1))]


def _broken(path: Path, what: str, error: pa.ArrowException) -> ConfigError:
    return ConfigError(f"is not {what}: {error}", field=str(path), hint="fetch or write the file again")


# ------------------------------------------------------------------------------------------- class names
def read_class_names(path: Path) -> dict[str, tuple[str, ...]]:
    """Names of the classes of integer columns, where `datasets` wrote them into the file's schema.

    Raises ConfigError for a file that is neither Parquet nor an Arrow stream.
    """
    try:
        if path.suffix == ".parquet":
            metadata = pq.read_schema(path).metadata
        else:
            with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
                metadata = stream.schema.metadata
    except pa.ArrowException as error:
        raise _broken(path, "Parquet" if path.suffix == ".parquet" else "an Arrow stream", error) from error
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return class_names_of(features)


def class_names_of(features: Any) -> dict[str, tuple[str, ...]]:
    """The `ClassLabel` columns of a `features` object, lists of them included, by column."""
    found = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        if isinstance(feature, list) and len(feature) == 1:  # how older versions wrote a list
            feature = feature[0]
        elif isinstance(feature, dict) and "feature" in feature:
            feature = feature["feature"]
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            found[str(column)] = tuple(str(name) for name in feature.get("names") or ())
    return found
