"""Tokens become text: whole characters, stop texts across tokens, the same however the answer is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cotrain.serve.answer_text import AnswerText, Characters, longest_beginning


def decode(tokens: list[int]) -> str:
    """A token is a byte."""
    return bytes(tokens).decode(errors="replace")


def told(text: AnswerText, tokens: bytes) -> list[str]:
    """The pieces up to the stop, or to the end."""
    pieces = []
    for token in tokens:
        pieces.append(text.push(token))
        if text.stopped:
            return pieces
    return [*pieces, text.finish()]


def answer(stops: tuple[str, ...], *, strip_start: bool = False) -> AnswerText:
    return AnswerText(decode, stops, strip_start=strip_start)


@given(st.text(max_size=30))
def test_characters_come_whole_and_none_is_lost(text: str) -> None:
    characters = Characters(decode)
    pieces = [characters.push(token) for token in text.encode()]
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces) or "\N{REPLACEMENT CHARACTER}" in text
    assert "".join([*pieces, characters.finish()]) == text


@given(st.binary(max_size=30))
def test_bytes_that_are_no_text_hold_nothing_up(tokens: bytes) -> None:
    characters = Characters(decode)
    held = 0
    for token in tokens:
        held = 0 if characters.push(token) else held + 1
        assert held < 4
    characters.finish()
    assert characters.finish() == ""


@given(st.text("abc", max_size=40), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_an_answer_ends_before_the_first_stop_text(text: str, stops: list[str]) -> None:
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    text_of = answer(tuple(stops))
    pieces = told(text_of, text.encode())
    # a stop that is whole earlier ends the answer, though a longer one may have begun before it
    assert text.startswith("".join(pieces))
    assert text_of.stopped == bool(places)
    if not places:
        assert "".join(pieces) == text
    assert all(stop not in "".join(pieces) for stop in stops)


def test_what_may_become_a_stop_text_waits() -> None:
    text = answer(("\nUser:",))
    assert [text.push(token) for token in b"Hi\nUse"] == ["H", "i", "", "", "", ""]
    assert text.push(ord("d")) == "\nUsed"
    assert "".join(told(text, b"\nUser: and more")) == ""
    assert text.stopped
    assert text.finish() == ""


def test_white_space_of_the_form_is_left_out() -> None:
    assert told(answer((), strip_start=True), b"  Hi you ") == ["", "", "H", "i", " ", "y", "o", "u", " ", ""]


def test_the_longest_beginning_counts() -> None:
    assert longest_beginning("abab", ("abac", "b")) == 3 - 1
    assert longest_beginning("aba", ("abac",)) == 3
    assert longest_beginning("", ("a",)) == 0
