"""Row formats: what is read from them, and what happens to each kind of bad row."""

from __future__ import annotations

import csv
import json
import os
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.errors import ConfigError
from cotrain.put_aside import MAX_LISTED, PutAside
from cotrain.records import MAX_RECORD_BYTES
from cotrain.sections import FieldsSection
from cotrain.train.data.rows import Normalization, PlacedRow, RowReader
from cotrain.train.data.sources import find_source

QUESTION = ("question", "context", "answers")


def read(
    path: Path, *roles: str, fields: FieldsSection | None = None, normalization: Normalization = "none"
) -> tuple[list[PlacedRow], PutAside]:
    """The rows of a file and what was put aside; of text alone unless other roles are named."""
    fields, roles = fields or FieldsSection(), roles or ("text",)
    source = find_source(path, name=str(path))
    reader = source.reader([getattr(fields, role) for role in roles])
    put_aside = PutAside()
    rows = RowReader(reader, roles, fields, normalization, source.class_names, plain=source.kind == "text")
    return list(rows.rows(source.train, put_aside)), put_aside


def listed(put_aside: PutAside, folder: Path) -> list[dict[str, Any]]:
    put_aside.write(folder)
    return [json.loads(line) for line in (folder / "put_aside.jsonl").read_text().splitlines()]


def write_jsonl(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


# ------------------------------------------------------------------------------------------- every format
TEXTS = ["first", "second, with a comma", 'a "quoted" word', "two\nlines", "سلام دنیا", " spaces ", "tab\there"]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """The same rows in the format that the suffix names."""
    if path.suffix in (".jsonl", ".ndjson"):
        return write_jsonl(path, rows)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=2))
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


FORMATS = ["rows.jsonl", "rows.ndjson", "rows.json", "rows.csv", "rows.tsv", "rows.parquet"]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path):
    rows = [{"id": str(number), "body": text, "label": "ab"[number % 2]} for number, text in enumerate(TEXTS)]
    fields = FieldsSection(text="body")
    found, put_aside = read(write(tmp_path / name, rows), "text", "label", fields=fields)
    assert [placed.row for placed in found] == [{"text": row["body"], "label": row["label"]} for row in rows]
    assert put_aside.total == len(rows)
    assert not put_aside.counts
    reference, _ = read(write(tmp_path / "reference.jsonl", rows), "text", "label", fields=fields)
    assert [placed.digest for placed in found] == [placed.digest for placed in reference]


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), min_size=1)))
def test_any_text_comes_back_from_json_and_csv(tmp_path_factory: pytest.TempPathFactory, texts: list[str]):
    texts = [text for text in texts if text.strip()] or ["x"]
    folder = tmp_path_factory.mktemp("rows")
    for name in ("rows.jsonl", "rows.json", "rows.csv", "rows.parquet"):
        found, _ = read(write(folder / name, [{"text": text} for text in texts]))
        assert [placed.row["text"] for placed in found] == texts


def test_a_csv_file_that_is_separated_by_tabs_is_read_as_what_it_is(tmp_path: Path):
    (tmp_path / "rows.csv").write_text("text\tlabel\none, two\tx\n")
    found, _ = read(tmp_path / "rows.csv", "text", "label")
    assert found[0].row == {"text": "one, two", "label": "x"}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_a_byte_order_mark_is_no_part_of_the_data(name: str, tmp_path: Path):
    path = write(tmp_path / name, [{"text": "one"}])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(path)[0][0].row == {"text": "one"}


def test_a_lone_text_is_the_same_document_in_a_text_file_and_in_a_row(tmp_path: Path):
    (tmp_path / "a.txt").write_text("سلام")
    as_text, as_row = read(tmp_path / "a.txt")[0], read(write_jsonl(tmp_path / "a.jsonl", [{"text": "سلام"}]))[0]
    assert as_text[0].digest == as_row[0].digest


# ------------------------------------------------------------------------------------------- bad records
GOOD = b'{"text": "good"}'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "caf\xe9"}', "not UTF-8"),
        (b'{"text": "' + b"x" * MAX_RECORD_BYTES + b'"}', "longer than 1 MiB"),
        (b'{"text": "open', "malformed JSON"),
        (b'{"text": NaN}', "malformed JSON"),
        (b'{"text": "a", "text": "b"}', "malformed JSON"),
        (b'{"text": ' + b"9" * 5000 + b"}", "malformed JSON"),
        (b'{"text": ' + b"[" * 100_000, "JSON nested too deeply"),
        (b'["text"]', "not a JSON object"),
        (b'{"other": "a"}', "field 'text' is missing"),
        (b'{"text": null}', "field 'text' is missing"),
        (b'{"text": 5}', "field 'text' is not text"),
        (b'{"text": " \\n"}', "field 'text' is empty"),
        (b'{"text": "\\ud800"}', "text with half a surrogate pair"),
    ],
)
def test_a_bad_line_is_put_aside_with_its_place_and_reason(line: bytes, reason: str, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + b"\n\n" + line + b"\n" + GOOD)
    found, put_aside = read(path)
    assert [placed.place.number for placed in found] == [1, 4]
    assert put_aside.counts == {reason: 1}
    assert listed(put_aside, tmp_path) == [{"file": str(path), "line": 3, "reason": reason}]


@pytest.mark.parametrize(
    ("record", "reason", "lost"),
    [
        (b"caf\xe9,x", "not UTF-8", 1),
        (b"only one", "not as many fields as the header", 1),
        (b'"quoted"badly,x', "malformed CSV", 1),
        (b",x", "field 'text' is empty", 1),
        (b"x" * (MAX_RECORD_BYTES + 1) + b",x", "longer than 1 MiB", 1),
    ],
)
def test_a_bad_csv_record_is_put_aside_and_the_next_is_read(record: bytes, reason: str, lost: int, tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'text,label\n"two\nlines",a\n' + record + b"\ngood,b\n")
    found, put_aside = read(path, "text", "label")
    assert [placed.row["text"] for placed in found] == ["two\nlines", "good"]
    assert put_aside.counts == {reason: lost}
    assert listed(put_aside, tmp_path)[0]["line"] == 4


def test_a_quote_that_is_never_closed_loses_a_megabyte_at_most(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text("text\ngood\n" + '"open\n' + "next\n" * 300_000)
    found, put_aside = read(path)
    assert put_aside.counts == {"longer than 1 MiB": 1}
    assert len(found) > 80_000


@pytest.mark.parametrize("name", ["rows.json", "rows.parquet"])
def test_a_record_over_the_limit_is_put_aside_in_the_other_formats_too(name: str, tmp_path: Path):
    found, put_aside = read(write(tmp_path / name, [{"text": "x" * (MAX_RECORD_BYTES + 1)}, {"text": "good"}]))
    assert [placed.row["text"] for placed in found] == ["good"]
    assert put_aside.counts == {"longer than 1 MiB": 1}


def test_a_huge_line_is_never_held_in_memory(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.truncate(200 * 2**20)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + GOOD + b"\n")
    tracemalloc.start()
    found, put_aside = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert put_aside.counts == {"longer than 1 MiB": 1}
    assert len(found) == 1
    assert peak < 16 * 2**20


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('[\n{"text": "a"},\n{"text": }]', 3),
        ('[{"text": "a"},\n]', 2),
        ('[{"text": "a"}\n{"text": "b"}]', 2),
        ('[{"text": "a"}', 1),
        ('[{"text": "a"}]\ntrailing', 1),
        ("[" * 100_000, 1),
    ],
)
def test_an_array_with_a_fault_stops_at_its_line(content: str, line: int, tmp_path: Path):
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match="cannot be read past this line") as caught:
        read(path)
    assert caught.value.field == f"{path}:{line}"


def test_an_array_tells_the_line_of_each_element_and_may_be_empty(tmp_path: Path):
    path = tmp_path / "rows.json"
    path.write_text('[\n  {"text": "a"},\n\n  5, {"text": "b"}\n]\n')
    found, put_aside = read(path)
    assert [placed.place.number for placed in found] == [2, 4]
    assert listed(put_aside, tmp_path) == [{"file": str(path), "line": 4, "reason": "not a JSON object"}]
    path.write_text("[]")
    assert read(path)[0] == []


def test_text_in_parquet_that_is_not_utf_8_loses_only_its_row(tmp_path: Path):
    texts = pa.array([b"good", b"caf\xe9", b"fine"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "rows.parquet")
    found, put_aside = read(tmp_path / "rows.parquet")
    assert [placed.row["text"] for placed in found] == ["good", "fine"]
    expected = {"file": str(tmp_path / "rows.parquet"), "row": 2, "reason": "not UTF-8"}
    assert listed(put_aside, tmp_path) == [expected]


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_a_column_that_no_row_has_is_refused_at_once_with_those_there_are(name: str, tmp_path: Path):
    path = write(tmp_path / name, [{"body": "a", "kind": "b"}])
    with pytest.raises(ConfigError, match=r"no column text; it has body, kind") as caught:
        read(path)
    assert str(path) in caught.value.field
    assert "data.fields" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"PAR1 garbage PAR1", b"PAR1" + b"\0" * 100])
def test_a_file_that_is_not_parquet_is_refused_with_its_name(content: bytes, tmp_path: Path):
    (tmp_path / "rows.parquet").write_bytes(content)
    with pytest.raises(ConfigError, match="is not Parquet") as caught:
        read(tmp_path / "rows.parquet")
    assert caught.value.field == str(tmp_path / "rows.parquet")


# ------------------------------------------------------------------------------------- the rule of 1 %
@pytest.mark.parametrize(("bad", "refused"), [(1, False), (2, True)])
def test_one_in_a_hundred_may_be_bad_and_no_more(bad: int, refused: bool, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join([GOOD + b"\n"] * (100 - bad) + [b"[]\n", b"{}\n"][:bad]))
    _, put_aside = read(path)
    if not refused:
        put_aside.require_few()
        return
    with pytest.raises(ConfigError, match="2 of 100 records cannot be used: 1 not a JSON object, 1 field") as caught:
        put_aside.require_few()
    assert caught.value.field == f"{path}:99"


def test_no_more_than_a_thousand_are_listed_and_none_of_their_content(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("secret words\n" * (MAX_LISTED + 100))
    _, put_aside = read(path)
    assert put_aside.counts.total() == MAX_LISTED + 100
    assert len(listed(put_aside, tmp_path)) == MAX_LISTED
    assert "secret" not in (tmp_path / "put_aside.jsonl").read_text()


# --------------------------------------------------------------------------------------- checks by role
@pytest.mark.parametrize(
    ("roles", "row", "reason"),
    [
        (("text", "label"), {"text": "a", "label": 1.5}, "field 'label' is neither a name nor a whole number"),
        (("text", "label"), {"text": "a", "label": True}, "field 'label' is neither a name nor a whole number"),
        (("tokens", "tags"), {"tokens": "a b", "tags": ["O", "O"]}, "field 'tokens' is not a list of words"),
        (("tokens", "tags"), {"tokens": ["a"], "tags": "O"}, "field 'tags' is not a list of tags"),
        (("tokens", "tags"), {"tokens": ["a", "b"], "tags": ["O"]}, "not as many tags as tokens"),
        (QUESTION, {"answers": "b"}, "field 'answers' is not of the form {text: [...], answer_start: [...]}"),
        (QUESTION, {"answers": {"text": ["b"], "answer_start": []}},
         "field 'answers' is not of the form {text: [...], answer_start: [...]}"),
        (QUESTION, {"answers": {"text": [""], "answer_start": [0]}}, "field 'answers' has an answer that is not text"),
        (QUESTION, {"answers": {"text": ["b"], "answer_start": [-1]}},
         "field 'answers' has a start that is not a position"),
        (QUESTION, {"answers": {"text": ["b"], "answer_start": [9]}},
         "an answer does not stand where answer_start says"),
    ],
)  # fmt: skip
def test_a_row_of_the_wrong_shape_is_told_by_its_field(
    roles: tuple[str, ...], row: dict[str, Any], reason: str, tmp_path: Path
):
    row = {"question": "what?", "context": "a b c"} | row
    _, put_aside = read(write_jsonl(tmp_path / "rows.jsonl", [row]), *roles)
    assert put_aside.counts == {reason: 1}


def test_class_numbers_become_names_where_the_file_names_them(tmp_path: Path):
    features = {
        "label": {"names": ["bad", "good"], "_type": "ClassLabel"},
        "tags": {"feature": {"names": ["O", "B-LOC"], "_type": "ClassLabel"}, "_type": "List"},
    }
    table = pa.table({"text": ["a", "b", "c"], "label": [1, 0, -1], "tokens": [["x", "y"]] * 3, "tags": [[0, 1]] * 3})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "rows.parquet")
    found, put_aside = read(tmp_path / "rows.parquet", "text", "label", "tokens", "tags")
    assert [placed.row["label"] for placed in found] == ["good", "bad"]
    assert found[0].row["tags"] == ["O", "B-LOC"]
    assert put_aside.counts == {"field 'label' is not the number of a class": 1}


# ---------------------------------------------------------------------------------------- normalization
def test_persian_text_is_normalized_in_every_field_and_answers_stay_in_their_place(tmp_path: Path):
    context, answer = "شهر  تهران\u00a0\u00a0پايتخت كشور ايران است", "كشور"
    row = {
        "question": "پايتخت كجاست؟",
        "context": context,
        "answers": {"text": [answer, "ايران"], "answer_start": [context.index(answer), context.index("ايران")]},
    }
    found, _ = read(write_jsonl(tmp_path / "rows.jsonl", [row]), *QUESTION, normalization="persian")
    normal = found[0].row
    assert normal["question"] == "پایتخت کجاست؟"
    assert normal["context"] == "شهر تهران پایتخت کشور ایران است"
    assert normal["answers"]["text"] == ["کشور", "ایران"]
    for text, start in zip(normal["answers"]["text"], normal["answers"]["answer_start"], strict=True):
        assert normal["context"].startswith(text, start)


def test_rows_that_differ_only_in_spelling_are_one_content(tmp_path: Path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "كتاب  علي"}, {"text": "کتاب علی"}])
    apart, together = read(path)[0], read(path, normalization="persian")[0]
    assert apart[0].digest != apart[1].digest
    assert together[0].digest == together[1].digest
