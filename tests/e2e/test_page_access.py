"""The page for everybody: languages, themes, narrow windows, the keyboard, and what axe finds."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from cotrain.process import child_environment
from tests.e2e.browser import CHROMIUM, Page, new_page
from tests.e2e.page_database import add_credit, add_cycle, add_model, add_points
from tests.e2e.page_fixtures import Volunteer, coordinator_process
from tests.e2e.page_stage import Stage, browser, page, staged
from tests.serve_fixtures import export_chat_model

__all__ = ["browser", "page"]

PAGE_TESTS = Path(__file__).resolve().parents[1] / "page"
INSTALL_LIMIT_S = 120.0
ANSWER_LIMIT_S = 90.0
"""The first answer waits for a process that loads torch."""
PHONE, SCREEN_4K = 360, 3840
SERIOUS = ("serious", "critical")
GROUND = "getComputedStyle(document.body).backgroundColor"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium"),
]


@dataclass(frozen=True)
class Furnished:
    """A session with a curve, participants that agree and one that does not, a log, a model and what it learns."""

    stage: Stage
    volunteers: list[tuple[Volunteer, str]]
    """Each with the digest that it holds."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def furnished(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Furnished]:
    """One for all tests: they only look."""
    folder = tmp_path_factory.mktemp("furnished")
    shared = folder / "shared"
    config = '[learning]\nmodel = "tales"\n'
    async with coordinator_process(shared, config=config) as url, staged(url, await new_page(browser)) as stage:
        await stage.open_to_nodes()
        add_points(shared, stage.session, range(13))
        add_model(shared, "tales", str(stage.owner.account), [stage.session], export_chat_model(folder / "exported"))
        for number in range(1, 4):
            figures = {"chats": 40, "finalSize": 50 * number, "heldOut": 5 * number, "refused": {"too short": 3}}
            losses = {"old_loss": 2.5, "new_loss": 2.25, "new_version": 2, "session_id": stage.session}
            add_cycle(shared, number, "tales", figures=figures, outcome="promoted", message="It is better.", **losses)
        volunteers = []
        for name, digest in {"Ada": "a" * 64, "Ben": "a" * 64, "Cem": "b" * 64}.items():
            volunteers.append((Volunteer(stage.http, url, stage.session, folder / f"{name}.key"), digest))
            await volunteers[-1][0].join(name)
        add_credit(shared, stage.session, samples=32)
        hearing = [asyncio.create_task(volunteer.hear()) for volunteer, _ in volunteers]
        yield Furnished(stage, volunteers)
        for task in hearing:
            task.cancel()
        await asyncio.gather(*hearing, return_exceptions=True)


@pytest_asyncio.fixture(loop_scope="module")
async def stage(furnished: Furnished, page: Page) -> Stage:
    """The session in an empty tab, its participants online."""
    for volunteer, digest in furnished.volunteers:
        await volunteer.end_round(12, digest, loss=2.5, tokens_per_second=1234.0, device="cpu", step=56)
    return replace(furnished.stage, page=page)


def views_of(stage: Stage) -> dict[str, tuple[str, str]]:
    """Address and what is there once the view is."""
    return {
        "sessions": ("#/", "#list-items li"), "session": (f"#/s/{stage.session}", "#people tr:nth-child(3)"),
        "new": ("#/new", "#toml"), "models": ("#/models", "#models tr"), "model": ("#/models/tales", "#question"),
        "learning": ("#/learning", "#growth-chart canvas"), "contributors": ("#/contributors", "#contributors tr"),
        "link": ("link", "#code"),
    }  # fmt: skip


async def open_view(stage: Stage, name: str) -> None:
    address, element = views_of(stage)[name]
    await stage.page.open("about:blank")
    await stage.page.open(f"{stage.api.url}/{address}")
    await stage.page.until_there(element)


async def test_the_page_speaks_persian_from_right_to_left(stage: Stage) -> None:
    page = stage.page
    await open_view(stage, "session")
    await page.until_there("#loss-chart canvas")
    await page.choose("#page-language", "fa")
    await page.until_text("#people-title", "شرکت‌کنندگان")
    assert await page.evaluate("[document.documentElement.dir, document.documentElement.lang].join()") == "rtl,fa"
    await page.until_text("#people", "۱٬۲۳۴")
    directions = (
        "['#loss-chart', '#command', '#account'].map((one) => getComputedStyle(document.querySelector(one)).direction)"
    )
    assert await page.evaluate(directions) == ["ltr", "ltr", "ltr"]
    assert stage.owner.short in await page.text("#steering")

    await open_view(stage, "sessions")
    await page.until_text("#list-title", "نشست‌ها")
    await page.choose("#page-language", "zh")
    await page.until_text("#list-title", "会话")
    assert await page.evaluate("document.documentElement.dir") == "ltr"
    assert page.alarms == []


async def test_the_page_is_dark_by_system_and_by_choice(stage: Stage) -> None:
    page = stage.page
    await open_view(stage, "session")
    light = await page.evaluate(GROUND)
    await page.set_system_theme("dark")
    dark = await page.until(f"{GROUND} !== '{light}' && {GROUND}")
    await page.choose("#page-theme", "light")
    assert await page.evaluate(GROUND) == light
    await page.set_system_theme("light")
    await page.choose("#page-theme", "dark")
    assert await page.evaluate(GROUND) == dark
    await open_view(stage, "session")
    assert await page.evaluate(GROUND) == dark
    assert await page.evaluate("document.querySelector('#page-theme').value") == "dark"
    assert page.alarms == []


@pytest.mark.parametrize("width", [PHONE, SCREEN_4K])
@pytest.mark.parametrize("language", ["en", "fa"])
async def test_nothing_is_wider_than_the_window(stage: Stage, width: int, language: str) -> None:
    page = stage.page
    await page.set_width(width)
    await open_view(stage, "sessions")
    await page.choose("#page-language", language)
    await page.until(f"document.documentElement.lang === '{language}'")
    for name in views_of(stage):
        await open_view(stage, name)
        await page.until(f"document.documentElement.lang === '{language}'")
        overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, name
    assert page.alarms == []


async def test_the_keyboard_leads_past_the_head_and_through_the_page(stage: Stage) -> None:
    page = stage.page
    await open_view(stage, "sessions")
    await page.press("Tab")
    assert await page.evaluate("document.activeElement.className") == "skip"
    await page.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "main"
    await page.press("Tab")
    outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    await page.evaluate("document.querySelector('#list-items a').focus()")
    await page.press("Enter")
    await page.until("document.querySelector('#session') && document.activeElement.id === 'main'")
    assert "tales" in await page.evaluate("document.title")
    assert page.alarms == []


async def chat(page: Page) -> None:
    """Ask something that is kept, so that everything of a chat is on the page."""
    await page.evaluate("document.querySelector('#consent').checked || document.querySelector('#consent').click()")
    await page.write("#length", "8")
    await page.write("#question", "Is anybody there?")
    await page.press("Enter")
    await page.until_there("[data-rate=up]", limit_s=ANSWER_LIMIT_S)


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where axe's script is, once npm has installed the version of the lock file."""
    folder = tmp_path_factory.mktemp("axe")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PAGE_TESTS / name, folder / name)
    return folder


async def install_axe(folder: Path) -> str:
    """axe's script."""
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        process = await asyncio.create_subprocess_exec(
            "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder, env=child_environment(),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await asyncio.wait_for(process.communicate(), INSTALL_LIMIT_S)
        assert process.returncode == 0, said.decode()[-2000:]
    return script.read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs node 18 or newer and npm: apt-get install nodejs npm")
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing_serious(stage: Stage, axe: Path, theme: str) -> None:
    page = stage.page
    script = await install_axe(axe)
    await open_view(stage, "sessions")
    await page.choose("#page-theme", theme)
    for name in views_of(stage):
        await open_view(stage, name)
        if name == "model":
            await chat(page)
        await page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        await page.evaluate(script)
        found = await page.evaluate("axe.run().then(({ violations }) => violations)")
        assert found is not None, f"axe did not run on {name}"
        serious = [
            (name, one["id"], [node["html"][:200] for node in one["nodes"]])
            for one in found if one["impact"] in SERIOUS
        ]  # fmt: skip
        assert serious == []
