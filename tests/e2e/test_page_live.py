"""The page follows a session: curves that grow, breaks without a gap, a log that can be searched."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from tests.e2e.browser import CHROMIUM, Page
from tests.e2e.page_database import add_points
from tests.e2e.page_fixtures import Volunteer, coordinator_process, eventually
from tests.e2e.page_stage import browser, joined, page, staged

__all__ = ["browser", "page"]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium"),
]

TABLE = "[...document.querySelectorAll('#points tr')].map((row) => Number(row.cells[0].textContent))"
LOG = "[...document.querySelectorAll('#log .message')].map((one) => one.textContent)"
WINDOW = "document.querySelector('#loss-chart').getAttribute('data-window')"


async def open_table(page: Page) -> None:
    await page.until_there("#rounds")
    await page.evaluate("document.querySelector('#rounds').open = true")


async def rounds_shown(page: Page) -> list[int]:
    """Of the table of points, newest first."""
    found: list[int] = await page.evaluate(TABLE)
    return found


async def test_a_curve_grows_by_each_point_once_and_keeps_its_window(page: Page, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    async with joined(tmp_path, page) as (stage, volunteer):
        add_points(shared, stage.session, range(21))
        await stage.open_session()
        await open_table(page)
        assert await rounds_shown(page) == list(range(20, -1, -1))
        assert await page.evaluate("document.querySelectorAll('#loss-chart canvas').length") == 1

        # by keyboard: to a point in the middle, then nearer
        await page.evaluate("document.querySelector('#loss-chart').focus()")
        await page.press("ArrowLeft")
        await page.press("ArrowLeft")
        await page.until_text(".readout", "Round 19, 1,216 samples: training 1.700, validation –")
        await page.click("[aria-label='Zoom in']")
        window = await page.until(WINDOW)

        add_points(shared, stage.session, range(21, 24))
        await volunteer.end_round(23, "a" * 64, loss=2.0)

        async def has_grown() -> bool:
            return await rounds_shown(page) == list(range(23, -1, -1))

        await eventually(has_grown, "the table has the new points, each once")
        assert await page.evaluate(WINDOW) == window
        assert "Round 19" in await page.text(".readout")
        await page.press("Escape")
        assert page.alarms == []


async def test_the_curve_is_drawn_as_it_is_asked_for(page: Page, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    async with coordinator_process(shared) as url, staged(url, page) as stage:
        add_points(shared, stage.session, range(21))
        await stage.open_session()
        await page.until_there("#loss-chart canvas")
        axes = await page.evaluate("[...document.querySelector('#axis').options].map((option) => option.value)")
        assert axes == ["samples", "tokens", "round", "time"]
        for choice, value in (("axis", "time"), ("scale", "log"), ("smoothing", "0.9"), ("axis", "tokens")):
            await page.choose(f"#{choice}", value)
            await page.until("document.querySelectorAll('#loss-chart canvas').length === 1")
        await page.until_text(".legend", "Training loss, smoothed")
        await page.open("about:blank")
        await stage.open_session()
        await page.until("document.querySelector('#smoothing')?.value === '0.9'")
        assert await page.evaluate("document.querySelector('#scale').value") == "log"

        # leaving takes the charts down, and looking at another width then finds none
        await page.open(f"{url}/#/models")
        await page.until_text("#models-title", "Models")
        await page.set_width(1000)
        await page.until("innerWidth === 1000")
        assert page.alarms == []


async def test_after_a_break_nothing_is_missing_and_nothing_stands_there_twice(page: Page, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    async with joined(tmp_path, page) as (stage, volunteer):
        add_points(shared, stage.session, range(11))
        for number in (1, 2, 3):
            await volunteer.end_round(number, "a" * 64)
        await stage.open_session()
        await open_table(page)
        await page.until_text("#log", "round 3 closed")
        await page.evaluate("window.notReloaded = true")
    await page.until_text("#away", "The coordinator has not answered since")
    add_points(shared, stage.session, range(11, 16))

    port = int(stage.api.url.rsplit(":", 1)[1])
    async with coordinator_process(shared, port=port) as url, aiohttp.ClientSession() as http:

        async def is_ready() -> bool:
            async with http.get(f"{url}/readyz") as response:
                return response.status == 200

        await eventually(is_ready, "the checkpointer is ready")
        other = Volunteer(http, url, stage.session, tmp_path / "ben.key")
        await other.join("Ben")
        await other.end_round(4, "a" * 64)
        await page.until_text("#log", "round 4 closed")
        await page.until_text("#connection", "live")

        async def is_whole() -> bool:
            return await rounds_shown(page) == list(range(15, -1, -1))

        await eventually(is_whole, "the table has all points, each once")
        messages: list[str] = await page.evaluate(LOG)
        assert [messages.count(f"round {number} closed") for number in (1, 2, 3, 4)] == [1, 1, 1, 1]
        resumed = [address for address in page.requests if "/events?after=" in address]
        assert resumed
        assert await page.evaluate("window.notReloaded")


async def test_the_log_is_searched_and_says_who_said_what(page: Page, tmp_path: Path) -> None:
    async with joined(tmp_path, page) as (stage, volunteer):
        for number in (1, 2):
            await volunteer.end_round(number, "a" * 64)
        await stage.open_session()
        await page.until_text("#log", "round 2 closed")
        await page.write("#log-text", "ROUND 1")
        await page.until(f"{LOG}.join() === 'round 1 closed'")
        await page.until_text("#log .source", "Ada")
        await page.write("#log-text", "nothing says this")
        await page.until_text("#log-none", "Nothing in the log fits the filter.")
        assert await page.evaluate(LOG) == []
        assert page.alarms == []
