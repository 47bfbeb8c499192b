"""The page's languages: the same texts in each, with the same placeholders, none unused and none missing."""

from __future__ import annotations

import json
import re

import pytest

from coordinator.api.pages import STATIC

LANGUAGES = ("en", "fa", "zh")
PLURALS = {"en": {"one", "other"}, "fa": {"one", "other"}, "zh": {"other"}}
CATALOGS = {name: json.loads((STATIC / "i18n" / f"{name}.json").read_text(encoding="utf-8")) for name in LANGUAGES}
SCRIPTS = [path for path in STATIC.rglob("*.js") if "vendor" not in path.parts]
CODE = "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
STRINGS = set(re.findall(r'"([a-zA-Z]+(?:\.[a-zA-Z0-9]+)*)"', CODE))
NOT_TEXTS = {"session.state", "participant.state", "training.progress", "training.log"}
"""Events of the coordinator, which are called as texts are."""


def texts_of(entry: str | dict[str, str]) -> list[str]:
    return [entry] if isinstance(entry, str) else list(entry.values())


def placeholders(entry: str | dict[str, str]) -> set[str]:
    return {name for text in texts_of(entry) for name in re.findall(r"\{(\w+)\}", text)}


def test_the_page_offers_the_languages_that_there_are() -> None:
    assert {path.stem for path in (STATIC / "i18n").iterdir()} == set(LANGUAGES)
    message = (STATIC / "logic" / "message.js").read_text()
    assert f"LANGUAGES = {json.dumps(LANGUAGES)}" in message


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_every_language_has_the_texts_and_placeholders_of_english(language: str) -> None:
    own, english = CATALOGS[language], CATALOGS["en"]
    assert set(own) == set(english)
    differing = [key for key, entry in english.items() if placeholders(own[key]) != placeholders(entry)]
    assert differing == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_text_has_something_to_say_and_the_plural_forms_of_its_language(language: str) -> None:
    for key, entry in CATALOGS[language].items():
        assert all(text.strip() for text in texts_of(entry)), key
        if isinstance(entry, dict):
            assert set(entry) == PLURALS[language], key
            assert "count" in placeholders(entry), key


def test_no_text_is_unused() -> None:
    assert set(CATALOGS["en"]) - STRINGS == set()


def test_no_text_is_missing() -> None:
    """What looks like a key, by its first part, is one; what `t` is called with in so many words, too."""
    parts = {key.partition(".")[0] for key in CATALOGS["en"] if "." in key}
    looked_up = {name for name in STRINGS if name.partition(".")[0] in parts and "." in name} - NOT_TEXTS
    looked_up |= set(re.findall(r'\bt\("([^"]+)"', CODE))
    assert looked_up - set(CATALOGS["en"]) == set()


def test_the_same_values_are_given_that_a_text_takes() -> None:
    """Where the call stands in one line with its values: each placeholder has its value, and no value is left over."""
    for key, values in re.findall(r'\bt\("([^"]+)", \{ ([^{}]*?) \}\)', CODE):
        given = {part.partition(":")[0].strip() for part in re.split(r",\s*(?![^(]*\))", values) if part.strip()}
        assert given - placeholders(CATALOGS["en"][key]) <= {"count"}, key
        assert placeholders(CATALOGS["en"][key]) <= given, key


@pytest.mark.parametrize(("language", "script"), [("fa", r"[\u0600-\u06ff]"), ("zh", r"[\u4e00-\u9fff]")])
def test_texts_are_translated(language: str, script: str) -> None:
    """A text with a word in it is written in the language's own script."""
    words = {key: re.sub(r"\{\w+\}", "", " ".join(texts_of(entry))) for key, entry in CATALOGS[language].items()}
    latin = [key for key, text in words.items() if re.search(r"[A-Za-z]{3}", text) and not re.search(script, text)]
    assert latin == []
