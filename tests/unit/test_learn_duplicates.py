from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from cotrain.learn.duplicates import BANDS, GROUP, MOST_COMPARED, NEAR, NearIndex, bands_of, groups_of, likeness

TEXT = st.text(st.sampled_from("abcdef گچپ的是"), max_size=60)


def index_of(texts: list[str]) -> NearIndex:
    index = NearIndex()
    for text, bands in zip(texts, bands_of(texts), strict=True):
        index.keep(text, bands)
    return index


def found(index: NearIndex, text: str) -> list[int]:
    return sorted(index.near(text, bands_of([text])[0]))


@given(text=TEXT)
def test_groups_are_five_characters_and_never_none(text: str):
    groups = groups_of(text)
    assert groups
    assert all(group in text and len(group) in (GROUP, len(text)) for group in groups)
    assert likeness(groups, groups) == 1.0


@given(texts=st.lists(TEXT, min_size=1, max_size=20))
def test_a_text_has_the_same_bands_whatever_it_is_hashed_with(texts: list[str]):
    together = bands_of(texts)
    assert together == [bands_of([text])[0] for text in texts]
    assert all(len(bands) == BANDS for bands in together)


@given(texts=st.lists(TEXT, max_size=12), text=TEXT)
def test_what_is_found_is_near_and_equal_texts_are_always_found(texts: list[str], text: str):
    numbers = found(index_of(texts), text)
    assert all(likeness(groups_of(texts[number]), groups_of(text)) >= NEAR for number in numbers)
    assert {number for number, other in enumerate(texts) if other == text} <= set(numbers)


def test_near_texts_are_found_as_often_as_the_bands_promise():
    random_ = random.Random(0)
    texts, changed = [], []
    while len(texts) < 1000:
        text = "".join(random_.choices("abcdefghijklmnopqrstuvwxyz ", k=200))
        other = text[:-10] + "".join(random_.choices("abcdefghijklmnopqrstuvwxyz ", k=10))
        if likeness(groups_of(text), groups_of(other)) >= 0.85:
            texts.append(text)
            changed.append(other)
    index = index_of(texts)
    hits = sum(number in found(index, other) for number, other in enumerate(changed))
    assert hits >= 998


def test_persian_texts_that_differ_in_a_word_are_near_and_others_are_not():
    text = "زلزله وقتی رخ می دهد که صفحه های زمین ناگهان روی هم می لغزند و انرژی انباشته شده آزاد می شود"
    index = index_of([text])
    assert found(index, text.replace("آزاد", "رها")) == [0]
    assert found(index, "پایتخت ترکیه شهر آنکارا است هرچند استانبول بزرگ ترین شهر این کشور به شمار می رود") == []


def test_a_filled_table_costs_a_bounded_number_of_comparisons():
    texts = [f"{'the same long text for all of them ' * 5}{number:04}" for number in range(500)]
    index = index_of(texts)
    assert 0 < len(found(index, texts[0])) <= MOST_COMPARED
