from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.errors import ConfigError
from cotrain.train.data.splits import RankSurvey, SplitRecord, rank_of, recorded_cut


def digests(count: int) -> list[bytes]:
    return [hashlib.sha256(str(number).encode()).digest() for number in range(count)]


def cut_of(contents: list[bytes], *, share: float, seed: int) -> int:
    survey = RankSurvey(seed)
    for content in contents:
        survey.add(content)
    return survey.cut(share)


def held_out(contents: list[bytes], *, share: float, seed: int) -> set[bytes]:
    cut = cut_of(contents, share=share, seed=seed)
    return {content for content in contents if rank_of(content, seed) < cut}


@given(count=st.integers(2, 60), share=st.floats(0.001, 0.999), seed=st.integers(0, 2**31 - 1))
def test_a_split_takes_some_contents_but_never_all(count: int, share: float, seed: int):
    contents = digests(count)
    chosen = held_out(contents, share=share, seed=seed)
    assert 1 <= len(chosen) < count
    assert chosen == held_out(contents[::-1] + contents, share=share, seed=seed)


def test_a_split_keeps_its_share_and_adding_documents_moves_none():
    few, many = digests(2000), digests(4000)
    chosen = held_out(few, share=0.2, seed=5)
    assert len(chosen) / len(few) == pytest.approx(0.2, abs=0.04)
    assert held_out(many, share=0.2, seed=5) & set(few) == chosen
    assert held_out(few, share=0.2, seed=6) != chosen


@pytest.mark.parametrize("contents", [[], digests(1) * 3], ids=["none", "one thrice"])
def test_less_than_two_contents_cannot_be_split(contents: list[bytes]):
    with pytest.raises(ConfigError, match="only one document"):
        cut_of(contents, share=0.5, seed=0)


def record_of(cut: int | None) -> SplitRecord:
    return SplitRecord(
        seed=3, share=0.2, cut=cut, train=8, validation=2, validation_sha256="00" * 32, listed=("ab", "cd")
    )


def test_a_recorded_cut_is_found_again_for_the_same_seed_and_share(tmp_path: Path):
    path, cut = tmp_path / "key.json", cut_of(digests(10), share=0.2, seed=3)
    record_of(cut).write(path)
    assert recorded_cut(path, seed=3, share=0.2) == cut
    assert recorded_cut(path, seed=4, share=0.2) is None
    assert recorded_cut(path, seed=3, share=0.3) is None
    assert json.loads(path.read_text())["listed"] == ["ab", "cd"]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"format": 1, "seed": 3, "share": 0.2, "cut": "no"}'])
def test_a_record_that_cannot_be_read_is_made_again(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "key.json").write_bytes(content)
    assert recorded_cut(tmp_path / "key.json", seed=3, share=0.2) is None
    assert "made again" in caplog.text


def test_no_record_is_no_trouble(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    assert recorded_cut(tmp_path / "key.json", seed=3, share=0.2) is None
    assert not caplog.text
