"""The web page in a real browser, before a real coordinator."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from tests.e2e.browser import CHROMIUM, Page
from tests.e2e.page_database import copy_participant
from tests.e2e.page_fixtures import Api, Volunteer, coordinator_process
from tests.e2e.page_stage import NAME, Stage, browser, page, stage, staged, url
from tests.e2e.wallet_fixtures import sign_in

__all__ = ["browser", "page", "stage", "url"]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium"),
]


async def test_a_session_is_listed_and_its_page_follows_a_change_made_elsewhere(stage: Stage) -> None:
    page = stage.page
    await page.open(stage.api.url)
    await page.until_text("#list-items", NAME)
    await page.until_text("#list-items .badge", "draft")
    await page.click("#list-items a")
    await page.until_text("#state", "draft")
    assert await page.text("#command") == f"cotrain node join {stage.session_url}"
    await page.until_text("#people-empty", "Nobody has joined yet.")
    await page.click("#copy")
    await page.until_text("#copy", "Copied")
    await page.evaluate("window.notReloaded = true")

    await stage.api.post(f"/sessions/{stage.session}/cancel")

    await page.until_text("#state", "cancelled")
    assert await page.evaluate("window.notReloaded")
    assert await page.evaluate("document.querySelectorAll('#actions button').length") == 0
    assert await page.text("#join") == ""
    await page.click(".back a")
    await page.until_text("#list-items .badge", "cancelled")
    assert page.alarms == []
    assert page.requests
    assert page.foreign_requests(stage.api.url) == []
    assert await page.evaluate("document.querySelectorAll('main img').length") == 0


async def test_what_cannot_be_undone_is_asked_about_first(stage: Stage) -> None:
    page = stage.page
    await stage.open_session_as_owner()
    await page.click("[data-action=cancel]")
    await page.until_text("#confirm", "no model is saved")
    await page.click("#confirm-no")
    await page.until("!document.querySelector('#confirm').open")
    assert await stage.status() == "draft"

    await page.click("[data-action=cancel]")
    await page.until("document.querySelector('#confirm').open")
    await page.click("#confirm-yes")

    await page.until_text("#state", "cancelled")
    assert await stage.status() == "cancelled"
    assert page.alarms == []


async def test_what_a_session_waits_for_is_shown_and_follows(stage: Stage, tmp_path: Path) -> None:
    page = stage.page
    await stage.open_session()
    await page.until_text("#advice", "not been started yet")
    await stage.api.post(f"/sessions/{stage.session}/start")
    await page.until_text("#state", "waiting")
    await page.until_text("#advice", "It does not train yet: 1 nodes are needed, 0 are here.")

    volunteer = Volunteer(stage.http, stage.api.url, stage.session, tmp_path / "ada.key")
    await volunteer.join("Ada")
    await page.until_text("#advice", "the nodes that are here fetch what they need, and begin")

    await stage.api.post(f"/sessions/{stage.session}/cancel")
    await page.until_text("#advice", "Cancelled.")
    assert "yet" not in await page.text("#advice")
    assert page.alarms == []


async def test_a_refused_action_says_why(stage: Stage) -> None:
    page = stage.page
    await stage.open_session_as_owner()
    await page.click("[data-action=cancel]")
    await page.until("document.querySelector('#confirm').open")
    # somebody else is quicker than the answer to the question
    await stage.api.post(f"/sessions/{stage.session}/cancel")
    await page.click("#confirm-yes")
    await page.until_text("#problem", "a session that is cancelled cannot cancel")


async def test_a_session_that_is_not_there_is_said_so(stage: Stage) -> None:
    await stage.page.open(f"{stage.api.url}/#/s/nobody")
    await stage.page.until_text("#gone", "There is no such session")
    assert await stage.page.text("#session") == ""


async def test_a_page_outlives_its_coordinator(tmp_path: Path, page: Page) -> None:
    shared = tmp_path / "shared"
    async with coordinator_process(shared) as url:
        await page.open(url)
        await page.until_text("#list-empty", "No session yet.")
        assert page.alarms == []
        async with staged(url, page) as stage:
            await stage.open_session_as_owner()
            await page.until_text("#connection", "live")
            token = await sign_in(stage.http, url, stage.owner)
    await page.until_text("#away", "The coordinator has not answered since")
    assert await page.text("#name") == NAME
    assert await page.evaluate("document.querySelector('#actions').disabled")

    port = int(url.rsplit(":", 1)[1])
    async with coordinator_process(shared, port=port) as url, aiohttp.ClientSession() as http:
        await Api(http, url, token).post(f"/sessions/{stage.session}/cancel")
        await page.until_text("#state", "cancelled")
        await page.until_text("#connection", "live")
        assert await page.text("#away") == ""


async def test_participants_of_several_pages_are_shown(page: Page, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    async with coordinator_process(shared) as url, staged(url, page) as stage:
        await stage.open_to_nodes()
        await Volunteer(stage.http, url, stage.session, tmp_path / "key").join("first")
        copy_participant(shared, 2100)
        await stage.open_session()
        await page.until("document.querySelectorAll('#people tr:not(.checkpointer)').length === 2000")
        assert await page.text("#people-more") == "Only the first 2,000 are shown."
        assert page.alarms == []


async def test_a_participant_whose_digest_differs_at_the_same_round_is_shown(stage: Stage, tmp_path: Path) -> None:
    page = stage.page
    await stage.open_session_as_owner()
    await page.click("[data-action=start]")
    await page.until_text("#state", "waiting")
    digests = {"Ada": "a" * 64, "Ben": "a" * 64, "Cem": "b" * 64}
    volunteers = [Volunteer(stage.http, stage.api.url, stage.session, tmp_path / f"{name}.key") for name in digests]
    for volunteer, (name, digest) in zip(volunteers, digests.items(), strict=True):
        await volunteer.join(name)
        await volunteer.end_round(7, digest, loss=2.5, tokens_per_second=1234.0, device="cpu", step=56)

    await page.until("document.querySelectorAll('#people .bad').length === 1")
    people = await page.evaluate("[...document.querySelectorAll('#people tr')].map((row) => row.innerText)")
    by_name = {line.split()[0]: line for line in people}
    assert "differs" in by_name["Cem"]
    assert "bbbbbbbb" in by_name["Cem"]
    assert "round 7" in by_name["Ada"]
    assert "1,234" in by_name["Ada"]
    assert "differs" in await page.text("#people-differ")
    await page.until_text("#log", "Cem")
    assert page.alarms == []

    await volunteers[0].leave()
    await page.until_text("#people .offline", "last seen")
    assert "1,234" not in await page.text("#people .offline")
