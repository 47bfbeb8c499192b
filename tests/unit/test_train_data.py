from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.config import RunConfig
from cotrain.errors import ConfigError, NotFoundError
from cotrain.sections import ModelType, TaskName
from cotrain.train.data.prepare import PreparedDataset, prepare_dataset
from cotrain.train.data.samples import SampleFile, TaskDataset
from cotrain.train.data.survey import order_labels
from cotrain.train.data.tokenization import cut_text
from cotrain.train.tasks.registry import make_task
from cotrain.train.tokenizer import byte_tokenizer


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02d}.txt").write_text(f"document {number}: " + "کتاب " * number)
    return folder


def config_of(
    path: Path | None, *, task: TaskName = "causal-lm", model: ModelType = "llama3", seed: int = 0, **data: Any
) -> RunConfig:
    return RunConfig.model_validate(
        {
            "schema_version": 1,
            "session": {"seed": seed},
            "model": {"type": model},
            "train": {"task": task},
            "data": {"data_path": path and str(path), "seq_length": 16, "validation_split": 0.25} | data,
        }
    )


def prepare(path: Path, out: Path, **settings: Any) -> PreparedDataset:
    return prepare_dataset(config_of(path, **settings), folder=out, splits_folder=out.with_name("splits"))


def text_of(path: Path) -> bytes:
    return SampleFile(path).columns["tokens"].tobytes()


def write_jsonl(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "put_aside.jsonl").read_text().splitlines()]


# --------------------------------------------------------------------------------------- packed text
def test_every_document_is_in_exactly_one_split(corpus: Path, tmp_path: Path):
    prepared = prepare(corpus, tmp_path / "out")
    train, validation = text_of(prepared.train), text_of(prepared.validation)
    assert (prepared.train_samples, prepared.validation_samples) == (
        (len(train) - 1) // 16,
        (len(validation) - 1) // 16,
    )
    assert (prepared.documents, prepared.put_aside) == (40, {})
    contents = [path.read_bytes() for path in sorted(corpus.iterdir())]
    held_out = [content for content in contents if content + b"\n" in validation]
    assert b"\n".join(held_out) + b"\n" == validation
    assert b"\n".join(content for content in contents if content not in held_out) + b"\n" == train
    assert 3 <= len(held_out) <= 18


def test_the_tokens_are_those_of_the_tokenizer(corpus: Path, tmp_path: Path):
    prepared = prepare(corpus, tmp_path / "out")
    tokens = SampleFile(prepared.train).columns["tokens"]
    assert byte_tokenizer()(tokens.tobytes().decode()).input_ids == tokens.tolist()


def test_documents_end_with_the_tokenizers_end_token_where_it_has_one(corpus: Path, tmp_path: Path):
    prepared = prepare(corpus, tmp_path / "out", model="bert", task="masked-lm")
    file = SampleFile(prepared.validation)
    assert file.columns["tokens"].dtype == np.uint16
    held_out = json.loads(next((tmp_path / "splits").iterdir()).read_text())["validation"]
    assert np.count_nonzero(file.columns["tokens"] == prepared.spec.end_id) == held_out


def test_the_name_of_a_special_token_in_a_text_is_text(tmp_path: Path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": f"<mask> and <sep> number {number}"} for number in range(9)])
    prepared = prepare(path, tmp_path / "out", model="bert", task="masked-lm")
    tokens = SampleFile(prepared.train).columns["tokens"]
    assert set(tokens[tokens >= 256].tolist()) == {prepared.spec.end_id}


@given(text=st.text("ab\n", max_size=200), limit=st.integers(1, 50))
def test_a_long_text_is_tokenized_in_pieces_that_are_it(text: str, limit: int):
    pieces = list(cut_text(text, limit))
    assert "".join(pieces) == text
    assert all(len(piece) <= limit for piece in pieces)
    for piece in pieces[:-1]:
        assert piece.endswith("\n") or "\n" not in piece


def test_text_from_rows_gives_the_same_files_as_text_from_a_folder(corpus: Path, tmp_path: Path):
    texts = [path.read_text() for path in sorted(corpus.iterdir())]
    write_jsonl(tmp_path / "rows.jsonl", [{"text": text} for text in texts])
    (tmp_path / "rows.json").write_text(json.dumps([{"text": text} for text in texts]))
    (tmp_path / "rows.csv").write_text("text\n" + "".join(f'"{text}"\n' for text in texts))
    pq.write_table(pa.table({"text": texts}), tmp_path / "rows.parquet")
    expected = prepare(corpus, tmp_path / "out")
    for name in ("rows.jsonl", "rows.json", "rows.csv", "rows.parquet"):
        assert prepare(tmp_path / name, tmp_path / "out") == expected
        other = prepare(tmp_path / name, tmp_path / name.replace(".", "-"))
        assert other.train.read_bytes() == expected.train.read_bytes()
        assert other.validation.read_bytes() == expected.validation.read_bytes()


def test_persian_spelling_is_unified_when_asked_for(tmp_path: Path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": f"كتاب  علي شمارهٔ {number}"} for number in range(9)])
    prepared = prepare(path, tmp_path / "out", normalization="persian")
    assert "کتاب علی شمارهٔ" in text_of(prepared.train).decode()
    assert prepare(path, tmp_path / "out").train != prepared.train


# --------------------------------------------------------------------------------------- rows
@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    rows = [{"text": f"review {number}", "label": ["bad", "good", "fair"][number % 3]} for number in range(60)]
    return write_jsonl(tmp_path / "reviews.jsonl", rows)


def dataset_of(prepared: PreparedDataset, config: RunConfig) -> TaskDataset:
    task = make_task(prepared.spec.task, prepared.spec, seed=0, fields=config.data.fields)
    return TaskDataset(prepared.train, task)


def test_rows_become_samples_with_their_classes_in_the_spec(reviews: Path, tmp_path: Path):
    config = config_of(reviews, task="text-classification", model="bert", seq_length=32)
    prepared = prepare_dataset(config, folder=tmp_path / "out")
    assert prepared.spec.labels == ("bad", "fair", "good")
    assert prepared.train_samples + prepared.validation_samples == prepared.documents == 60
    dataset = dataset_of(prepared, config)
    assert SampleFile(prepared.train).spec == prepared.spec
    indices = np.arange(4)
    batch = dataset.batch(indices, indices)
    assert batch["input_ids"].shape == (4, 16)
    assert set(batch["labels"].tolist()) <= {0, 1, 2}


ANSWERS = {"text": ["تهران"], "answer_start": [3]}
TASK_ROWS: list[tuple[TaskName, ModelType, Callable[[int], dict[str, Any]], dict[str, Any]]] = [
    ("text-classification", "llama3", lambda n: {"text": f"a {n}", "pair": "b", "label": n % 2},
     {"fields": {"pair": "pair"}}),
    ("token-classification", "bert", lambda n: {"tokens": ["w", str(n)], "tags": ["B-X", "O"]}, {}),
    ("question-answering", "bert", lambda n: {"question": f"{n}?", "context": "در تهران", "answers": ANSWERS}, {}),
    ("seq2seq-lm", "t5", lambda n: {"source": f"{n}", "target": "t"}, {"fields": {"target": "target"}}),
]  # fmt: skip


@pytest.mark.parametrize(("task", "model", "row", "data"), TASK_ROWS, ids=[case[0] for case in TASK_ROWS])
def test_each_task_on_rows_gets_batches_from_a_file(
    task: TaskName, model: ModelType, row: Callable[[int], dict[str, Any]], data: dict[str, Any], tmp_path: Path
):
    path = write_jsonl(tmp_path / "rows.jsonl", [row(number) for number in range(20)])
    config = config_of(path, task=task, model=model, **{"seq_length": 48, **data})
    prepared = prepare_dataset(config, folder=tmp_path / "out")
    dataset = dataset_of(prepared, config)
    batch = dataset.batch(np.arange(3), np.arange(3))
    assert len(batch["input_ids"]) == 3
    assert dataset.task.count_targets(batch) > 0
    if task == "token-classification":
        assert prepared.spec.labels == ("O", "B-X")


def test_classes_go_by_number_or_alphabet_or_by_the_datasets_own_order():
    assert order_labels(["b", "a"], ()) == ("a", "b")
    assert order_labels(["10", "9", "-1"], ()) == ("-1", "9", "10")
    assert order_labels(["b"], ("c", "b", "a")) == ("c", "b", "a")
    assert order_labels(["b", "new"], ("c", "b", "a")) == ("b", "new")
    assert order_labels(["I-LOC", "O", "B-LOC"], ()) == ("O", "B-LOC", "I-LOC")


def test_a_validation_split_of_the_datasets_own_is_used_as_it_is(tmp_path: Path):
    folder = tmp_path / "rows"
    folder.mkdir()
    for name in ("train", "validation", "test"):
        write_jsonl(folder / f"{name}.jsonl", [{"text": f"{name} {number}"} for number in range(10)])
    prepared = prepare(folder, tmp_path / "out")
    assert text_of(prepared.train).decode().split("\n")[:-1] == [f"train {number}" for number in range(10)]
    assert text_of(prepared.validation).decode().split("\n")[:-1] == [f"validation {number}" for number in range(10)]


def test_plain_text_is_no_data_for_a_task_on_rows(corpus: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="text-classification needs rows with the columns text, label"):
        prepare(corpus, tmp_path / "out", task="text-classification", model="bert")


def test_a_single_class_is_nothing_to_learn(tmp_path: Path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": str(number), "label": "x"} for number in range(9)])
    with pytest.raises(ConfigError, match="every row has the class 'x'"):
        prepare(path, tmp_path / "out", task="text-classification", model="bert")


# --------------------------------------------------------------------------------------- what is put aside
def test_bad_rows_are_counted_listed_and_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"text": f"row {number}"}) for number in range(400)]
    lines[100:100] = ['{"text": 5}', "no json", "no json either"]
    path.write_text("\n".join(lines))
    for _ in range(2):  # made, and found again
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            prepared = prepare(path, tmp_path / "out")
        assert prepared.put_aside == {"field 'text' is not text": 1, "malformed JSON": 2}
        assert prepared.documents == 400
        assert len(caplog.records) == 2
        assert "put aside 2 records: malformed JSON" in caplog.text
    assert lines_of(prepared.train.parent) == [
        {"file": str(path), "line": 101, "reason": "field 'text' is not text"},
        {"file": str(path), "line": 102, "reason": "malformed JSON"},
        {"file": str(path), "line": 103, "reason": "malformed JSON"},
    ]


def test_more_than_one_in_a_hundred_stops_with_file_and_line(tmp_path: Path):
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "latin.txt").write_bytes(b"fine\nfine\ncaf\xe9\n")
    with pytest.raises(ConfigError, match="1 of 2 records cannot be used: 1 not UTF-8") as caught:
        prepare(tmp_path, tmp_path / "out")
    assert caught.value.field == f"{tmp_path / 'latin.txt'}:3"


def test_rows_that_only_the_task_can_refuse_are_put_aside_too(tmp_path: Path):
    rows = [{"tokens": ["a"], "tags": [["O", "B-X"][number % 2]]} for number in range(300)]
    rows[7]["tokens"] = [""]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    prepared = prepare(path, tmp_path / "out", task="token-classification", model="bert")
    assert list(prepared.put_aside.values()) == [1]
    assert lines_of(prepared.train.parent)[0]["line"] == 8
    rows[8:14] = [rows[7]] * 6
    with pytest.raises(ConfigError, match="7 of 300 records cannot be used") as caught:
        prepare(write_jsonl(path, rows), tmp_path / "out", task="token-classification", model="bert")
    assert caught.value.field == f"{path}:8"


# --------------------------------------------------------------------------------------- made once
def test_the_files_are_made_once_and_found_again(corpus: Path, tmp_path: Path):
    told: list[float] = []
    config = config_of(corpus)
    first = prepare_dataset(config, folder=tmp_path / "out", on_progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    before = {path: path.stat().st_mtime_ns for path in (first.train, first.validation)}
    assert prepare_dataset(config, folder=tmp_path / "out") == first
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_whatever_matters_has_its_own_files(corpus: Path, tmp_path: Path):
    def folder(**settings: Any) -> Path:
        return prepare(corpus, tmp_path / "out", **settings).train.parent

    folders = {folder(), folder(seed=1), folder(validation_split=0.5), folder(seq_length=8),
               folder(model="bert", task="masked-lm")}  # fmt: skip
    (corpus / "00.txt").write_text("another text, long enough")
    folders.add(folder())
    assert len(folders) == 6


def test_a_truncated_file_is_made_again(corpus: Path, tmp_path: Path):
    prepared = prepare(corpus, tmp_path / "out")
    whole = prepared.train.read_bytes()
    prepared.train.write_bytes(whole[:-100])
    prepare(corpus, tmp_path / "out")
    assert prepared.train.read_bytes() == whole
    assert [path.name for path in (tmp_path / "out").iterdir()] == [prepared.train.parent.name]


def test_too_little_text_is_refused_and_nothing_is_left(tmp_path: Path):
    path = tmp_path / "short.txt"
    path.write_text("one document")
    with pytest.raises(ConfigError, match="only one document"):
        prepare(path, tmp_path / "out")
    pair = tmp_path / "pair"
    pair.mkdir()
    (pair / "a.txt").write_text("short")
    (pair / "b.txt").write_text("text")
    with pytest.raises(ConfigError, match="too few for one sample of 16") as caught:
        prepare(pair, tmp_path / "out")
    assert caught.value.field == "data.seq_length"
    assert list((tmp_path / "out").iterdir()) == []


def test_data_without_a_record_or_not_there_is_named(tmp_path: Path):
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ConfigError, match="holds no text") as caught:
        prepare(tmp_path / "empty.txt", tmp_path / "out")
    assert str(tmp_path / "empty.txt") in caught.value.field
    with pytest.raises(ConfigError, match="No such file") as caught:
        prepare(tmp_path / "nowhere.txt", tmp_path / "out")
    assert caught.value.field.endswith("nowhere.txt")
    assert caught.value.hint


def test_the_split_is_recorded_and_holds(corpus: Path, tmp_path: Path):
    prepared = prepare(corpus, tmp_path / "out")
    (path,) = (tmp_path / "splits").iterdir()
    record = json.loads(path.read_text())
    assert (record["seed"], record["share"]) == (0, 0.25)
    assert record["train"] + record["validation"] == 40
    assert len(record["listed"]) == record["validation"]
    # a decision that was made otherwise (by an earlier version, or by hand) stays as it was made
    path.write_text(json.dumps(record | {"cut": f"{int(0.6 * 2**256):064x}"}))
    again = prepare(corpus, tmp_path / "out")
    assert again.train != prepared.train
    assert len(text_of(again.validation)) > len(text_of(prepared.validation))


KILLED = """
import os, signal, sys
from pathlib import Path
from cotrain.config import RunConfig
from cotrain.train.data.prepare import prepare_dataset
config = RunConfig.model_validate_json(sys.argv[1])
def die(share: float) -> None:
    if share > 0.4:
        os.kill(os.getpid(), signal.SIGKILL)
prepare_dataset(config, folder=Path(sys.argv[2]), on_progress=die)
"""


def test_killed_in_the_middle_it_leaves_nothing_broken(tmp_path: Path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": f"row number {number}"} for number in range(2000)])
    config, out = config_of(path), tmp_path / "out"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, config.model_dump_json(), str(out)], check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    assert [entry.name[0] for entry in out.iterdir()] == ["."]
    prepared = prepare_dataset(config, folder=out)
    assert list(out.iterdir()) == [prepared.train.parent]
    undisturbed = prepare_dataset(config, folder=tmp_path / "other")
    assert prepared.train.read_bytes() == undisturbed.train.read_bytes()


def test_a_dataset_that_nobody_knows_is_refused_with_near_matches(tmp_path: Path):
    config = config_of(None, dataset="farstale")
    with pytest.raises(NotFoundError, match="did you mean farstail"):
        prepare_dataset(config, folder=tmp_path / "out", raw_folder=tmp_path / "raw")
