"""`cotrain node join --browser`: the command, and the page on which a browser's wallet signs for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cotrain.process import child_environment, end_process, python_command
from tests.e2e.browser import CHROMIUM
from tests.e2e.page_fixtures import LIMIT_S, REPOSITORY, eventually
from tests.e2e.page_stage import Stage, browser, page, stage, url
from tests.e2e.wallet_fixtures import DECLINED, BrowserWallet

__all__ = ["browser", "page", "stage", "url"]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium"),
]

CODE = re.compile(r"type ([A-Z]{4}-[A-Z]{4}) there \(or follow (\S+)\)")


class JoiningNode:
    """`cotrain node join --browser` as a process, with what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process):
        self.process = process
        self.output = ""

    async def line_with(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """The next line that the pattern is found in."""
        assert self.process.stdout is not None
        while line := await asyncio.wait_for(self.process.stdout.readline(), LIMIT_S):
            self.output += line.decode()
            if found := pattern.search(line.decode()):
                return found
        raise AssertionError(f"the node ended without {pattern.pattern!r}: {self.output}")


@asynccontextmanager
async def joining_node(stage: Stage, folder: Path) -> AsyncIterator[JoiningNode]:
    process = await asyncio.create_subprocess_exec(
        *python_command("cotrain.cli", "node", "join", stage.session_url, "--browser", "--name", "attic"),
        env=child_environment(
            PYTHONPATH=str(REPOSITORY), COTRAIN_HOME=str(folder / "home"), COTRAIN_SHARED=str(folder / "shared"),
            OMP_NUM_THREADS="1",
        ),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield JoiningNode(process)
    finally:
        await end_process(process, grace_s=10.0)


async def participants(stage: Stage) -> list[dict[str, Any]]:
    return list((await stage.api.get(f"/sessions/{stage.session}/participants"))["items"])


async def test_a_server_takes_part_by_the_wallet_of_a_browser(stage: Stage, tmp_path: Path) -> None:
    page, wallet = stage.page, BrowserWallet(stage.owner, stage.page)
    await wallet.install()
    await stage.open_to_nodes()
    async with joining_node(stage, tmp_path) as node:
        code, address = (await node.line_with(CODE)).groups()
        assert address == f"{stage.api.url}/link#{code}"

        await page.open(f"{stage.api.url}/link")
        await page.until("document.querySelector('#code-form').checkVisibility()")
        await page.evaluate(f"document.querySelector('#code').value = {code.lower()!r}")
        await page.click("#code-form button")
        await page.until_text("#facts", code)
        for fact in ("<img src=x onerror=alert(1)> tales", stage.session, "attic", stage.api.url):
            assert fact in await page.text("#facts")

        wallet.refusals["personal_sign"] = DECLINED
        await page.click("[data-wallet=wallet-1]")
        await page.until_text("#problem", "You declined in the wallet. Nothing has been signed.")
        wallet.refusals.clear()
        await page.click("[data-wallet=wallet-1]")
        await page.until_text("#end-title", "Signed")

        await node.line_with(re.compile(re.escape(f"{stage.owner.account} has signed")))
        (listed,) = await eventually(lambda: participants(stage), "the node is let in")
        assert (listed["name"], listed["account"]) == ("attic", str(stage.owner.account))
    assert wallet.asked == ["eth_requestAccounts", "eth_chainId", "personal_sign"] * 2
    assert page.alarms == []
    assert page.foreign_requests(stage.api.url) == []


async def test_a_link_holds_the_code_and_who_did_not_start_the_node_declines(stage: Stage, tmp_path: Path) -> None:
    page = stage.page
    await stage.open_to_nodes()
    async with joining_node(stage, tmp_path) as node:
        code, address = (await node.line_with(CODE)).groups()
        await page.open(address)
        await page.until_text("#facts", code)
        assert await page.evaluate("location.hash") == ""
        assert "No wallet was found" in await page.text("#step")
        await page.click("#decline")
        await page.until_text("#end-title", "Declined")
        await node.line_with(re.compile("declined in the browser"))
        assert await asyncio.wait_for(node.process.wait(), LIMIT_S) == 77
    assert await participants(stage) == []
    assert page.alarms == []
    assert not any(code in request for request in page.requests)
