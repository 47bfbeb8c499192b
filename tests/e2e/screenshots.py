"""Pictures of the page for the documents: each view of a session that really trains, light, dark and in Persian.

    python -m tests.e2e.screenshots [--folder docs/img]

Two nodes train a small model on this machine for a minute or two; the pictures are taken while they go on. Needs
Debian's `chromium`, and a font with Persian letters.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.page_fixtures import Page, browser, eventually, new_page
from tests.e2e.page_stage import COOKIE
from tests.system import System, running_system, tiny_request

WIDTH, HEIGHT = 1200, 900
ROUNDS = 30
LIMIT_S = 300.0
MOST_BYTES = 150_000
FORM = "[...document.querySelectorAll('#toml')].some((one) => one.textContent.includes('[model]'))"
VERSIONS = "{model}%3A1%2C{model}%3A2"
VIEWS = {
    "sessions": ("#/", "document.querySelector('#list-items .spark path') !== null"),
    "session": ("#/s/{session}", "document.querySelector('#rate-chart canvas') !== null"),
    "participants": ("#/s/{session}", "document.querySelectorAll('#people tr').length === 3"),
    "new": ("#/new", FORM),
    "models": ("#/models", "document.querySelector('#models tr') !== null"),
    "model": ("#/models/{model}", "document.querySelector('#versions tr') !== null"),
    "compare": (f"#/models/compare/{VERSIONS}", "document.querySelectorAll('.legend .key').length === 2"),
    "contributors": ("#/contributors", "document.querySelector('#contributors tr') !== null"),
    "link": ("link", "document.querySelector('#code') !== null"),
}
SCROLLED_TO = {"participants": "people-title"}


@dataclass(frozen=True)
class Look:
    """How the page is shown, as this browser remembers it."""

    name: str
    language: str
    theme: str


LOOKS = (Look("light", "en", "light"), Look("dark", "en", "dark"), Look("fa", "fa", "light"))


async def _until_round(system: System, session: str, wanted: int) -> None:
    async def reached() -> bool:
        progress = await asyncio.to_thread(system.get, f"/api/v1/sessions/{session}/progress")
        return bool(progress["round"] >= wanted)

    await eventually(reached, f"round {wanted}", limit_s=LIMIT_S)


async def _save(system: System, session: str) -> None:
    """Make a version of the model, and wait for it."""
    job = await asyncio.to_thread(system.post, f"/api/v1/sessions/{session}/save")

    async def done() -> bool:
        status: str = (await asyncio.to_thread(system.get, f"/api/v1/jobs/{job['id']}"))["status"]
        assert status != "failed", "the version could not be saved"
        return status == "completed"

    await eventually(done, "the version is saved", limit_s=LIMIT_S)


async def _trained(system: System) -> dict[str, str]:
    """A session in which two nodes train, with two versions of its model; and others beside it."""

    def request(name: str, **more: Any) -> dict[str, Any]:
        return tiny_request(2, max_steps=20_000) | {"name": name, **more}

    body = request("Tales of two nodes", description="The built-in corpus, a model of a few layers.")
    opened = await asyncio.to_thread(system.open_session, body)
    for name in ("attic", "laptop"):
        system.start_node(name, opened["url"])
    for name in ("Poems", "News of the week"):
        await asyncio.to_thread(system.post, "/api/v1/sessions", request(name))
    await _until_round(system, opened["id"], ROUNDS // 2)
    await _save(system, opened["id"])
    await _until_round(system, opened["id"], ROUNDS)
    await _save(system, opened["id"])
    (model,) = (await asyncio.to_thread(system.get, "/api/v1/models"))["items"]
    return {"session": opened["id"], "model": model["id"]}


async def _look_as(page: Page, look: Look) -> None:
    chosen = {"cotrain.language": look.language, "cotrain.theme": look.theme}
    for key, value in chosen.items():
        await page.evaluate(f"localStorage.setItem('{key}', '{value}')")


async def _take(page: Page, system: System, names: dict[str, str], folder: Path) -> None:
    await page.open(f"{system.url}/#/")
    await page.until_there("#list-items li")
    for look in LOOKS:
        await _look_as(page, look)
        for view, (address, is_there) in VIEWS.items():
            await page.open("about:blank")
            await page.open(f"{system.url}/{address.format(**names)}")
            await page.until(is_there)
            await page.evaluate(f"document.querySelector('#{SCROLLED_TO.get(view, 'app')}').scrollIntoView()")
            path = folder / f"{view}-{look.name}.png"
            await page.screenshot(path)
            size = path.stat().st_size
            print(f"{path}: {size:,} bytes", flush=True)
            assert size <= MOST_BYTES, f"{path} has more than {MOST_BYTES:,} bytes"


async def _run(folder: Path, scratch: Path) -> None:
    with running_system(scratch) as system:
        await asyncio.to_thread(system.start_coordinator)
        names = await _trained(system)
        async with browser(scratch / "profile") as tools:
            page = await new_page(tools)
            await page.set_width(WIDTH, HEIGHT)
            await page.call(
                "Network.setCookie", name=COOKIE, value=system.token, url=system.url, httpOnly=True, sameSite="Strict"
            )
            await _take(page, system, names, folder)


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description="Pictures of the page for the documents.")
    parser.add_argument("--folder", type=Path, default=Path("docs/img"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cotrain-screenshots-") as scratch:
        asyncio.run(_run(arguments.folder, Path(scratch)))


if __name__ == "__main__":
    main()
