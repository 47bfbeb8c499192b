"""What the tests of the web page start from: a browser, a coordinator, a session with its owner, an empty tab."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.e2e.browser import Page, new_page, running_browser
from tests.e2e.page_fixtures import Api, Volunteer, coordinator_process, eventually
from tests.e2e.wallet_fixtures import KeyWallet, sign_in

NAME = "<img src=x onerror=alert(1)> tales"
SMALL: dict[str, Any] = {
    "name": NAME, "description": "What our grandparents told.",
    "training": {"batchSize": 8, "gradientAccumulationSteps": 1, "maxSteps": 80, "learningRate": 0.002},
    "distributed": {"nodes": 1}, "diloco": {"innerSteps": 8}, "data": {"seqLength": 64},
    "monitoring": {"evaluationBatches": 2},
}  # fmt: skip
COOKIE = "cotrain"
OPENING_LIMIT_S = 90.0
"""The checkpointer loads torch first."""


@dataclass
class Stage:
    """A coordinator with a session in state draft, its owner, and an empty tab."""

    http: aiohttp.ClientSession
    owner: KeyWallet
    api: Api
    """As the owner."""
    page: Page
    session: str

    @property
    def session_url(self) -> str:
        return f"{self.api.url}/s/{self.session}"

    async def open_session(self) -> None:
        await self.page.open(self.session_url)
        await self.page.until_text("#name", NAME)

    async def sign_page_in(self) -> None:
        """Let the browser have the cookie of the owner."""
        token = await sign_in(self.http, self.api.url, self.owner)
        await self.page.set_cookie(self.api.url, COOKIE, token)

    async def open_session_as_owner(self) -> None:
        await self.sign_page_in()
        await self.open_session()
        await self.page.until_text("#account", self.owner.short)

    async def open_to_nodes(self) -> None:
        """Start the session, and wait until it can be joined."""
        await self.api.post(f"/sessions/{self.session}/start")

        async def is_waiting() -> bool:
            return await self.status() == "waiting"

        await eventually(is_waiting, "the session can be joined", limit_s=OPENING_LIMIT_S)

    async def status(self) -> str:
        return str((await self.api.get(f"/sessions/{self.session}"))["status"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """One browser for all tests; each has a tab of its own."""
    async with running_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """One coordinator for all tests that do not end it; each has a session of its own."""
    async with coordinator_process(tmp_path_factory.mktemp("coordinator") / "shared") as url:
        yield url


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    page = await new_page(browser)
    yield page
    await page.close()


@asynccontextmanager
async def staged(url: str, page: Page, owner: KeyWallet | None = None) -> AsyncIterator[Stage]:
    async with aiohttp.ClientSession() as http:
        owner = owner or KeyWallet()
        api = Api(http, url, await sign_in(http, url, owner))
        created = await api.post("/sessions", SMALL)
        yield Stage(http, owner, api, page, created["id"])


@asynccontextmanager
async def joined(folder: Path, page: Page) -> AsyncIterator[tuple[Stage, Volunteer]]:
    """A coordinator of its own in `folder`/shared, whose session is open to nodes, and Ada, who has joined it."""
    async with coordinator_process(folder / "shared") as url, staged(url, page) as stage:
        await stage.open_to_nodes()
        volunteer = Volunteer(stage.http, url, stage.session, folder / "ada.key")
        await volunteer.join("Ada")
        yield stage, volunteer


@pytest_asyncio.fixture(loop_scope="module")
async def stage(url: str, page: Page) -> AsyncIterator[Stage]:
    async with staged(url, page) as stage:
        yield stage
