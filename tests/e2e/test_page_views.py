"""The other views of the page: finding a session, opening one, models and their comparison, who gave how much."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.browser import CHROMIUM, Page
from tests.e2e.page_database import add_credit, add_model, add_points
from tests.e2e.page_fixtures import coordinator_process
from tests.e2e.page_stage import NAME, SMALL, Stage, browser, joined, page, stage, staged, url

__all__ = ["browser", "page", "stage", "url"]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium"),
]

LISTED = "[...document.querySelectorAll('#list-items li')].map((item) => item.dataset.session)"


async def test_a_session_is_found_by_state_and_by_words(page: Page, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    async with coordinator_process(shared) as url, staged(url, page) as stage:
        poems = (await stage.api.post("/sessions", SMALL | {"name": "Poems", "description": "Verses of Shiraz"}))["id"]
        await stage.api.post(f"/sessions/{poems}/cancel")
        add_points(shared, stage.session, range(9))
        await page.open(url)
        await page.until(f"{LISTED}.length === 2")
        await page.write("#search", "shiraz verses")
        await page.until(f"{LISTED}.join() === '{poems}'")
        await page.click("[data-group=draft]")
        await page.until_text("#list-none", "No session fits the search.")
        await page.write("#search", " ")
        await page.until(f"{LISTED}.join() === '{stage.session}'")
        assert await page.text("[data-group=ended] .count") == "1"
        assert (
            await page.evaluate("document.querySelector('[data-group=draft]').getAttribute('aria-pressed')") == "true"
        )
        assert page.alarms == []


async def test_the_list_draws_the_loss_of_a_session(page: Page, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    async with joined(tmp_path, page) as (stage, volunteer):
        add_points(shared, stage.session, range(9))
        await volunteer.end_round(9, "a" * 64, loss=2.0)
        await page.open(stage.api.url)
        await page.until_text("#list-items .running .badge", "training")
        await page.until_text("#list-items .figures", "2.000")
        await page.until_there("#list-items .spark path")
        assert page.alarms == []


async def test_a_session_is_opened_with_the_form(stage: Stage) -> None:
    page = stage.page
    await stage.open_session_as_owner()
    await page.open("about:blank")
    await page.open(f"{stage.api.url}/#/new")
    await page.until_text("#toml", 'name = "Unnamed"')
    assert await page.evaluate("document.querySelector('#field-training-batchSize').placeholder") == "32"
    await page.until_text("#estimate", "M")

    await page.write("#field-name", "From the form")
    await page.write("#field-training-batchSize", "70000")
    await page.until_text("#field-training-batchSize-problem", "65536")
    assert await page.evaluate("document.querySelector('#field-training-batchSize').ariaInvalid") == "true"
    await page.write("#field-training-batchSize", "8")
    await page.choose("#field-model-type", "gpt2")
    await page.until_text("#toml", "batch_size = 8")
    await page.until_text("#toml", 'type = "gpt2"')
    await page.write("#memory", "0.1")
    await page.until_text("#shortage", "memory")

    await page.click("#starts")
    await page.click("#open")
    await page.until_text("#name", "From the form")
    await page.until_text("#state", "draft")
    opened = str(await page.evaluate("location.hash")).rpartition("/")[2]
    config = await page.evaluate(f"fetch('/api/v1/sessions/{opened}/config').then((answer) => answer.text())")
    assert "batch_size = 8" in config
    assert (await stage.api.get(f"/sessions/{opened}"))["owner"] == str(stage.owner.account)
    assert [alarm for alarm in page.alarms if "422" not in alarm] == []


async def test_without_a_sign_in_the_form_only_works_things_out(stage: Stage) -> None:
    page = stage.page
    await page.open(f"{stage.api.url}/#/new")
    await page.until_text("#sign-in-first", "Sign in with a wallet first")
    assert await page.evaluate("document.querySelector('#open').disabled")
    await page.until_text("#toml", "[model]")
    assert page.alarms == []


async def test_versions_of_models_are_compared(page: Page, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    async with coordinator_process(shared) as url, staged(url, page) as stage:
        second = (await stage.api.post("/sessions", SMALL))["id"]
        for session in (stage.session, second):
            add_points(shared, session, range(9))
        add_model(shared, "tales", str(stage.owner.account), [stage.session, second])
        await page.open(f"{url}/#/models")
        await page.until_text("#models", "tales")
        await page.click("#models a")
        await page.until_text("#versions", "Its files have been removed.")
        await page.until_text("#model", "Who trained version 2")
        await page.click("[id='pick-tales:1']")
        await page.click("[id='pick-tales:2']")
        await page.click("#compare")
        await page.until_text("#comparison", "validationLoss")
        await page.until_text("#comparison tr td:nth-child(3)", "best")
        assert "best" not in await page.text("#comparison tr td:nth-child(2)")
        await page.until_there("#compare-chart canvas")
        assert page.alarms == []
        assert page.foreign_requests(url) == []


async def test_who_took_part_is_listed_with_what_was_given(page: Page, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    async with joined(tmp_path, page) as (stage, _):
        add_credit(shared, stage.session, samples=32)
        await page.open(f"{stage.api.url}/#/contributors")
        await page.until_text("#contributors", "Ada")
        assert await page.text("#contributors td:nth-child(3)") == f"{32 * SMALL['data']['seqLength']:,}"
        assert await page.text("#contributors td:nth-child(4)") == "32"
        await page.evaluate("document.querySelector('#contributors details').open = true")
        await page.until_text("#contributors", NAME)
        assert page.alarms == []


async def test_an_owner_saves_a_version_in_the_middle_only_where_that_can_be(stage: Stage) -> None:
    page = stage.page
    await stage.open_session_as_owner()
    assert await page.evaluate("document.querySelector('[data-action=save]')") is None
    await stage.api.post(f"/sessions/{stage.session}/start")
    await page.until_text("#state", "waiting")
    await page.until_there("[data-action=save]")
    await page.click("[data-action=save]")
    await page.until_text("#saving", "A version is being saved")
    jobs = (await stage.api.get(f"/jobs?session={stage.session}"))["items"]
    assert [job["kind"] for job in jobs] == ["save"]


async def test_config_and_checkpoints_are_shown(stage: Stage) -> None:
    page = stage.page
    await stage.open_session()
    await page.until_there("#config")
    await page.evaluate("document.querySelector('#config').open = true")
    await page.until_text("#config", "max_steps = 80")
    await page.until_text("#checkpoints-title ~ p", "No checkpoint has been kept yet.")
    assert page.alarms == []


async def test_an_address_that_the_page_does_not_have_is_said_so(stage: Stage) -> None:
    await stage.page.open(f"{stage.api.url}/#/no/such/view")
    await stage.page.until_text("main", "There is no such page.")
    assert stage.page.alarms == []
