from __future__ import annotations

import json
from pathlib import Path

import pytest

from cotrain.folders import StorageError
from cotrain.learn.log import append_json_line, record, summary
from cotrain.learn.pipeline import Enhancement

CYCLE = Enhancement((), (), 2003, 2027, 15, 9, 0, {"too short": 3, "rated down": 1}, 0, 0, 24)


def test_the_summary_tells_sizes_growth_good_ones_and_variations():
    text = "\n".join(summary(CYCLE, cycle="c1", version=4))
    for line in (
        "Learning cycle c1", "Dataset before: 2003 samples", "15 samples good, 4 refused (too short 3, rated down 1)",
        "Variations: 9 made", "  Original: 2003", "  Final: 2027", "  Growth: 24 (1.2%)",
        "24 samples changed: worth training again. Version 4 is written.",
    ):  # fmt: skip
        assert line in text


def test_a_cycle_that_changed_little_says_so():
    same = Enhancement((), (), 2003, 2003, 0, 0, 0, {}, 0, 0, 0)
    assert summary(same)[-1] == "Too little has changed to train again."
    assert summary(same)[1].endswith("0 samples good, 0 refused")


def test_the_record_has_every_figure_and_the_facts():
    entry = record(CYCLE, cycle="c1", version=4, began_at=1.5)
    assert entry["cycle"] == "c1"
    assert (entry["version"], entry["began_at"]) == (4, 1.5)
    assert (entry["original_size"], entry["final_size"], entry["growth"], entry["growth_percent"]) == (
        2003,
        2027,
        24,
        1.2,
    )
    assert (entry["good_samples"], entry["variations"], entry["refused"]) == (15, 9, CYCLE.refused)
    assert json.loads(json.dumps(entry, allow_nan=False)) == entry


def test_lines_are_added_and_a_torn_one_spoils_no_other(tmp_path: Path):
    path = tmp_path / "logs" / "enhancement.jsonl"
    append_json_line(path, {"cycle": "یک"})
    with path.open("ab") as file:
        file.write(b'{"cycle": "tor')
    append_json_line(path, {"cycle": 3})
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(lines[0]), lines[1], json.loads(lines[2])] == [{"cycle": "یک"}, '{"cycle": "tor', {"cycle": 3}]


def test_what_has_no_form_in_json_is_not_written(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        append_json_line(tmp_path / "log", {"x": float("nan")})
    assert not (tmp_path / "log").exists()


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "log").mkdir()
    with pytest.raises(StorageError) as caught:
        append_json_line(tmp_path / "log", {})
    assert caught.value.field == str(tmp_path / "log")
