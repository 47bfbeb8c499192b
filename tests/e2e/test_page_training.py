"""A session from the form to its model on the page: real coordinator, real node, real training."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.page_fixtures import CHROMIUM, DevTools, Page, new_page
from tests.e2e.page_stage import COOKIE, tools
from tests.system import running_system

__all__ = ["tools"]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium"),
]

FIELDS = {
    "name": "Taught on the page", "training-maxSteps": "20000", "training-batchSize": "4",
    "training-gradientAccumulationSteps": "1", "training-learningRate": "0.003", "data-seqLength": "64",
    "diloco-innerSteps": "5", "monitoring-evaluationRounds": "2",
    "monitoring-evaluationBatches": "2",
}  # fmt: skip
POINTS = "document.querySelectorAll('#points tr').length"


async def open_session(page: Page, url: str) -> None:
    """Fill in the form and send it."""
    await page.open(f"{url}/#/new")
    await page.until_text("#toml", "[model]")
    await page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    for field, value in FIELDS.items():
        await page.write(f"#field-{field}", value)
    await page.until_text("#toml", "inner_steps = 5")
    await page.until("!document.querySelector('#open').disabled")
    await page.click("#open")


async def confirm(page: Page, action: str) -> None:
    await page.click(f"[data-action={action}]")
    await page.until("document.querySelector('#confirm').open")
    await page.click("#confirm-yes")


async def test_a_session_is_opened_watched_and_steered_on_the_page(tools: DevTools, tmp_path: Path) -> None:
    with running_system(tmp_path) as system:
        await asyncio.to_thread(system.start_coordinator)
        page = await new_page(tools)
        await page.open(system.url)
        await page.call("Network.setCookie", name=COOKIE, value=system.token, url=system.url, httpOnly=True)
        await open_session(page, system.url)
        await page.until_text("#state", "waiting", limit_s=90.0)
        await page.until_text("#name", "Taught on the page")

        session_url = (await page.text("#command")).split()[-1]
        node = system.start_node("one", session_url)
        await page.until_text("#state", "training", limit_s=90.0)
        await page.until_there("#rounds", limit_s=90.0)
        await page.evaluate("document.querySelector('#rounds').open = true")
        await page.until(f"{POINTS} >= 4", limit_s=90.0)
        await page.until("document.querySelectorAll('#split rect').length > 3", limit_s=60.0)
        await page.until_text("#digests", "All hold the same outer state")
        await page.until_text("#evaluations", "validationLoss")
        for chart in ("loss", "speed"):
            await page.until_there(f"#{chart}-chart canvas")

        await page.click("[data-action=pause]")
        await page.until_text("#state", "paused")
        await page.until_text("#advice", "Paused")
        await page.click("[data-action=resume]")
        await page.until_text("#state", "training", limit_s=60.0)
        reached = await page.evaluate(POINTS)
        await page.until(f"{POINTS} > {reached}", limit_s=60.0)

        await confirm(page, "stop")
        await page.until_text("#state", "stopped", limit_s=90.0)
        await page.until_text("#model-path", "models/final")
        await page.until_there("#sample")
        assert await page.text("#join") == ""
        assert await asyncio.to_thread(node.popen.wait, 60) == 0, node.output()
        assert page.alarms == []
        assert page.foreign_requests(system.url) == []
        await page.open(f"{system.url}/#/models")
        await page.until_there("#models tr")
        await page.close()
