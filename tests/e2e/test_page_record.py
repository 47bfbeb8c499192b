"""The page of a session shows what of it stands on a chain; nothing where nothing is recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.browser import CHROMIUM, Page
from tests.e2e.page_database import add_record
from tests.e2e.page_fixtures import coordinator_process
from tests.e2e.page_stage import SMALL, browser, page, staged

__all__ = ["browser", "page"]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium"),
]
TX_HASH = "0x" + "ab12" * 16


async def test_the_record_is_shown_with_its_transaction(page: Page, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    async with coordinator_process(shared) as url, staged(url, page) as stage:
        await page.open(f"{url}/#/s/{stage.session}")
        await page.until_there("#facts")
        assert await page.evaluate("document.querySelector('#record') === null")
        recorded = (await stage.api.post("/sessions", SMALL))["id"]
        add_record(shared, recorded, tx_hash=TX_HASH, message="the chain's node cannot be asked")
        await page.open(f"{url}/#/s/{recorded}")
        await page.until_text("#record", "The opening is on its way to eip155:8453")
        await page.until_text("#record", "the chain's node cannot be asked")
        await page.until_text("#record code", f"{TX_HASH[:10]}…")
        assert page.alarms == []
