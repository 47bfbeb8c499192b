from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.errors import InvalidRequestError
from cotrain.learn.samples import Chat, Sample, normalized, rated

TEXT = st.text(min_size=1, max_size=80).filter(lambda text: bool(text.strip()))
LINE = {"question": "Why?", "answer": "Because.", "language": "en", "score": 7.5, "origin": "chat:7"}


@given(question=TEXT, answer=TEXT, score=st.floats(0, 10))
def test_a_sample_comes_back_from_its_line(question: str, answer: str, score: float):
    sample = Sample(question, answer, "fa", score, "import:seed.json:12")
    line = sample.to_line()
    assert line.endswith("\n")
    assert Sample.from_line(line) == sample
    assert json.loads(line)["text"] == sample.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("question", " "), ("question", None), ("answer", "x" * 8001), ("answer", 7), ("language", "de"),
        ("score", 10.5), ("score", True), ("score", float("nan")), ("score", "7"), ("origin", "somewhere"),
        ("origin", "variation:synonym:12"),
    ],
)  # fmt: skip
def test_a_line_that_is_not_as_it_should_be_is_refused_with_its_field(field: str, value: object):
    with pytest.raises(InvalidRequestError) as caught:
        Sample.from_record(LINE | {field: value})
    assert caught.value.field == field


@pytest.mark.parametrize("line", ["", "[1]", "{", "[" * 100_000])
def test_a_line_that_is_no_object_is_refused(line: str):
    with pytest.raises(InvalidRequestError):
        Sample.from_line(line)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is AI?", "what is  ai"),
        ("كتاب علي", "کتاب علی"),
        ("می‌شود", "میشود"),
        ("سال ١٤٠٣", "سال 1403"),
        ("ＡＩ是什么？", "AI是什么"),
        ("کِتاب", "کتاب"),
    ],
)
def test_spelling_makes_no_other_sample(one: str, other: str):
    assert normalized(one) == normalized(other)
    assert Sample(one, "x", "en", 5, "chat:1").key == Sample(other, "X!", "en", 9, "chat:2").key


@given(text=st.text(max_size=80))
def test_the_short_way_for_ascii_gives_the_same(text: str):
    ascii_text = text.encode("ascii", "replace").decode()
    assert f"{normalized(ascii_text)} é".strip() == normalized(f"{ascii_text} é")


def test_question_and_answer_are_not_run_together():
    assert Sample("a b", "c", "en", 5, "chat:1").key != Sample("a", "b c", "en", 5, "chat:1").key


def test_half_a_surrogate_pair_has_a_key():
    assert len(Sample("\ud800", "x", "en", 5, "chat:1").key) == 64


def test_families_and_origins():
    parent = Sample("q", "a", "en", 5, Chat("7", "q", "a", "en", 0, "", 0.0).origin)
    child = Sample("q?!", "b", "en", 5, f"variation:synonym:{parent.key}")
    assert (parent.origin, parent.is_variation, parent.family) == ("chat:7", False, parent.key)
    assert (child.is_variation, child.family) == (True, parent.key)
    assert Chat("import:seed:3", "q", "a", "en", 0, "", 0.0).origin == "import:seed:3"


def test_a_good_rating_gives_one_point_within_ten():
    assert (rated(5, 1), rated(9.5, 1), rated(5, 0)) == (6, 10, 5)
    with pytest.raises(ValueError, match="finite"):
        rated(float("nan"), 1)
