"""The web page keeps its own rules: no markup from data, no other host, nothing that its policy forbids."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coordinator.api.pages import STATIC

MOST_LINES = 400
LONGEST_LINE = 140
OWN = [path for path in sorted(STATIC.rglob("*")) if path.is_file() and "vendor" not in path.relative_to(STATIC).parts]
SCRIPTS = [path for path in OWN if path.suffix == ".js"]
VENDORED = sorted((STATIC / "vendor").rglob("*.js"))
IMPORT = re.compile(r"""(?:from|import)\s*["']([\w./@-]+)["']""")


PAGES = {STATIC / "index.html": "app.js", STATIC / "link.html": "link.js"}
"""Each page with the script that it begins with."""


def name_of(path: Path) -> str:
    return str(path.relative_to(STATIC))


def imports_of(script: Path) -> list[str]:
    return IMPORT.findall(script.read_text(encoding="utf-8"))


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_data_never_becomes_markup(script: Path) -> None:
    text = script.read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)


@pytest.mark.parametrize("path", OWN, ids=name_of)
def test_nothing_comes_from_another_host(path: Path) -> None:
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://", text)


@pytest.mark.parametrize("script", [*SCRIPTS, *VENDORED], ids=name_of)
def test_every_import_is_a_file_beside_it(script: Path) -> None:
    """Relative, so that node finds it, too; bare names would need an import map, which is an inline script."""
    for name in imports_of(script):
        assert name.startswith("."), name
        assert (script.parent / name).is_file(), name


def reached_from(entry: str) -> set[Path]:
    """The script and all that it imports, directly or not."""
    reached: set[Path] = set()
    waiting = [STATIC / entry]
    while waiting:
        script = waiting.pop().resolve()
        if script not in reached:
            reached.add(script)
            waiting += [script.parent / name for name in imports_of(script)]
    return reached


def test_every_page_is_looked_at() -> None:
    assert set(STATIC.glob("*.html")) == set(PAGES)


def test_every_module_is_used() -> None:
    reached = set().union(*(reached_from(entry) for entry in PAGES.values()))
    pages = "".join(page.read_text() for page in PAGES)
    unused = [path for path in [*SCRIPTS, *VENDORED] if path.resolve() not in reached]
    assert [name_of(path) for path in unused if f"/static/{name_of(path)}" not in pages] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_has_neither_inline_scripts_nor_inline_styles(path: Path) -> None:
    page = path.read_text()
    assert set(re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)) == {""}
    assert not re.search(r"<style|\sstyle=|\son\w+=", page)


@pytest.mark.parametrize(("path", "entry"), PAGES.items(), ids=PAGES.values())
def test_a_page_names_every_module_that_it_will_need(path: Path, entry: str) -> None:
    """So that the browser fetches them side by side, not one after the other as it finds them."""
    page = path.read_text()
    preloaded = set(re.findall(r'<link rel="modulepreload" href="/static/([^"]+)">', page))
    assert preloaded == {name_of(script) for script in reached_from(entry)} - {entry}
    assert f'<script type="module" src="/static/{entry}"></script>' in page


@pytest.mark.parametrize(("path", "entry"), PAGES.items(), ids=PAGES.values())
def test_every_element_that_a_script_looks_for_is_on_the_page(path: Path, entry: str) -> None:
    """All others are made by the scripts themselves."""
    reached = reached_from(entry)
    own = [script for script in SCRIPTS if script.resolve() in reached]
    used = {name for script in own for name in re.findall(r'getElementById\("([^"]+)"\)', script.read_text())}
    assert used
    assert used <= set(re.findall(r'\bid="([^"]+)"', path.read_text()))
    assert [name_of(script) for script in own if "querySelector" in script.read_text()] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_what_is_imported_is_used(script: Path) -> None:
    text = script.read_text()
    imported = re.findall(r"^import (?:\{([^}]*)\}|(\w+)) from", text, re.MULTILINE)
    names = [name for listed, single in imported for name in re.findall(r"\w+", listed or single)]
    assert [name for name in names if len(re.findall(rf"\b{name}\b", text)) < 2] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_no_script_touches_the_token(script: Path) -> None:
    """It is in a cookie for the coordinator alone: what a script can read, another script can steal."""
    text = script.read_text()
    assert not re.search(r"document\.cookie|\btoken\s*[}=:]|\.token\b|sessionStorage|indexedDB", text)


@pytest.mark.parametrize("path", [path for path in OWN if path.suffix in (".js", ".css")], ids=name_of)
def test_a_file_can_be_read(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= MOST_LINES
    if path.suffix == ".js":
        assert [line for line in lines if len(line) > LONGEST_LINE] == []


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.parent.name == "logic"], ids=name_of)
def test_logic_needs_no_browser(script: Path) -> None:
    lines = [line for line in script.read_text().splitlines() if not line.lstrip().startswith(("//", "*", "/**"))]
    of_browsers = "document|fetch|localStorage|navigator|location|setTimeout|WebSocket"
    assert not re.search(rf"\b({of_browsers})\b(?!:)|Date\.now", "\n".join(lines))
    assert all(name.startswith("./") for name in imports_of(script))
