from __future__ import annotations

import json
from pathlib import Path

import pytest

from cotrain.folders import StorageError
from cotrain.learn.log import append_json_line, append_once


def test_lines_are_added_and_a_torn_one_spoils_no_other(tmp_path: Path):
    path = tmp_path / "logs" / "enhancement.jsonl"
    append_json_line(path, {"cycle": "یک"})
    with path.open("ab") as file:
        file.write(b'{"cycle": "tor')
    append_json_line(path, {"cycle": 3})
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(lines[0]), lines[1], json.loads(lines[2])] == [{"cycle": "یک"}, '{"cycle": "tor', {"cycle": 3}]


def test_an_entry_is_added_once(tmp_path: Path):
    path = tmp_path / "log"
    for entry in ({"id": "a", "x": 1}, {"id": "b", "x": 2}, {"id": "a", "x": 3}):
        append_once(path, entry, "id")
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"id": "a", "x": 1}, {"id": "b", "x": 2}]


def test_an_entry_that_was_torn_is_added_again(tmp_path: Path):
    path = tmp_path / "log"
    path.write_bytes(b'[1]\n{"id": "a", ')
    append_once(path, {"id": "a"}, "id")
    assert path.read_text().splitlines()[-1] == '{"id": "a"}'


def test_what_has_no_form_in_json_is_not_written(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        append_json_line(tmp_path / "log", {"x": float("nan")})
    assert not (tmp_path / "log").exists()


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "log").mkdir()
    with pytest.raises(StorageError) as caught:
        append_json_line(tmp_path / "log", {})
    assert caught.value.field == str(tmp_path / "log")
