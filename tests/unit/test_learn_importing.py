from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cotrain.errors import ConfigError
from cotrain.learn import importing
from cotrain.learn.importing import EMPTY, NO_PAIR, NOT_TEXT, SURROGATE, TOO_LONG, read_chats
from cotrain.learn.samples import Chat
from cotrain.put_aside import PutAside


def read(path: Path, problems: PutAside | None = None) -> list[Chat]:
    return list(read_chats(path, name="seed", problems=problems))


def write(path: Path, rows: list[Any]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize(("asked", "said"), importing.PAIRS)
def test_rows_are_read_under_the_names_of_that_time(suffix: str, asked: str, said: str, tmp_path: Path):
    rows = [{asked: "پایتخت ایران کجاست؟", said: "تهران پایتخت ایران است."}, {asked: "Who?", said: "It was you."}]
    assert read(write(tmp_path / f"data{suffix}", rows)) == [
        Chat("import:seed:1", "پایتخت ایران کجاست؟", "تهران پایتخت ایران است.", "fa", 0, "", 0.0),
        Chat("import:seed:2", "Who?", "It was you.", "en", 0, "", 0.0),
    ]


def test_what_a_row_tells_besides_is_kept(tmp_path: Path):
    row = {"question": "Wer?", "answer": "Ich.", "lang": "other", "rating": -1, "model": "m" * 300,
           "timestamp": "2025-01-02T03:04:05"}  # fmt: skip
    assert read(write(tmp_path / "a.jsonl", [row])) == [
        Chat("import:seed:1", "Wer?", "Ich.", "other", -1, "m" * 200, 1735787045.0)
    ]


@pytest.mark.parametrize("moment", ["soon", -5, True, None, [1], 10**400, "0001-01-01"])
def test_a_moment_that_is_none_is_zero(moment: object, tmp_path: Path):
    row = {"question": "q?", "answer": "a.", "created_at": moment}
    assert [chat.created_at for chat in read(write(tmp_path / "a.jsonl", [row]))] == [0.0]


def test_what_tells_who_somebody_is_is_taken_out(tmp_path: Path):
    row = {"question": "mail a@b.co", "answer": "or call ۰۹۱۲۳۴۵۶۷۸۹"}
    [chat] = read(write(tmp_path / "a.json", [row]))
    assert (chat.question, chat.answer) == ("mail [email]", "or call [phone]")


def test_a_bad_row_is_counted_and_listed_and_the_rest_is_read(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    rows: list[Any] = [
        {"question": "q"}, {"question": 1, "answer": "a"}, {"question": " ", "answer": "a"},
        {"question": "q", "answer": "a" * 8001}, {"question": "\ud800", "answer": "a"}, [1],
        {"question": "q", "answer": "a"},
    ]  # fmt: skip
    write(path, rows)
    path.write_bytes(path.read_bytes() + b'{"question": "\xff"}\n{"question":\n')
    problems = PutAside()
    assert [chat.id for chat in read(path, problems)] == ["import:seed:7"]
    assert problems.total == 9
    assert problems.counts == {
        NO_PAIR: 1, NOT_TEXT: 1, EMPTY: 1, TOO_LONG: 1, SURROGATE: 1, "not a JSON object": 1, "not UTF-8": 1,
        "malformed JSON": 1,
    }  # fmt: skip
    assert [place.number for place, _ in problems.listed] == [1, 2, 3, 4, 5, 6, 8, 9]


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "broken.json").write_text('[{"question": "q", "answer": "a"}, {')
    for name in ("missing.json", "pipe.json", ".", "broken.json"):
        with pytest.raises(ConfigError) as caught:
            read(tmp_path / name)
        assert str(tmp_path) in caught.value.field


@pytest.mark.parametrize("name", ["", "a:b", "a/b", "x" * 101, "a b"])
def test_a_name_that_would_spoil_an_origin_is_refused(name: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="no name"):
        list(read_chats(write(tmp_path / "a.json", []), name=name))


def test_more_rows_than_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importing, "MAX_ROWS", 2)
    path = write(tmp_path / "a.jsonl", [{"question": "q", "answer": "a"}] * 3)
    with pytest.raises(ConfigError, match="more than 2 rows"):
        read(path)
