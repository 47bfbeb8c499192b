"""Debian's Chromium, driven by Playwright: what a person does on the page, and what goes wrong there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.async_api import Browser, CDPSession, ConsoleMessage, Error, async_playwright
from playwright.async_api import Page as Tab

from tests.e2e.page_fixtures import LIMIT_S, eventually

CHROMIUM = shutil.which("chromium")

_WIDTH, _HEIGHT = 800, 600
_ASKED_BY_VISITORS = "/api/v1/auth/me"
"""Answers 401 to who is not signed in, and the browser logs that."""
_ALARMING = frozenset({"error", "assert", "warning"})


class Page:
    """One tab, with cookies and storage of its own.

    `alarms` holds what went wrong in it, `requests` every address that it asked for.
    """

    def __init__(self, tab: Tab, tools: CDPSession):
        self._tab = tab
        self._tools = tools
        self.alarms: list[str] = []
        self.requests: list[str] = []
        tab.on("pageerror", lambda error: self.alarms.append(f"exception: {error}"))
        tab.on("console", self._on_message)
        tab.on("request", lambda request: self.requests.append(request.url))
        tab.on("websocket", lambda socket: self.requests.append(socket.url))
        tools.on("Audits.issueAdded", lambda event: self.alarms.append(f"issue: {event['issue']}"))

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command to this tab over the DevTools protocol: for measuring."""
        answer: dict[str, Any] = await self._tools.send(method, parameters)
        return answer

    async def close(self) -> None:
        """Close the tab, and forget what it has stored."""
        await self._tab.context.close()

    async def expose(self, name: str, handler: Callable[[str], None]) -> None:
        """Give the page's scripts a function of a text, which calls `handler`."""
        await self._tab.expose_function(name, handler)

    async def run_first(self, script: str) -> None:
        """Run a script in every document that is loaded from now on, before its own ones."""
        await self._tab.add_init_script(script)

    async def press(self, key: str) -> None:
        """Press and release a key, or several together: `Tab`, `Shift+Enter`."""
        await self._tab.keyboard.press(key)

    async def type(self, text: str) -> None:
        """Put a text where the caret is."""
        await self._tab.keyboard.insert_text(text)

    async def write(self, selector: str, text: str) -> None:
        """Put a text into a field, in place of what is there, as if it were typed."""
        await self._tab.fill(selector, text)

    async def choose(self, selector: str, value: str) -> None:
        """Choose an option of a select by its value."""
        await self._tab.select_option(selector, value)

    async def click(self, selector: str) -> None:
        """Click on the first such element, once it can be seen, stands still, is enabled and lies under nothing."""
        await self._tab.click(selector)

    async def set_width(self, width: int, height: int = 800) -> None:
        """Look at the page as on a screen of this size, in CSS pixels."""
        await self._tab.set_viewport_size({"width": width, "height": height})

    async def set_system_theme(self, theme: Literal["light", "dark"]) -> None:
        """Look at the page on a system that is set to this."""
        await self._tab.emulate_media(color_scheme=theme)

    async def set_cookie(self, url: str, name: str, value: str) -> None:
        """Let the browser send a cookie to `url`, as the coordinator sets its own."""
        await self._tab.context.add_cookies(
            [{"name": name, "value": value, "url": url, "httpOnly": True, "sameSite": "Strict"}]
        )

    async def cookie(self, url: str, name: str) -> Any:
        """A cookie that the browser would send to `url`; None if there is no such one."""
        return next((cookie for cookie in await self._tab.context.cookies(url) if cookie["name"] == name), None)

    async def open(self, url: str) -> None:
        """Begin to load an address."""
        await self._tab.goto(url, wait_until="commit")

    async def evaluate(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression; None where it throws, as it does while a page still loads."""
        try:
            return await self._tab.evaluate(expression)
        except Error:
            return None

    async def text(self, selector: str) -> str:
        """What a reader sees of the first such element; empty if there is none or it is hidden."""
        found = await self.evaluate(
            f"(() => {{ const element = document.querySelector({json.dumps(selector)});"
            "return element?.checkVisibility() ? element.innerText : ''; })()"
        )
        return found if isinstance(found, str) else ""

    async def until_text(self, selector: str, expected: str, *, limit_s: float = LIMIT_S) -> None:
        """Wait until an element's visible text contains `expected`."""

        async def shown() -> bool:
            return expected in await self.text(selector)

        await eventually(shown, f"{selector} shows {expected!r}", limit_s=limit_s)

    async def until(self, expression: str, *, limit_s: float = LIMIT_S) -> Any:
        """Wait until a JavaScript expression holds; returns its value."""

        async def holds() -> Any:
            return await self.evaluate(expression)

        return await eventually(holds, expression, limit_s=limit_s)

    async def until_there(self, selector: str, *, limit_s: float = LIMIT_S) -> None:
        """Wait until there is such an element."""
        await self.until(f"document.querySelector({json.dumps(selector)}) !== null", limit_s=limit_s)

    async def screenshot(self, path: Path) -> None:
        """What the window shows, as PNG."""
        await self._tab.screenshot(path=path)

    def foreign_requests(self, own_url: str) -> list[str]:
        """Requests that went anywhere but to `own_url`; data inside the page's own files is no request."""
        own = urlsplit(own_url).netloc
        return [url for url in self.requests if urlsplit(url).scheme != "data" and urlsplit(url).netloc != own]

    def _on_message(self, message: ConsoleMessage) -> None:
        """What scripts write to the console, and what the browser itself logs there."""
        if message.type in _ALARMING and not message.location["url"].endswith(_ASKED_BY_VISITORS):
            self.alarms.append(f"console.{message.type}: {message.text}")


@asynccontextmanager
async def running_browser(home: Path) -> AsyncIterator[Browser]:
    """Headless Chromium, with `home` for what it keeps; ended, with all it started, on the way out."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, chromium_sandbox=False, args=["--disable-gpu", "--disable-quic"],
            env={**os.environ, "HOME": str(home)},
        )  # fmt: skip
        try:
            yield browser
        finally:
            await browser.close()


async def new_page(browser: Browser) -> Page:
    """An empty tab that is watched from its first request on."""
    context = await browser.new_context(viewport={"width": _WIDTH, "height": _HEIGHT})
    context.set_default_timeout(1000 * LIMIT_S)
    tab = await context.new_page()
    tools = await context.new_cdp_session(tab)
    page = Page(tab, tools)
    await tools.send("Audits.enable")
    return page
