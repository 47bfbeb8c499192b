"""Training data: text or rows -> one file of samples per split, and which peer takes which sample when."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from cotrain.catalog import find_dataset, is_hub_id
from cotrain.config import RunConfig
from cotrain.errors import ConfigError, IntegrityError, NotFoundError
from cotrain.folders import StorageError, replacing_folder
from cotrain.put_aside import PutAside, warn
from cotrain.sections import DataSection, FieldsSection
from cotrain.status import replace_file
from cotrain.train.data.hub import download_dataset
from cotrain.train.data.rows import Normalization, RowReader
from cotrain.train.data.samples import FORMAT, SampleFile, SampleWriter
from cotrain.train.data.sources import Source, builtin_source, find_source
from cotrain.train.data.splits import MAX_LISTED, SplitRecord, rank_of, recorded_cut
from cotrain.train.data.survey import Contents, Survey, order_labels, survey_source
from cotrain.train.data.tokenization import PackedSink, RowSink, Sink
from cotrain.train.spec import DataSpec
from cotrain.train.tasks.base import Task
from cotrain.train.tasks.registry import make_task
from cotrain.train.tokenizer import describe_tokenizer, load_tokenizer

_TRAIN, _VALIDATION, _SPLIT = "train.safetensors", "validation.safetensors", "split.json"

Progress = Callable[[float], None]
"""Is told the share that is done, from 0 to 1."""


@dataclass(frozen=True)
class PreparedDataset:
    """The files of the two splits, and what they hold."""

    train: Path
    validation: Path
    spec: DataSpec
    train_samples: int
    validation_samples: int
    documents: int
    """Documents or rows that could be read."""
    put_aside: dict[str, int]
    """Those that could not be used, by reason."""


def prepare_dataset(
    config: RunConfig, *, folder: Path, splits_folder: Path | None = None, raw_folder: Path | None = None,
    on_progress: Progress | None = None,
) -> PreparedDataset:  # fmt: skip
    """Tokenize a run's data into `folder/<key>/`, or find it there.

    The key is a hash of the contents, of the tokenizer and of every setting that matters, so files of one key never
    change. The data is read twice, tokenized once, and held a batch at a time.

    Args:
        splits_folder: keeps `<key>.json`, which content is for validation; an earlier decision about it holds.
        raw_folder: where datasets of the hub are downloaded to; needed for `data.dataset`.
        on_progress: is told the share that is tokenized.

    Raises ConfigError if there is too little, or too much of it cannot be used, or if it changes meanwhile;
    StorageError if the disk does not take the files; what `download_dataset` raises. One process at a time may
    prepare given data in a folder.
    """
    plan = _plan(config, raw_folder)
    split_key = _hash(plan.survey.contents, config.session.seed, config.data.validation_split)
    record = None if splits_folder is None else splits_folder / f"{split_key}.json"
    cut = _choose_cut(config, plan, record)
    target = folder / _prepared_key(config, plan, cut)
    prepared = _find_prepared(plan, target)
    if prepared is None:
        with replacing_folder(target) as temporary:
            _write_splits(config, plan, cut, temporary, on_progress)
        prepared = _find_prepared(plan, target)
        if prepared is None:
            raise IntegrityError("the files are not whole", field=str(target), hint="check the disk and start again")
    if record is not None and not record.exists():
        _keep_record(target / _SPLIT, record)
    if on_progress is not None:
        on_progress(1.0)
    warn(prepared.put_aside, target)
    return prepared


# ---------------------------------------------------------------------------------------------- planning
@dataclass(frozen=True)
class _Plan:
    """What is to be prepared: the outcome of the first pass."""

    source: Source
    reader: RowReader
    tokenizer: PreTrainedTokenizerFast
    fingerprint: str
    """Hash of the tokenizer."""
    spec: DataSpec
    task: Task
    survey: Survey


def _plan(config: RunConfig, raw_folder: Path | None) -> _Plan:
    tokenizer = load_tokenizer(config.tokenizer, config.task)
    fingerprint = _hash(tokenizer.backend_tokenizer.to_str())
    source, fields, normalization = _open_source(config.data, raw_folder)

    def build(labels: tuple[str, ...]) -> tuple[DataSpec, Task]:
        spec = describe_tokenizer(
            tokenizer, task=config.task, seq_length=config.data.seq_length, labels=labels,
            with_targets=config.task == "seq2seq-lm" and fields.target is not None,
        )  # fmt: skip
        return spec, make_task(config.task, spec, seed=config.session.seed, fields=fields)

    _, task = build(())
    reader = _row_reader(source, task, fields, normalization)
    survey = survey_source(source, reader, task, seed=config.session.seed)
    named = source.class_names.get(fields.tags if config.task == "token-classification" else fields.label, ())
    labels = order_labels(survey.labels, named)
    if len(labels) == 1:
        raise ConfigError(
            f"every row has the class {labels[0]!r}: there is nothing to tell apart", field=source.name,
            hint="say in [data.fields] which column holds the class",
        )  # fmt: skip
    spec, task = build(labels)
    return _Plan(source, reader, tokenizer, fingerprint, spec, task, survey)


def _row_reader(source: Source, task: Task, fields: FieldsSection, normalization: Normalization) -> RowReader:
    """Raises ConfigError for plain text where the task needs rows."""
    roles = ("text",) if task.packed else tuple(task.roles(fields))
    columns = [getattr(fields, role) for role in roles]
    plain = source.kind == "text"
    if plain and not task.packed:
        raise ConfigError(
            f"holds plain text; {task.name} needs rows with the columns {', '.join(columns)}", field=source.name,
            hint="give JSONL, CSV or Parquet, and name its columns in [data.fields]",
        )  # fmt: skip
    return RowReader(source.reader(columns), roles, fields, normalization, source.class_names, plain=plain)


def _open_source(data: DataSection, raw_folder: Path | None) -> tuple[Source, FieldsSection, Normalization]:
    """The data of a config, what its columns are called, and the spelling that is unified in it."""
    if data.dataset is not None:
        return _open_dataset(data, data.dataset, raw_folder)
    normalization = data.normalization or "none"
    if data.data_path is None:
        return builtin_source(), data.fields, normalization
    with _reading(f"data.data_path = {data.data_path}"):
        source = find_source(Path(data.data_path), name=f"data.data_path = {data.data_path}")
    return source, data.fields, normalization


def _open_dataset(
    data: DataSection, dataset: str, raw_folder: Path | None
) -> tuple[Source, FieldsSection, Normalization]:
    """A dataset of the catalog or the hub; what the config says of columns and spelling goes before the catalog."""
    if raw_folder is None:
        raise ValueError("a dataset by name needs a folder to be downloaded to")
    try:
        entry = find_dataset(dataset)
    except NotFoundError:
        if not is_hub_id(dataset):
            raise
        entry = None
    hub_id, pattern = (entry.source, entry.files) if entry else (dataset, "")
    fields = entry.fields_beside(data.fields) if entry else data.fields
    path = download_dataset(hub_id, raw_folder, pattern=pattern)
    with _reading(f"data.dataset = {dataset}"):
        source = find_source(path, name=f"data.dataset = {dataset}", pattern=pattern)
    return source, fields, data.normalization or (entry.normalization if entry else "none")


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror or error}", field=str(error.filename or name),
            hint="name a file or a folder on this machine, or leave data_path out",
        ) from error  # fmt: skip


def _hash(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _choose_cut(config: RunConfig, plan: _Plan, record: Path | None) -> int | None:
    """Contents of a rank below it are for validation; None where the dataset has a validation split of its own."""
    if plan.source.validation:
        return None
    seed, share = config.session.seed, config.data.validation_split
    cut = None if record is None else recorded_cut(record, seed=seed, share=share)
    return plan.survey.ranks.cut(share) if cut is None else cut


def _prepared_key(config: RunConfig, plan: _Plan, cut: int | None) -> str:
    return _hash(
        FORMAT, plan.survey.contents, plan.survey.put_aside.counts, plan.fingerprint,
        plan.spec.model_dump(mode="json"), config.session.seed, config.data.validation_split, str(cut),
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------- writing
def _write_splits(
    config: RunConfig, plan: _Plan, cut: int | None, folder: Path, on_progress: Progress | None
) -> None:  # fmt: skip
    """The second pass. Raises ConfigError if the data has changed since the first, or gives too few samples."""
    put_aside, contents = PutAside(), Contents()
    chosen = _Chosen(config, cut)
    with (
        SampleWriter(folder / _TRAIN, plan.spec) as train,
        SampleWriter(folder / _VALIDATION, plan.spec) as validation,
    ):
        sink: Sink = (
            PackedSink(plan.tokenizer, plan.spec)
            if plan.task.packed
            else RowSink(plan.task, plan.tokenizer, plan.spec, put_aside)
        )
        for files, given in ((plan.source.train, False), (plan.source.validation, True)):
            for placed in plan.reader.rows(files, put_aside):
                contents.add(placed.digest, validation=given)
                held_out = chosen.take(placed.digest, given=given)
                sink.add(placed, validation if held_out else train)
                if on_progress is not None and chosen.rows % 256 == 0:
                    on_progress(min(1.0, chosen.rows / plan.survey.rows))
        sink.flush()
        if contents.key() != plan.survey.contents:
            raise ConfigError(
                "the data changed while it was read", field=plan.source.name,
                hint="start again when nothing writes to it",
            )  # fmt: skip
        put_aside.require_few()
        _require_sample(train, plan, what="the training text")
        _require_sample(validation, plan, what="the validation text")
        metadata = {"documents": str(plan.survey.rows), "put_aside": json.dumps(put_aside.counts)}
        train.finish(metadata)
        validation.finish(metadata)
    put_aside.write(folder)
    chosen.record().write(folder / _SPLIT)


class _Chosen:
    """Which split each row goes to, and the record of it."""

    def __init__(self, config: RunConfig, cut: int | None):
        self._seed, self._share, self._cut = config.session.seed, config.data.validation_split, cut
        self.rows = self._held_out = 0
        self._hash = hashlib.sha256()
        self._listed: list[str] = []

    def take(self, digest: bytes, *, given: bool) -> bool:
        """Whether the next row is for validation; `given`: the dataset says so."""
        self.rows += 1
        held_out = given or (self._cut is not None and rank_of(digest, self._seed) < self._cut)
        if held_out:
            self._held_out += 1
            self._hash.update(digest)
            if self._held_out <= MAX_LISTED:
                self._listed.append(digest.hex())
        return held_out

    def record(self) -> SplitRecord:
        return SplitRecord(
            seed=self._seed, share=self._share, cut=self._cut, train=self.rows - self._held_out,
            validation=self._held_out, validation_sha256=self._hash.hexdigest(),
            listed=tuple(self._listed) if self._held_out <= MAX_LISTED else None,
        )  # fmt: skip


def _require_sample(writer: SampleWriter, plan: _Plan, *, what: str) -> None:
    seq_length = plan.spec.seq_length
    if plan.task.packed and writer.tokens < plan.task.window:
        raise ConfigError(
            f"{what} has {writer.tokens} tokens, too few for one sample of {seq_length}", field="data.seq_length",
            hint="give more text, or use shorter samples",
        )  # fmt: skip
    if not plan.task.packed and writer.samples == 0:
        raise ConfigError(
            f"{what} has no row", field=plan.source.name, hint="give more rows, or another data.validation_split"
        )


def _keep_record(written: Path, record: Path) -> None:
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        replace_file(record, written.read_bytes())
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error}", field=str(record), hint="free some space, or mend the rights of the folder"
        ) from error


def _find_prepared(plan: _Plan, folder: Path) -> PreparedDataset | None:
    """What was prepared earlier; None if it is not there whole."""
    window, stride = plan.task.window or None, plan.task.stride or None
    try:
        train = SampleFile(folder / _TRAIN, window=window, stride=stride)
        validation = SampleFile(folder / _VALIDATION, window=window, stride=stride)
        return PreparedDataset(
            train.path, validation.path, plan.spec, len(train), len(validation),
            documents=int(train.metadata["documents"]), put_aside=json.loads(train.metadata["put_aside"]),
        )  # fmt: skip
    except (IntegrityError, KeyError, ValueError):
        return None
