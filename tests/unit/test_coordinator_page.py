"""The web page keeps its own rules: no markup from data, no other host, no element that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coordinator.api.pages import STATIC

SCRIPTS = sorted(STATIC.glob("*.js"))


PAGES = sorted(STATIC.glob("*.html"))
LINK_SCRIPT = STATIC / "link.js"
"""Of `link.html`; the page of all others is `index.html`, though `link.js` uses some of them."""


@pytest.mark.parametrize(
    ("page", "scripts"),
    [("index.html", [script for script in SCRIPTS if script != LINK_SCRIPT]), ("link.html", [LINK_SCRIPT])],
)
def test_every_element_that_the_script_uses_is_on_the_page(page: str, scripts: list[Path]) -> None:
    used = {name for script in scripts for name in re.findall(r'(?:byId|showText)\("([^"]+)"', script.read_text())}
    present = set(re.findall(r'\bid="([^"]+)"', (STATIC / page).read_text()))
    assert used
    assert used <= present


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_data_never_becomes_markup(script: object) -> None:
    text = (STATIC / str(script)).read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)


@pytest.mark.parametrize("path", sorted(STATIC.iterdir()), ids=lambda path: path.name)
def test_nothing_comes_from_another_host(path: object) -> None:
    text = (STATIC / str(path)).read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://", text)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_has_neither_inline_scripts_nor_inline_styles(path: Path) -> None:
    page = path.read_text()
    assert re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL) == [""]
    assert not re.search(r"<style|\sstyle=|\son\w+=", page)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_script_touches_the_token(script: object) -> None:
    """It is in a cookie for the coordinator alone: what a script can read, another script can steal."""
    text = (STATIC / str(script)).read_text()
    assert not re.search(r"document\.cookie|\btoken\s*[}=:]|\.token\b|sessionStorage|indexedDB", text)
