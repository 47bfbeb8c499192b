"""What the page shows of auto-learning: how it stands, the cycles of the database, and one that an operator begins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.browser import CHROMIUM, Page
from tests.e2e.page_database import add_chats, add_cycle, add_model
from tests.e2e.page_fixtures import coordinator_process
from tests.e2e.page_stage import Stage, browser, page, staged
from tests.e2e.wallet_fixtures import KeyWallet
from tests.serve_fixtures import export_chat_model

__all__ = ["browser", "page"]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium"),
]

MODEL = "tales"
CHATS = [
    ("What is the capital of France?", "The capital of France is Paris, which lies on the river Seine in the north."),
    ("Why is the sky blue?", "The sky is blue because air scatters the blue part of sunlight more than the red part."),
    ("Is anybody there?", "no"),
]
FIGURES: dict[str, Any] = {
    "chats": 40, "originalSize": 100, "finalSize": 131, "heldOut": 4, "growthSamples": 31, "growthPercent": 31.0,
    "good": 12, "variations": 19, "duplicates": 3, "left": 2, "refused": {"too short": 20, "rated down": 4, "novel": 1},
}  # fmt: skip
IDS = "[...document.querySelectorAll('[data-cycle]')].map((one) => one.dataset.cycle).join()"
CYCLE_LIMIT_S = 60.0


@asynccontextmanager
async def learning(folder: Path, page: Page, *, model: str = MODEL, files: Path | None = None) -> AsyncIterator[Stage]:
    """A coordinator whose model learns from its chats, by the stage's owner, who is an operator."""
    operator = KeyWallet()
    config = f'[sign_in]\noperators = ["{operator.account}"]\n[learning]\nmodel = "{model}"\nmin_chats = {len(CHATS)}\n'
    shared = folder / "shared"
    async with coordinator_process(shared, config=config) as url, staged(url, page, operator) as stage:
        add_model(shared, MODEL, str(operator.account), [stage.session], files)
        yield stage


async def open_learning(stage: Stage) -> None:
    await stage.page.open("about:blank")
    await stage.page.open(f"{stage.api.url}/#/learning")
    await stage.page.until_there("#learning")


async def test_cycles_are_told_with_what_they_took_and_refused(page: Page, tmp_path: Path) -> None:
    async with learning(tmp_path, page) as stage:
        await open_learning(stage)
        await page.until_text("#cycles-empty", "No cycle yet.")
        await page.until_text("#chats-count", "0 of 3")
        shared = tmp_path / "shared"
        add_chats(shared, MODEL, CHATS[:2])
        add_cycle(shared, 1, MODEL, figures=FIGURES | {"originalSize": 0, "finalSize": 100, "refused": {}})
        add_cycle(shared, 2, MODEL, figures=FIGURES, stage="training", outcome=None, session_id=stage.session)

        await page.until(f"{IDS} === 'c-2,c-1'")
        await page.until_text("#chats-count", "2 of 3")
        await page.until_text("[data-cycle=c-2] .badge", "training")
        await page.until_text("#standing", "one runs now")
        assert await page.evaluate("document.querySelector('[data-cycle=c-2] a').hash") == f"#/s/{stage.session}"
        facts = await page.text("[data-cycle=c-2] .facts")
        for expected in ("100 → 131", "31 samples, 31.0%", "12", "19"):
            assert expected in facts
        assert (await page.text(".refusals")).split("\n") == ["too short 20", "rated as bad 4", "novel 1"]
        await page.until_there("#growth-chart canvas")
        label = await page.evaluate("document.querySelector('#growth-chart').ariaLabel")
        assert "131 training samples, 4 held out" in label
        assert await page.evaluate("document.querySelectorAll('#growth-rows tr').length") == 2
        assert await page.evaluate("document.querySelector('#begin')") is None

        await page.evaluate("window.notReloaded = true")
        better = {"stage": "ended", "outcome": "promoted", "new_version": 2, "old_loss": 2.5, "new_loss": 2.25}
        add_cycle(shared, 2, MODEL, figures=FIGURES, message="It is better.", **better)
        await page.until_text("[data-cycle=c-2] .badge", "new version is better")
        await page.until_text("[data-cycle=c-2] .facts", "2.5000 → 2.2500")
        assert "1 → 2" in await page.text("[data-cycle=c-2] .facts")
        assert await page.evaluate("window.notReloaded")
        assert page.alarms == []
        assert page.foreign_requests(stage.api.url) == []


async def test_older_cycles_are_shown_when_asked_for(page: Page, tmp_path: Path) -> None:
    async with learning(tmp_path, page) as stage:
        for number in range(60):
            add_cycle(tmp_path / "shared", number, MODEL, figures=FIGURES)
        await open_learning(stage)
        await page.until("document.querySelectorAll('[data-cycle]').length === 50")
        await page.click("#cycles-more")
        await page.until("document.querySelectorAll('[data-cycle]').length === 60")
        assert await page.evaluate("document.querySelector('#cycles-more')") is None
        assert page.alarms == []


async def test_an_operator_begins_a_cycle_and_the_page_follows_it(page: Page, tmp_path: Path) -> None:
    async with learning(tmp_path, page, files=export_chat_model(tmp_path / "exported")) as stage:
        await stage.sign_page_in()
        await open_learning(stage)
        await page.until_there("#begin")
        assert await page.evaluate("document.querySelector('#begin').disabled")
        await page.until_text("#learning", "A cycle needs 3 chats.")
        add_chats(tmp_path / "shared", MODEL, CHATS)
        await page.until("!document.querySelector('#begin').disabled")
        await page.click("#begin")
        await page.until_text("#begun", "A cycle begins.")
        await page.until_text("#cycles .badge", "training", limit_s=CYCLE_LIMIT_S)
        await page.until_text("#cycles", "begun by an operator")
        await page.until_text(".refusals", "too short")
        await page.until_text("#standing", "version 1")
        await page.until_text("#chats-count", "0 of 3")
        assert await page.evaluate("document.querySelector('#begin').disabled")
        assert page.alarms == []


async def test_where_no_model_learns_the_page_says_so(page: Page, tmp_path: Path) -> None:
    async with learning(tmp_path, page, model="") as stage:
        await page.open(stage.api.url)
        await page.until_there("nav a[href='#/learning']")
        await page.click("nav a[href='#/learning']")
        await page.until_text("#learning-none", "No model learns from chats here.")
        assert await page.evaluate("document.querySelector('nav [aria-current]').hash") == "#/learning"
        await page.choose("#page-language", "zh")
        await page.until_text("#learning-title", "学习")
        await page.choose("#page-language", "fa")
        await page.until_text("#learning-none", "هیچ مدلی")
        assert page.alarms == []
