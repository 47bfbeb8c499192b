from __future__ import annotations

import json
import logging
from pathlib import Path

import pyarrow as pa
import pytest

from cotrain.errors import ConfigError
from cotrain.records import BadRecord, Record
from cotrain.train.data.sources import Source, find_source, named_splits


def find(path: Path, pattern: str = "") -> Source:
    return find_source(path, name=f"data.data_path = {path}", pattern=pattern)


def names(files: tuple[Path, ...], root: Path) -> list[str]:
    return [file.relative_to(root).as_posix() for file in files]


def read_texts(source: Source) -> list[str]:
    reader = source.reader(["text"])
    records: list[Record | BadRecord] = [record for file in source.train for record in reader(file)]
    return [record.columns["text"] for record in records if isinstance(record, Record)]


def test_a_folder_of_text_is_read_in_the_order_of_its_relative_paths(tmp_path: Path):
    (tmp_path / "b").mkdir()
    for name in ("b/two.md", "c.py", "a.txt", "picture.png", ".hidden.txt"):
        (tmp_path / name).write_text(name)
    source = find(tmp_path)
    assert (source.kind, names(source.train, tmp_path)) == ("text", ["a.txt", "b/two.md", "c.py"])


def test_a_folder_of_two_kinds_is_refused_with_an_example_of_each(tmp_path: Path):
    (tmp_path / "a.csv").write_text("text\nx\n")
    (tmp_path / "b.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(ConfigError, match=r"CSV \(a.csv\) and JSON \(b.jsonl\)"):
        find(tmp_path)


def test_what_describes_a_dataset_is_no_data(tmp_path: Path):
    for name in ("README.md", "LICENSE.txt", "dataset_infos.json", "rows.csv"):
        (tmp_path / name).write_text("text\nx\n")
    assert names(find(tmp_path).train, tmp_path) == ["rows.csv"]


@pytest.mark.parametrize("name", ["weights.pt", "rows.pkl", "rows.zip", "load.sh", "rows.csv.gz", "rows"])
def test_code_pickles_and_archives_are_refused_by_name(name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(b"\x80\x04K\x01.")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ConfigError, match=name) as caught:
            find(path)
        assert "never loaded" in caught.value.hint


def test_a_folder_without_files_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="no file") as caught:
        find(tmp_path)
    assert str(tmp_path) in caught.value.field


def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.txt").write_text(folder.name)
    (inside / "file.txt").symlink_to(outside / "a.txt")
    (inside / "folder").symlink_to(outside)
    (inside / "within.txt").symlink_to(inside / "a.txt")
    with caplog.at_level(logging.WARNING):
        assert names(find(inside).train, inside) == ["a.txt", "within.txt"]
    assert "file.txt: the link leads out" in caplog.text


def test_splits_that_file_names_tell_are_kept_apart_and_the_test_split_is_left_alone():
    files = [Path(name) for name in ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
                                     "data/validation-00000.parquet", "data/test-0.parquet")]  # fmt: skip
    assert named_splits(files) == (files[:2], files[2:3])
    assert named_splits([Path("Train-word.csv"), Path("Val-word.csv"), Path("Test-word.csv")])[1] == [
        Path("Val-word.csv")
    ]
    assert named_splits([Path("default/train/0.parquet"), Path("default/test/0.parquet")])[0] == [
        Path("default/train/0.parquet")
    ]
    unnamed = [Path("contest.csv"), Path("a.csv"), Path("test.csv")]
    assert named_splits(unnamed) == (unnamed, [])


def test_a_pattern_picks_files_of_a_folder(tmp_path: Path):
    for folder in ("fa", "en"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.csv").write_text("text\nx\n")
    assert names(find(tmp_path, "fa/*").train, tmp_path) == ["fa/rows.csv"]


# ---------------------------------------------------------------------- saved by Hugging Face `datasets`
FEATURES = {
    "text": {"dtype": "string", "_type": "Value"},
    "label": {"names": ["neg", "pos"], "_type": "ClassLabel"},
}


def save_to_disk(folder: Path, texts: list[str], *, in_schema: bool = True) -> None:
    """What `Dataset.save_to_disk` writes: Arrow streams of record batches, and two descriptions."""
    folder.mkdir(parents=True)
    metadata = {"huggingface": json.dumps({"info": {"features": FEATURES}})} if in_schema else None
    schema = pa.schema([("text", pa.string()), ("label", pa.int64())], metadata=metadata)
    halves = [texts[: len(texts) // 2], texts[len(texts) // 2 :]]
    files = [f"data-{number:05d}-of-00002.arrow" for number in range(2)]
    for name, half in zip(files, halves, strict=True):
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
            for start in range(0, len(half), 3):
                part = half[start : start + 3]
                stream.write_batch(pa.record_batch([part, [len(text) % 2 for text in part]], schema=schema))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in files]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))


@pytest.mark.parametrize("in_schema", [True, False], ids=["names in the schema", "names in dataset_info.json"])
def test_a_saved_dataset_is_read_with_its_class_names(in_schema: bool, tmp_path: Path):
    texts = [f"row {number}" for number in range(11)]
    save_to_disk(tmp_path / "saved", texts, in_schema=in_schema)
    source = find(tmp_path / "saved")
    assert source.kind == "Arrow"
    assert read_texts(source) == texts
    assert source.class_names == {"label": ("neg", "pos")}


def test_of_saved_splits_train_and_validation_are_used(tmp_path: Path):
    for split in ("train", "validation", "test"):
        save_to_disk(tmp_path / split, [f"{split} {number}" for number in range(4)])
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "validation", "test"]}')
    source = find(tmp_path)
    assert {file.parent.name for file in source.train} == {"train"}
    assert {file.parent.name for file in source.validation} == {"validation"}


def test_saved_splits_without_train_are_refused(tmp_path: Path):
    save_to_disk(tmp_path / "test", ["a", "b"])
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["test"]}')
    with pytest.raises(ConfigError, match="none is called train"):
        find(tmp_path)


@pytest.mark.parametrize("name", ["../secret.arrow", "/etc/passwd", "sub/../../x.arrow", 5])
def test_a_description_that_points_out_of_the_folder_is_refused(name: object, tmp_path: Path):
    save_to_disk(tmp_path / "saved", ["a", "b"])
    (tmp_path / "saved" / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(ConfigError, match="does not name its data files"):
        find(tmp_path / "saved")


def test_a_broken_arrow_file_is_named(tmp_path: Path):
    save_to_disk(tmp_path / "saved", ["a", "b", "c", "d"])
    broken = tmp_path / "saved" / "data-00000-of-00002.arrow"
    broken.write_bytes(b"no arrow at all")
    with pytest.raises(ConfigError, match="not an Arrow stream") as caught:
        find(tmp_path / "saved")
    assert caught.value.field == str(broken)
