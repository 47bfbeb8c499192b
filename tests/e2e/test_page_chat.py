"""Chats on the page: a small model that really answers, what is kept and rated, what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.e2e.browser import CHROMIUM, Page, new_page
from tests.e2e.page_database import add_model, kept_chats
from tests.e2e.page_fixtures import coordinator_process, eventually
from tests.e2e.page_stage import SMALL, Stage, browser, page, staged
from tests.serve_fixtures import export_chat_model

__all__ = ["browser", "page"]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium"),
]

QUESTION = "<img src=x onerror=alert(1)> Is anybody there?"
ANSWER_LIMIT_S = 90.0
"""The first answer waits for a process that loads torch."""
STATES = "[...document.querySelectorAll('.exchange')].map((one) => one.dataset.state).join()"
STOP = "document.querySelector('#chat-stop')"
WATCH = """
(() => {
  window.seenLengths = new Set();
  new MutationObserver(() => window.seenLengths.add(document.querySelector('.answer')?.textContent.length ?? 0))
    .observe(document.querySelector('#exchanges'), { subtree: true, childList: true, characterData: true });
  return true;
})()
"""


@dataclass(frozen=True)
class Talk:
    """A model with two versions, `tales`, whose owner is the stage's; and one that cannot be chatted with, `tags`."""

    stage: Stage
    shared: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def talk(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Talk]:
    """One for all tests: its coordinator keeps the model loaded."""
    folder = tmp_path_factory.mktemp("talk")
    files = export_chat_model(folder / "exported")
    shared = folder / "shared"
    async with coordinator_process(shared) as url, staged(url, await new_page(browser)) as stage:
        masked = SMALL | {"model": {"type": "bert"}, "training": SMALL["training"] | {"task": "masked-lm"}}
        second, third = [(await stage.api.post("/sessions", wanted))["id"] for wanted in (SMALL, masked)]
        add_model(shared, "tales", str(stage.owner.account), [stage.session, second], files)
        add_model(shared, "tags", str(stage.owner.account), [third], files)
        add_model(shared, "gone", str(stage.owner.account), [stage.session])
        yield Talk(stage, shared)


@pytest_asyncio.fixture(loop_scope="module")
async def stage(talk: Talk, page: Page) -> Stage:
    """The model's page in an empty tab."""
    stage = replace(talk.stage, page=page)
    await open_model(stage, "tales")
    await page.until_there("#question")
    return stage


async def open_model(stage: Stage, model: str) -> None:
    await stage.page.open("about:blank")
    await stage.page.open(f"{stage.api.url}/#/models/{model}")
    await stage.page.until_there("#chat")


async def ask(page: Page, question: str, *, most: int = 24) -> None:
    await page.write("#length", str(most))
    await page.write("#question", question)
    await page.press("Enter")


async def until_states(page: Page, states: str) -> None:
    await page.until(f"{STATES} === '{states}'", limit_s=ANSWER_LIMIT_S)


async def test_an_answer_comes_piece_by_piece_and_nothing_is_kept_without_consent(talk: Talk, stage: Stage) -> None:
    page = stage.page
    assert await page.evaluate("document.querySelector('#chat-version').value") == "2"
    assert await page.evaluate("document.querySelector('#consent').checked") is False
    assert await page.evaluate(WATCH)
    await ask(page, QUESTION, most=120)
    await until_states(page, "cut")
    await page.until_text(".exchange", "Cut off: it has as many tokens as were allowed.")
    assert await page.evaluate("window.seenLengths.size") > 5
    assert QUESTION in await page.text(".exchange .said")
    assert await page.evaluate("document.querySelectorAll('#exchanges img').length") == 0
    answer = await page.evaluate("document.querySelector('.answer').textContent")
    said = await page.evaluate("document.querySelector('#chat-said').textContent")
    # what runs from right to left, as by chance it may, is isolated from the words around it
    assert said in (f"Answer: {answer}", f"Answer: \u2068{answer}\u2069")
    assert await page.evaluate("document.querySelector('[data-rate]')") is None
    assert kept_chats(talk.shared) == []

    await ask(page, "And then?")
    await until_states(page, "cut,cut")
    await page.click("#chat-new")
    await page.until("document.querySelector('.exchange') === null")
    assert page.alarms == []
    assert page.foreign_requests(stage.api.url) == []


async def test_what_is_kept_can_be_rated_and_forgotten_and_consent_is_remembered_here(talk: Talk, stage: Stage) -> None:
    page = stage.page
    await page.click("#consent")
    await ask(page, "Where do you live?")
    await page.until_there("[data-rate=up]", limit_s=ANSWER_LIMIT_S)
    await page.click("[data-rate=up]")

    async def rated(wanted: int) -> bool:
        return kept_chats(talk.shared) == [("Where do you live?", wanted)]

    await eventually(lambda: rated(1), "the exchange is kept as a good one")
    await page.click("[data-rate=down]")
    await eventually(lambda: rated(-1), "the exchange is kept as a bad one")
    assert await page.evaluate("document.querySelector('[data-rate=down]').ariaPressed") == "true"
    await page.click("[data-rate=down]")
    await eventually(lambda: rated(0), "the rating is taken back")
    await page.click("[data-forget]")
    await page.until("document.querySelector('[data-rate]') === null")
    assert kept_chats(talk.shared) == []

    await open_model(stage, "tales")
    await page.until("document.querySelector('#consent').checked")
    assert await page.evaluate("document.querySelector('.exchange')") is None
    assert page.alarms == []


async def test_an_answer_is_stopped_and_a_line_broken_by_keyboard(stage: Stage) -> None:
    page = stage.page
    await page.write("#question", "One")
    await page.press("Shift+Enter")
    await page.type("two")
    assert await page.evaluate("document.querySelector('#question').value") == "One\ntwo"
    await page.write("#length", "480")
    await page.click("#chat-send")
    # by the page itself, as soon as it is there: on a slow page the answer may have ended before a mouse has come to it
    await page.until(f"{STOP} && ({STOP}.click(), true)")
    await until_states(page, "stopped")
    await page.until_text(".exchange", "Stopped.")
    await page.until_there("#chat-send")
    assert page.alarms == []


async def test_an_owner_says_which_version_answers(stage: Stage) -> None:
    page = stage.page
    assert await page.evaluate("document.querySelector('[data-promote]')") is None
    await stage.sign_page_in()
    await open_model(stage, "tales")
    await page.until_text("#account", stage.owner.short)
    await page.click("[data-promote='1']")
    await page.until_text("#versions tr:nth-child(2)", "answers chats")
    assert (await stage.api.get("/models/tales"))["promotedVersion"] == 1
    assert await page.evaluate("document.querySelector('#chat-version').value") == "1"
    await page.click("[data-chat='2']")
    await page.until(
        "document.querySelector('#chat-version').value === '2' && document.activeElement.id === 'question'"
    )
    await ask(page, "Which one are you?")
    await until_states(page, "cut")
    await page.open(f"{stage.api.url}/#/models")
    await page.until_text("#models", "version 1 answers chats")
    assert page.alarms == []


async def test_where_nobody_can_chat_the_page_says_why(stage: Stage) -> None:
    page = stage.page
    await open_model(stage, "gone")
    await page.until_text("#chat-none", "its files have been removed")
    await open_model(stage, "tags")
    await page.until_text("#chat-none", "this kind of model does not go on with a text")
    assert await page.evaluate("document.querySelector('#question')") is None
    assert page.alarms == []


async def test_what_cannot_be_answered_says_why_and_need_not_be_written_again(page: Page, tmp_path: Path) -> None:
    files = export_chat_model(tmp_path / "exported")
    shared = tmp_path / "shared"
    async with (
        coordinator_process(shared, config="[chat]\nconcurrent = 1\nwaiting = 1\n") as url,
        staged(url, page) as stage,
    ):
        add_model(shared, "tales", str(stage.owner.account), [stage.session], files)
        await open_model(stage, "tales")
        await page.until_there("#question")
        others = [asyncio.create_task(chat_elsewhere(stage)) for _ in range(3)]
        # while the model is loaded there is room for two; once the third one is refused, there is none left
        await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        await ask(page, "Hello?")
        await page.until_text(".exchange [role=alert]", "Too many chats at the moment.")
        await page.until("document.querySelector('#question').value === 'Hello?'")
        assert await page.text("#chat-said") == ""
        assert sorted(await asyncio.gather(*others)) == [200, 200, 429]
        await page.evaluate("document.querySelector('#question').focus()")
        await page.press("Enter")
        await until_states(page, "failed,cut")
        assert [alarm for alarm in page.alarms if "429" not in alarm] == []


async def test_a_coordinator_without_chats_shows_no_box(page: Page, tmp_path: Path) -> None:
    files = export_chat_model(tmp_path / "exported")
    shared = tmp_path / "shared"
    async with coordinator_process(shared, config="[chat]\nenabled = false\n") as url, staged(url, page) as stage:
        add_model(shared, "tales", str(stage.owner.account), [stage.session], files)
        await open_model(stage, "tales")
        await page.until_text("#chat-none", "This coordinator offers no chats.")
        await page.until_there("#versions a[download]")
        assert await page.evaluate("document.querySelectorAll('#question, [data-chat]').length") == 0
        assert page.alarms == []


async def chat_elsewhere(stage: Stage) -> int:
    """The status that somebody else's chat is answered with."""
    wanted = {"model": "tales", "messages": [{"role": "user", "content": "Who is first?"}], "max_tokens": 8}
    async with stage.http.post(f"{stage.api.url}/v1/chat/completions", json=wanted) as response:
        await response.read()
        return response.status


async def test_a_chat_in_persian_runs_from_right_to_left_and_fits_a_phone(stage: Stage) -> None:
    page = stage.page
    await page.set_width(360)
    await page.choose("#page-language", "fa")
    await page.until_text("#chat-title", "گفت‌وگو با مدل")
    await ask(page, "Hello in English")
    await until_states(page, "cut")
    direction = "getComputedStyle(document.querySelector('.said')).direction"
    assert await page.evaluate(direction) == "ltr"
    await ask(page, "سلام، حالت چطور است؟")
    await until_states(page, "cut,cut")
    assert await page.evaluate(direction.replace(".said", ".exchange:last-child .said")) == "rtl"
    overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0
    assert page.alarms == []
