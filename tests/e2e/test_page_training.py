"""A session from the form to its model on the page: a real coordinator, real nodes, real training, a real key."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser

from tests.e2e.browser import CHROMIUM, Page, new_page
from tests.e2e.page_fixtures import eventually
from tests.e2e.page_stage import browser
from tests.e2e.wallet_fixtures import BrowserWallet, KeyWallet
from tests.system import Process, System, running_system

__all__ = ["browser"]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium"),
]

SLOW_S = 120.0
NAME = "Taught on the page"
FIELDS = {
    "name": NAME, "training-maxSteps": "20000", "training-batchSize": "4", "training-gradientAccumulationSteps": "1",
    "training-learningRate": "0.003", "data-seqLength": "64", "distributed-nodes": "2", "diloco-innerSteps": "5",
    "monitoring-evaluationRounds": "2", "monitoring-evaluationBatches": "2",
}  # fmt: skip
ROUNDS = "[...document.querySelectorAll('#points tr')].map((row) => Number(row.cells[0].textContent))"
NEWEST = f"Math.max(...{ROUNDS})"
RUNNING_ALARMS = ("ERR_CONNECTION_REFUSED", "WebSocket connection", "ERR_EMPTY_RESPONSE", "ERR_INCOMPLETE_CHUNKED")
"""What the browser itself logs while the coordinator is away."""


async def sign_in(page: Page, wallet: KeyWallet, url: str) -> None:
    await BrowserWallet(wallet, page).install()
    await page.open(url)
    await page.until("document.querySelector('#sign-in')?.checkVisibility()")
    await page.click("#sign-in")
    await page.until_there("[data-wallet=wallet-1]")
    await page.click("[data-wallet=wallet-1]")
    await page.until_text("#account", wallet.short)


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
    await page.until_text("#state", "waiting", limit_s=SLOW_S)
    await page.until_text("#name", NAME)


async def grows(page: Page) -> None:
    """The curve gets new rounds."""
    reached = await page.evaluate(NEWEST)
    await page.until(f"{NEWEST} > {reached} + 1", limit_s=SLOW_S)


async def check_whole(page: Page, system: System, session: str) -> None:
    """No round is missing from the curve that the coordinator has, and none stands there twice.

    Rounds that were closed while its checkpointer was away have no point anywhere.
    """
    shown: list[int] = await page.evaluate(ROUNDS)
    points = (await asyncio.to_thread(system.get, f"/api/v1/sessions/{session}/metrics"))["items"]
    stored = [point["round"] for point in points]
    first, last = shown[-1], min(shown[0], stored[-1])
    assert [number for number in reversed(shown) if number <= last] == [
        number for number in stored if first <= number <= last
    ]


async def watch(page: Page) -> None:
    """The parts of the page that need a swarm that trains."""
    await page.until_text("#state", "training", limit_s=SLOW_S)
    await page.until_there("#rounds", limit_s=SLOW_S)
    await page.evaluate("document.querySelector('#rounds').open = true")
    await page.until(f"{ROUNDS}.length >= 4", limit_s=SLOW_S)
    await page.until("document.querySelectorAll('#split rect').length > 3", limit_s=SLOW_S)
    await page.until_text("#digests", "All hold the same outer state", limit_s=SLOW_S)
    await page.until_text("#evaluations", "validationLoss", limit_s=SLOW_S)
    for chart in ("loss", "speed", "rate"):
        await page.until_there(f"#{chart}-chart canvas", limit_s=SLOW_S)
    for name in ("one", "two"):
        await page.until_text("#people", name)
    await page.until_text("#people", "direct")
    await page.until_text("#people", "last sync")


async def pause_and_resume(page: Page) -> None:
    await page.click("[data-action=pause]")
    await page.until_text("#state", "paused")
    await page.until_text("#advice", "Paused")
    await page.click("[data-action=resume]")
    await page.until_text("#state", "training", limit_s=SLOW_S)
    await grows(page)


async def lose_the_coordinator(page: Page, system: System, coordinator: Process) -> None:
    """The page says so while it is away, and goes on by itself when it is back."""
    await asyncio.to_thread(coordinator.end)
    await page.until("!document.querySelector('#away').hidden")
    await asyncio.to_thread(system.start_coordinator, urlsplit(system.url).port or 0)
    await page.until("document.querySelector('#away').hidden", limit_s=SLOW_S)
    await page.until_text("#connection", "live")
    await page.until_text("#state", "training", limit_s=SLOW_S)
    await grows(page)


async def look_on_a_phone_in_persian(page: Page) -> None:
    await page.set_width(360)
    await page.choose("#page-language", "fa")
    await page.until_text("#people-title", "شرکت‌کنندگان")
    assert await page.evaluate("document.documentElement.dir") == "rtl"
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    await page.choose("#page-language", "en")
    await page.until_text("#people-title", "Participants")
    await page.set_width(1280)


async def stop(page: Page) -> None:
    await page.click("[data-action=stop]")
    await page.until("document.querySelector('#confirm').open")
    await page.click("#confirm-yes")
    await page.until_text("#state", "stopped", limit_s=SLOW_S)
    await page.until_text("#model-path", "models/final")
    await page.until_there("#sample")
    assert await page.text("#join") == ""


async def compare(page: Page, system: System) -> None:
    """The version that was saved in the middle beside the one of the end."""
    (model,) = (await asyncio.to_thread(system.get, "/api/v1/models"))["items"]
    await page.open(f"{system.url}/#/models/{model['id']}")
    for version in (1, 2):
        await page.until_there(f"[id='pick-{model['id']}:{version}']")
        await page.click(f"[id='pick-{model['id']}:{version}']")
    await page.click("#compare")
    await page.until_text("#comparison", "validationLoss")
    await page.until_there("#compare-chart canvas")
    await page.open(f"{system.url}/#/contributors")
    for name in ("one", "two"):
        await page.until_text("#contributors", name)


async def test_a_session_is_opened_watched_and_steered_on_the_page(browser: Browser, tmp_path: Path) -> None:
    with running_system(tmp_path) as system:
        coordinator = await asyncio.to_thread(system.start_coordinator)
        page = await new_page(browser)
        await sign_in(page, KeyWallet(), system.url)
        await open_session(page, system.url)
        session_url = (await page.text("#command")).split()[-1]
        nodes = [system.start_node(name, session_url) for name in ("one", "two")]
        await watch(page)
        await pause_and_resume(page)
        await page.click("[data-action=save]")

        async def saved() -> bool:
            models = await asyncio.to_thread(system.get, "/api/v1/models")
            return bool(models["items"])

        await eventually(saved, "a version is saved in the middle", limit_s=SLOW_S)
        assert page.alarms == []
        await lose_the_coordinator(page, system, coordinator)
        await check_whole(page, system, session_url.rpartition("/")[2])
        await look_on_a_phone_in_persian(page)
        await stop(page)
        for node in nodes:
            assert await asyncio.to_thread(node.popen.wait, 60) == 0, node.output()
        await compare(page, system)
        assert [one for one in page.alarms if not any(word in one for word in RUNNING_ALARMS)] == []
        assert page.foreign_requests(system.url) == []
        await page.close()
