from __future__ import annotations

from pathlib import Path

from cotrain.records import BadRecord, Place, Record
from cotrain.train.data.documents import PIECE_BYTES, read_pieces, read_whole, standard_library_files


def texts_of(records: list[Record | BadRecord]) -> list[str]:
    return [record.columns["text"] for record in records if isinstance(record, Record)]


def test_the_built_in_corpus_is_five_to_ten_megabytes_of_python_and_always_the_same():
    files = standard_library_files()
    documents = [text for file in files for text in texts_of(list(read_whole(file)))]
    assert 5e6 <= sum(map(len, documents)) <= 10e6
    assert len(documents) > 200
    assert any("class TestCase" in document for document in documents)
    assert not any("build_time_vars = {" in document for document in documents)
    assert standard_library_files() == files


def test_a_lone_file_is_cut_at_line_ends_and_loses_nothing(tmp_path: Path):
    content = "".join(f"line {number}: سلام\n" for number in range(2000)) + "\n" * 5000 + "no newline at the end"
    path = tmp_path / "book.txt"
    path.write_text(content)
    records = list(read_pieces(path))
    documents = texts_of(records)
    assert "".join(documents) == content
    assert len(documents) > 3
    line = 1
    for record, document in zip(records[:-1], documents[:-1], strict=True):
        assert document.endswith("\n")
        assert PIECE_BYTES <= len(document.encode()) < 2 * PIECE_BYTES
        assert record.place == Place(path, line)
        line += document.count("\n")


def test_an_empty_file_is_no_document(tmp_path: Path):
    (tmp_path / "empty.txt").touch()
    assert list(read_whole(tmp_path / "empty.txt")) == []
    assert list(read_pieces(tmp_path / "empty.txt")) == []


def test_text_that_is_not_utf_8_is_told_with_its_line(tmp_path: Path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"fine\nfine\ncaf\xe9\n")
    assert list(read_whole(path)) == [BadRecord(Place(path, 3), "not UTF-8")]


def test_of_a_lone_file_only_the_piece_that_is_not_utf_8_is_lost(tmp_path: Path):
    path = tmp_path / "book.txt"
    lines = [b"0123456789" * 50 + b"\n"] * 40
    lines[20] = b"caf\xe9\n"
    path.write_bytes(b"".join(lines))
    records = list(read_pieces(path))
    bad = [record for record in records if isinstance(record, BadRecord)]
    assert bad == [BadRecord(Place(path, 21), "not UTF-8")]
    assert len(texts_of(records)) == len(records) - 1 >= 3
