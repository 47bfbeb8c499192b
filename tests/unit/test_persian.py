from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.persian import normalize_persian, normalize_with_offsets

ZWNJ = "\u200c"
PERSIAN = st.text(
    st.one_of(
        st.sampled_from([*"يىكکیكتاب آأإؤئۀ", ZWNJ, "\u00a0", "\t", "\n", "\u0654", "\u0653", "٤", "۴", "4"]),
        st.characters(),
    )
)


@pytest.mark.parametrize(
    ("typed", "unified"),
    [
        ("علي", "علی"),
        ("موسى", "موسی"),
        ("كتاب", "کتاب"),
        ("٠١٢٣٤٥٦٧٨٩", "۰۱۲۳۴۵۶۷۸۹"),
        ("GPT-2 در 2019", "GPT-2 در 2019"),
        ("یک\u00a0 \u2009دو\tسه\nچهار", "یک دو\tسه\nچهار"),
        ("\u0627\u0653ب", "آب"),
    ],
    ids=["yeh", "alef maksura", "kaf", "digits", "latin", "spaces", "composed"],
)
def test_what_looks_alike_becomes_the_same(typed: str, unified: str):
    assert normalize_persian(typed) == unified


def test_the_non_joiner_is_kept_and_runs_of_it_become_one():
    assert normalize_persian(f"می{ZWNJ}روم") == f"می{ZWNJ}روم"
    assert normalize_persian(f"کتاب{ZWNJ * 3}ها{ZWNJ}") == f"کتاب{ZWNJ}ها{ZWNJ}"


@given(text=PERSIAN)
def test_doing_it_twice_changes_nothing_more(text: str):
    once = normalize_persian(text)
    assert normalize_persian(once) == once


@given(text=PERSIAN, data=st.data())
def test_offsets_move_with_the_text_between_them(text: str, data: st.DataObject):
    offsets = data.draw(st.lists(st.integers(0, len(text)), max_size=6))
    normal, moved = normalize_with_offsets(text, offsets)
    assert len(moved) == len(offsets)
    for (start, new_start), (end, new_end) in zip(
        sorted(zip(offsets, moved, strict=True)), sorted(zip(offsets, moved, strict=True))[1:], strict=False
    ):
        assert normal[new_start:new_end] == normalize_persian(text[start:end])
