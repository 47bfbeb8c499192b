"""Pictures of the page for the documents: each view of a session that really trains, light, dark and in Persian.

    python -m tests.e2e.screenshots [--folder docs/img] [--view chat --view learning]

Two nodes train a small model on this machine for a minute or two; the pictures are taken while they go on. What the
model says in its chat is what it has learnt by then. Cycles of auto-learning and their data, which would take
weeks of chats, are put there. Needs Debian's `chromium`, and a font with Persian letters.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cotrain.learn.pipeline import Enhancement, LearnSettings, enhance
from cotrain.learn.samples import Sample
from cotrain.learn.versions import DatasetVersions
from cotrain.paths import SharedPaths
from cotrain.status import now
from tests.e2e.browser import Page, new_page, running_browser
from tests.e2e.page_database import add_cycle
from tests.e2e.page_fixtures import eventually
from tests.e2e.page_stage import COOKIE
from tests.system import System, running_system, tiny_request

WIDTH, HEIGHT = 1200, 900
ROUNDS = 30
LIMIT_S = 300.0
WEEK_S = 7 * 86400.0
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
    "chat": ("#/models/{model}", "document.querySelector('#question') !== null"),
    "learning": ("#/learning", "document.querySelector('#growth-chart canvas') !== null"),
    "contributors": ("#/contributors", "document.querySelector('#contributors tr') !== null"),
    "link": ("link", "document.querySelector('#code') !== null"),
}
SCROLLED_TO = {"participants": "people-title", "chat": "chat"}
NAME = "Tales of two nodes"
CONFIG = f'[learning]\nmodel = "{NAME}"\n'
QUESTION = "Once upon a time"
"""In the language of the built-in corpus."""
CYCLES = (
    # good, variations, refused, outcome, losses
    (31, 44, {"too short": 12, "rated down": 3}, "promoted", (2.41, 2.28)),
    (6, 9, {"too short": 9, "not about the question": 5}, "not-significant", (None, None)),
    (28, 41, {"repetitive": 4, "unfinished": 7, "too short": 10}, "kept", (2.28, 2.29)),
    (52, 80, {"rated down": 6, "too short": 14, "prompt injection": 1}, "promoted", (2.28, 2.19)),
)


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


async def _trained(system: System, shared: Path) -> dict[str, str]:
    """A session in which two nodes train, with two versions of its model; and others beside it."""

    def request(name: str, **more: Any) -> dict[str, Any]:
        return tiny_request(2, max_steps=20_000) | {"name": name, **more}

    body = request(NAME, description="The built-in corpus, a model of a few layers.")
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
    _learn(shared, model["id"], opened["id"])
    return {"session": opened["id"], "model": model["id"]}


def _learn(shared: Path, model: str, session: str) -> None:
    """Cycles of the last weeks, and the data that they have made."""
    versions = DatasetVersions(SharedPaths(shared).learned_dataset(model))
    size = 0
    for number, (good, variations, refused, outcome, (old, new)) in enumerate(CYCLES, start=1):
        grown = good + variations - 4
        figures = {
            "chats": good + sum(refused.values()) + 4, "originalSize": size, "finalSize": size + grown,
            "heldOut": 3 * number, "growthSamples": grown, "growthPercent": 100 * grown / (size or grown),
            "good": good, "variations": variations, "duplicates": 4, "refused": refused,
        }  # fmt: skip
        size += grown
        versions.switch(versions.write(_data(size, 3 * number), cycle=f"c-{number}", base=None))
        trained: dict[str, Any] = {} if old is None else {"new_version": 2, "session_id": session}
        began = now() - WEEK_S * (len(CYCLES) - number + 1)
        add_cycle(
            shared, number, model, figures=figures, outcome=outcome, old_loss=old, new_loss=new, created_at=began,
            updated_at=began, **trained,
        )  # fmt: skip


def _data(size: int, held_out: int) -> Enhancement:
    """Data of this size."""
    samples = [
        Sample(f"What is {number} and {number}?", f"It is {2 * number}.", "en", 8.0, f"chat:{number}")
        for number in range(size + held_out)
    ]
    nothing = enhance([], [], [], LearnSettings())
    return replace(nothing, train=tuple(samples[:size]), held_out=tuple(samples[size:]), final_size=size)


async def _chat(page: Page) -> None:
    """Let the model say something."""
    await page.evaluate("document.querySelector('#consent').checked || document.querySelector('#consent').click()")
    await page.write("#length", "60")
    await page.write("#question", QUESTION)
    await page.press("Enter")
    await page.until_there(".exchange:is([data-state=cut], [data-state=done])", limit_s=LIMIT_S)


async def _look_as(page: Page, look: Look) -> None:
    chosen = {"cotrain.language": look.language, "cotrain.theme": look.theme}
    for key, value in chosen.items():
        await page.evaluate(f"localStorage.setItem('{key}', '{value}')")


async def _take(page: Page, system: System, names: dict[str, str], folder: Path, views: Sequence[str]) -> None:
    await page.open(f"{system.url}/#/")
    await page.until_there("#list-items li")
    for look in LOOKS:
        await _look_as(page, look)
        for view in views:
            address, is_there = VIEWS[view]
            await page.open("about:blank")
            await page.open(f"{system.url}/{address.format(**names)}")
            await page.until(is_there)
            if view == "chat":
                await _chat(page)
            await page.evaluate(f"document.querySelector('#{SCROLLED_TO.get(view, 'app')}').scrollIntoView()")
            path = folder / f"{view}-{look.name}.png"
            await page.screenshot(path)
            size = path.stat().st_size
            print(f"{path}: {size:,} bytes", flush=True)
            assert size <= MOST_BYTES, f"{path} has more than {MOST_BYTES:,} bytes"


async def _run(folder: Path, scratch: Path, views: Sequence[str]) -> None:
    config = scratch / "coordinator.toml"
    config.write_text(CONFIG)
    with running_system(scratch) as system:
        coordinator = await asyncio.to_thread(system.start_coordinator, 0, ("--config", str(config)))
        names = await _trained(system, coordinator.shared)
        async with running_browser(scratch / "profile") as browser:
            page = await new_page(browser)
            await page.set_width(WIDTH, HEIGHT)
            await page.set_cookie(system.url, COOKIE, system.token)
            await _take(page, system, names, folder, views)


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description="Pictures of the page for the documents.")
    parser.add_argument("--folder", type=Path, default=Path("docs/img"))
    parser.add_argument("--view", choices=VIEWS, action="append", help="which view; all of them if none is named")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cotrain-screenshots-") as scratch:
        asyncio.run(_run(arguments.folder, Path(scratch), arguments.view or list(VIEWS)))


if __name__ == "__main__":
    main()
