from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from cotrain.errors import ConfigError, IntegrityError
from cotrain.sections import FieldsSection
from cotrain.train.data.samples import SampleFile, SampleWriter, TaskDataset, token_dtype
from cotrain.train.spec import DataSpec
from cotrain.train.tasks.registry import make_task

ROWS = DataSpec(task="text-classification", vocab_size=300, seq_length=8, pad_id=256, labels=("a", "b"))


def packed_spec(seq_length: int = 8, vocab_size: int = 256) -> DataSpec:
    return DataSpec(task="causal-lm", vocab_size=vocab_size, seq_length=seq_length)


def save_tokens(path: Path, count: int, spec: DataSpec | None = None) -> Path:
    with SampleWriter(path, spec or packed_spec()) as writer:
        for part in np.array_split(np.arange(count) % 251, 3):
            writer.add_tokens(part)
        writer.finish({"documents": "3"})
    return path


def save_rows(path: Path, rows: list[dict[str, list[int]]]) -> Path:
    with SampleWriter(path, ROWS) as writer:
        for row in rows:
            writer.add_sample({name: np.array(values, dtype=np.int64) for name, values in row.items()})
        writer.finish({})
    return path


# ------------------------------------------------------------------------------------------------ packed
@given(
    seq_length=st.integers(1, 12),
    count=st.integers(13, 200),
    picks=st.lists(st.integers(0, 10**6), min_size=1, max_size=8),
)
def test_packed_samples_are_windows_that_share_the_token_between_them(
    tmp_path_factory: pytest.TempPathFactory, seq_length: int, count: int, picks: list[int]
):
    spec = packed_spec(seq_length)
    path = save_tokens(tmp_path_factory.mktemp("tokens") / "t.safetensors", count, spec)
    dataset = TaskDataset(path, make_task("causal-lm", spec, seed=0, fields=FieldsSection()))
    assert len(dataset) == (count - 1) // seq_length
    indices = np.array(picks, dtype=np.int64) % len(dataset)
    batch = dataset.batch(indices, indices)
    first = indices[:, None] * seq_length
    assert batch["input_ids"].tolist() == ((first + np.arange(seq_length)) % 251).tolist()
    assert batch["labels"].tolist() == ((first + 1 + np.arange(seq_length)) % 251).tolist()


@pytest.mark.parametrize(("vocab_size", "dtype"), [(256, np.uint8), (257, np.uint16), (65537, np.uint32)])
def test_tokens_take_no_more_room_than_their_vocabulary_needs(vocab_size: int, dtype: type, tmp_path: Path):
    assert token_dtype(vocab_size) == dtype
    file = SampleFile(save_tokens(tmp_path / "t.safetensors", 100, packed_spec(vocab_size=vocab_size)))
    assert file.columns["tokens"].dtype == dtype
    assert file.columns["tokens"].tolist() == list(range(100))


def test_the_file_is_plain_safetensors_with_the_spec_inside(tmp_path: Path):
    path = save_tokens(tmp_path / "t.safetensors", 100)
    assert load_file(path)["tokens"].tolist() == list(range(100))
    file = SampleFile(path)
    assert (file.spec, file.metadata["documents"]) == (packed_spec(), "3")
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.safetensors"]


def test_an_index_past_the_end_is_refused(tmp_path: Path):
    packed = SampleFile(save_tokens(tmp_path / "t.safetensors", 81), window=9, stride=8)
    rows = SampleFile(save_rows(tmp_path / "r.safetensors", [{"tokens": [1], "label": [0]}] * 10))
    for file in (packed, rows):
        assert len(file) == 10
        with pytest.raises(IndexError):
            file.read(np.array([10]))


def test_reading_a_batch_takes_microseconds(tmp_path: Path):
    """16 windows of 129 tokens; an inner step takes tens of milliseconds, and the input at most 1 % of it."""
    file = SampleFile(save_tokens(tmp_path / "t.safetensors", 10**6, packed_spec(128)), window=129, stride=128)
    indices = np.random.default_rng(0).integers(0, len(file), size=16)
    file.read(indices)
    fastest = min(_seconds(lambda: file.read(indices)) for _ in range(200))
    assert fastest < 50e-6


def _seconds(act) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


# -------------------------------------------------------------------------------------------------- rows
@given(
    rows=st.lists(
        st.fixed_dictionaries({name: st.lists(st.integers(-100, 2**40), max_size=5) for name in ("tokens", "label")}),
        min_size=1,
        max_size=20,
    ),
    data=st.data(),
)
def test_rows_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, list[int]]], data: st.DataObject
):
    file = SampleFile(save_rows(tmp_path_factory.mktemp("rows") / "r.safetensors", rows))
    assert (len(file), file.spec) == (len(rows), ROWS)
    picks = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6))
    samples = file.read(np.array(picks, dtype=np.int64))
    found = [{name: values.tolist() for name, values in sample.items()} for sample in samples]
    assert found == [rows[pick] for pick in picks]


def test_columns_take_no_more_room_than_their_values_need(tmp_path: Path):
    path = save_rows(tmp_path / "r.safetensors", [{"tokens": [255], "label": [-100]}, {"tokens": [0], "label": [1]}])
    arrays = load_file(path)
    assert (arrays["tokens"].dtype, arrays["label"].dtype) == (np.uint8, np.int8)


# ------------------------------------------------------------------------------------------ broken files
def test_any_truncated_file_is_refused(tmp_path: Path):
    path = save_tokens(tmp_path / "t.safetensors", 100)
    whole = path.read_bytes()
    for size in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(IntegrityError, match="not a file of samples") as caught:
            SampleFile(path)
        assert caught.value.field == str(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(IntegrityError, match="No such file") as caught:
        SampleFile(tmp_path / "gone.safetensors")
    assert caught.value.field.endswith("gone.safetensors")


@pytest.mark.parametrize(
    "arrays",
    [
        {"weights": np.zeros(10, np.float32)},
        {"tokens": np.zeros((2, 5), np.uint8)},
        {"tokens": np.zeros(10, np.uint16)},
        {"tokens": np.zeros(10, np.uint8), "more": np.zeros(10, np.uint8)},
    ],
    ids=["floats", "matrix", "type", "another column"],
)
def test_arrays_that_are_no_samples_are_refused(arrays: dict[str, np.ndarray], tmp_path: Path):
    save_file(arrays, tmp_path / "t.safetensors", {"format": "1", "spec": packed_spec().model_dump_json()})
    with pytest.raises(IntegrityError, match="not a file of samples"):
        SampleFile(tmp_path / "t.safetensors")


@pytest.mark.parametrize(
    "offsets", [[], [1, 3], [0, 4], [0, 2, 1]], ids=["none", "not from 0", "past the end", "of another length"]
)
def test_offsets_that_do_not_fit_are_refused(offsets: list[int], tmp_path: Path):
    arrays = {"tokens": np.zeros(3, np.uint8), "tokens.offsets": np.array(offsets, np.int64),
              "label": np.zeros(1, np.uint8), "label.offsets": np.array([0, 1])}  # fmt: skip
    save_file(arrays, tmp_path / "r.safetensors", {"format": "1", "spec": ROWS.model_dump_json()})
    with pytest.raises(IntegrityError, match="not a file of samples"):
        SampleFile(tmp_path / "r.safetensors")


@pytest.mark.parametrize("metadata", [None, {"format": "1"}, {"format": "0"}, {"format": "1", "spec": "{}"}])
def test_a_file_without_its_spec_is_refused(metadata: dict[str, str] | None, tmp_path: Path):
    save_file({"tokens": np.zeros(10, np.uint8)}, tmp_path / "t.safetensors", metadata)
    with pytest.raises(IntegrityError, match="not a file of samples"):
        SampleFile(tmp_path / "t.safetensors")


def test_a_split_for_another_task_or_without_a_sample_is_refused(tmp_path: Path):
    task = make_task("causal-lm", packed_spec(), seed=0, fields=FieldsSection())
    rows = save_rows(tmp_path / "r.safetensors", [{"tokens": [1], "label": [0]}])
    with pytest.raises(ConfigError, match="for text-classification, not for causal-lm"):
        TaskDataset(rows, task)
    with pytest.raises(ConfigError, match="less than one sample"):
        TaskDataset(save_tokens(tmp_path / "t.safetensors", 8), task)


def test_a_failure_in_the_middle_leaves_no_spool_behind(tmp_path: Path):
    def fail() -> None:
        with SampleWriter(tmp_path / "t.safetensors", packed_spec()) as writer:
            writer.add_tokens(np.arange(100))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
