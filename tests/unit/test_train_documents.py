from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cotrain.config import DataSection
from cotrain.errors import ConfigError
from cotrain.train.documents import PIECE_BYTES, read_documents


def documents_of(path: Path) -> list[bytes]:
    return list(read_documents(DataSection(data_path=str(path))))


def test_the_built_in_corpus_is_five_to_ten_megabytes_of_python_and_always_the_same():
    documents = list(read_documents(DataSection()))
    assert 5e6 <= sum(map(len, documents)) <= 10e6
    assert len(documents) > 200
    assert any(b"class TestCase" in document for document in documents)
    assert not any(b"build_time_vars = {" in document for document in documents)
    assert list(read_documents(DataSection())) == documents


def test_a_folder_is_read_in_the_order_of_its_relative_paths(tmp_path: Path):
    (tmp_path / "b").mkdir()
    for name in ("b/two.md", "c.py", "a.txt", "picture.png"):
        (tmp_path / name).write_text(name)
    (tmp_path / "empty.txt").touch()
    assert documents_of(tmp_path) == [b"a.txt", b"b/two.md", b"c.py"]


def test_a_lone_file_is_cut_at_line_ends_and_loses_nothing(tmp_path: Path):
    content = "".join(f"line {number}: سلام\n" for number in range(2000)).encode() + b"no newline at the end"
    path = tmp_path / "book.txt"
    path.write_bytes(content)
    documents = documents_of(path)
    assert b"".join(documents) == content
    assert len(documents) > 3
    for document in documents[:-1]:
        assert document.endswith(b"\n")
        assert PIECE_BYTES <= len(document) < 2 * PIECE_BYTES


def test_a_path_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="No such file") as caught:
        documents_of(tmp_path / "nowhere.txt")
    assert caught.value.field.endswith("nowhere.txt")
    assert caught.value.hint


def test_an_empty_file_and_a_folder_without_text_are_refused(tmp_path: Path):
    (tmp_path / "empty.txt").touch()
    for path in (tmp_path, tmp_path / "empty.txt"):
        with pytest.raises(ConfigError, match="holds no text") as caught:
            documents_of(path)
        assert str(path) in caught.value.field


def test_a_document_that_is_not_utf_8_is_put_aside_with_its_place(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for number in range(120):
        (tmp_path / f"{number:03d}.txt").write_text(f"document {number}")
    (tmp_path / "060.txt").write_bytes(b"first\nsecond \xff\n")
    with caplog.at_level(logging.WARNING):
        assert len(documents_of(tmp_path)) == 119
    assert f"{tmp_path / '060.txt'}:2" in caplog.text


def test_more_than_one_in_a_hundred_stops_with_file_and_line(tmp_path: Path):
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "latin.txt").write_bytes(b"fine\nfine\ncaf\xe9\n")
    with pytest.raises(ConfigError, match="1 of 2 documents are not UTF-8") as caught:
        documents_of(tmp_path)
    assert caught.value.field == f"{tmp_path / 'latin.txt'}:3"
