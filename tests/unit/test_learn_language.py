from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.learn.language import language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is the capital of France?", "en"),
        ("Hello", "en"),
        ("Where can I find a good café in Zürich?", "en"),
        ("پایتخت ایران کجاست؟", "fa"),
        ("سلام خوبی؟", "fa"),
        ("كتاب علي كجاست؟", "fa"),
        ("Python چیست و چه کاربردی دارد؟", "fa"),
        ("法国的首都是哪里？", "zh"),
        ("用Python怎么写循环？", "zh"),
        ("Quelle est la capitale de la France ?", "other"),
        ("Was ist die Hauptstadt von Frankreich?", "other"),
        ("ما هي عاصمة فرنسا؟", "other"),
        ("پاکستان کا دارالحکومت کیا ہے؟", "other"),
        ("これは日本の首都です", "other"),
        ("한국의 수도는 어디입니까?", "other"),
        ("Столица России", "other"),
        ("12345 !!", "other"),
        ("", "other"),
    ],
)
def test_the_language_is_that_of_most_letters(text: str, language: str):
    assert language_of(text) == language


@given(text=st.text(max_size=300))
def test_every_text_has_one_of_four_answers(text: str):
    assert language_of(text) in ("en", "fa", "zh", "other")
