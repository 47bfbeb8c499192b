"""How soon the page shows something useful, and what it holds in memory while events come in.

    python -m benchmarks.page paint [--samples 10]
    python -m benchmarks.page memory [--minutes 10] [--rate 60]

Both run a coordinator and headless Chromium on this machine (Debian's `chromium`). `paint` opens two views with an
empty cache, again and again: the list of 20 sessions, and a session with 2,000 points and three participants. Useful is
the first frame with the first item of the list, with the session's name, state and progress, or with its curve.
`memory` watches a session while a participant reports: log records, and the progress that follows from them. After each
collection of garbage it notes the heap of JavaScript, the elements of the page, and the memory that the tab's process
shares with no other; the slopes leave the first tenth out, in which the page fills the logs that it keeps.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from playwright.async_api import Browser

from tests.e2e.browser import Page, new_page, running_browser
from tests.e2e.page_database import add_points
from tests.e2e.page_fixtures import Volunteer, coordinator_process
from tests.e2e.page_stage import SMALL, Stage, staged

SESSIONS = 20
POINTS = 2000
TICK_S = 0.5
SAMPLE_S = 15.0
WARM_UP_SHARE = 0.1
HOUR_EVENTS = 36_000
"""An hour at ten a second."""
PAINT_WANTED_S = 1.0
GROWTH_WANTED_BYTES = 20e6
_USEFUL = """
(() => {
  const look = () => requestAnimationFrame(() => {
    if (document.querySelector(SELECTOR) === null) { look(); return; }
    requestAnimationFrame(() => { window.usefulAt = performance.now(); });
  });
  look();
})();
"""
_HEARD = """
window.heard = 0;
window.WebSocket = class extends WebSocket {
  constructor(...given) {
    super(...given);
    this.addEventListener("message", () => { window.heard += 1; });
  }
};
"""
_PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"


@dataclass(frozen=True)
class Paint:
    """A view, seconds from the start of the navigation; of all samples the median and the worst.

    `computing_s` is what the tab's process has computed until it was useful, its own start included: on a machine with
    other work it says more than the clock does.
    """

    view: str
    samples: int
    first_paint_s: float
    useful_s: float
    worst_useful_s: float
    computing_s: float


@dataclass(frozen=True)
class Held:
    """What the tab holds after `events` events; bytes."""

    events: int
    heap_bytes: int
    nodes: int
    process_bytes: int


@dataclass(frozen=True)
class Growth:
    """What an hour of ten events a second adds, from the slope after the warm-up; bytes."""

    events: int
    events_per_s: float
    heap_bytes: float
    process_bytes: float
    nodes: float


@asynccontextmanager
async def _open_session(folder: Path, names: tuple[str, ...]) -> AsyncIterator[tuple[Stage, list[Volunteer], Browser]]:
    """A session with points and participants, and a browser."""
    shared = folder / "shared"
    async with coordinator_process(shared) as url, running_browser(folder / "profile") as browser:
        page = await new_page(browser)
        async with staged(url, page) as stage:
            await stage.open_to_nodes()
            add_points(shared, stage.session, range(POINTS))
            volunteers = [Volunteer(stage.http, url, stage.session, folder / f"{name}.key") for name in names]
            for name, volunteer in zip(names, volunteers, strict=True):
                await volunteer.join(name)
            yield stage, volunteers, browser


# ------------------------------------------------------------------------------------------------------- paint
async def _paint(browser: Browser, address: str, selector: str) -> tuple[float, float, float]:
    """Seconds to the first paint, to the first useful one, and of computing; in a tab with nothing in its cache."""
    page = await new_page(browser)
    await page.call("Performance.enable")
    script = _USEFUL.replace("SELECTOR", json.dumps(selector))
    await page.run_first(script)
    await page.open(address)
    useful_ms = await page.until("window.usefulAt")
    figures = {one["name"]: one["value"] for one in (await page.call("Performance.getMetrics"))["metrics"]}
    painted_ms = await page.until(_PAINTED)
    await page.close()
    return painted_ms / 1000, useful_ms / 1000, figures["ProcessTime"]


async def paint(folder: Path, samples: int) -> list[Paint]:
    """All three, each `samples` times."""
    found = []
    async with _open_session(folder, ("Ada", "Ben", "Cem")) as (stage, volunteers, browser):
        for volunteer in volunteers:
            await volunteer.end_round(POINTS, "a" * 64, loss=2.5, tokens_per_second=1234.0)
        for number in range(1, SESSIONS):
            created = await stage.api.post("/sessions", SMALL | {"name": f"Session {number}"})
            await stage.api.post(f"/sessions/{created['id']}/cancel")
        views = {
            "sessions": (f"{stage.api.url}/", "#list-items li"),
            "session": (f"{stage.api.url}/#/s/{stage.session}", "#name"),
            "curve": (f"{stage.api.url}/#/s/{stage.session}", "#loss-chart canvas"),
        }
        for view, (address, selector) in views.items():
            times = [await _paint(browser, address, selector) for _ in range(samples)]
            first, useful, computing = (list(column) for column in zip(*times, strict=True))
            middle = statistics.median
            found.append(Paint(view, samples, middle(first), middle(useful), max(useful), middle(computing)))
    return found


# ------------------------------------------------------------------------------------------------------ memory
async def _report(volunteer: Volunteer, rate: float) -> None:
    """Log records at `rate` a second, until cancelled. What is late is made up for."""
    started, told = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - started) * rate)
        messages = [f"inner step {told + number}: the loss is {2.5:.3f}" for number in range(min(32, due - told))]
        told += len(messages)
        await volunteer.say(messages, loss=2.5, tokens_per_second=1234.0, device="cpu", step=told)
        await asyncio.sleep(TICK_S)


async def _held(browser: Browser, page: Page) -> Held:
    await page.call("HeapProfiler.collectGarbage")
    heap = (await page.call("Runtime.getHeapUsage"))["usedSize"]
    nodes = (await page.call("Memory.getDOMCounters"))["nodes"]
    tools = await browser.new_browser_cdp_session()
    processes = (await tools.send("SystemInfo.getProcessInfo"))["processInfo"]
    await tools.detach()
    own = [psutil.Process(one["id"]).memory_full_info().uss for one in processes if one["type"] == "renderer"]
    return Held(int(await page.evaluate("window.heard")), int(heap), nodes, max(own))


def growth(held: list[Held], seconds: float) -> Growth:
    """What an hour adds, from the samples after the warm-up. Pure."""
    events = held[-1].events - held[0].events
    later = [one for one in held if one.events >= held[0].events + WARM_UP_SHARE * events]

    def per_hour(values: list[int]) -> float:
        return HOUR_EVENTS * statistics.linear_regression([one.events for one in later], values).slope

    return Growth(
        events, events / seconds, per_hour([one.heap_bytes for one in later]),
        per_hour([one.process_bytes for one in later]), per_hour([one.nodes for one in later]),
    )  # fmt: skip


async def memory(folder: Path, minutes: float, rate: float) -> Growth:
    """Watch a session for so long. Progress is told four times a second; the rest of `rate` are records."""
    async with _open_session(folder, ("Ada",)) as (stage, (volunteer,), browser):
        await stage.page.call("HeapProfiler.enable")
        await stage.page.run_first(_HEARD)
        await stage.open_session()
        await stage.page.until_there("#loss-chart canvas")
        work = [asyncio.create_task(volunteer.hear()), asyncio.create_task(_report(volunteer, rate - 1 / TICK_S))]
        started, held = time.monotonic(), []
        while time.monotonic() < started + 60 * minutes:
            held.append(await _held(browser, stage.page))
            print(json.dumps(asdict(held[-1])), flush=True)
            await asyncio.wait(work, timeout=SAMPLE_S, return_when=asyncio.FIRST_COMPLETED)
            for ended in (task for task in work if task.done()):
                ended.result()
                raise SystemExit("the participant's uplink has ended")
        seconds = time.monotonic() - started
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        assert stage.page.alarms == [], stage.page.alarms
    return growth(held, seconds)


def main() -> None:
    """Measure, print, and say what misses its bar."""
    parser = argparse.ArgumentParser(description="The page: first useful paint, and memory.")
    parser.add_argument("what", choices=["paint", "memory"])
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=60.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cotrain-page-") as folder:
        if arguments.what == "paint":
            for one in asyncio.run(paint(Path(folder), arguments.samples)):
                print(json.dumps({**asdict(one), "wanted_s": PAINT_WANTED_S, "met": one.useful_s < PAINT_WANTED_S}))
            return
        grown = asyncio.run(memory(Path(folder), arguments.minutes, arguments.rate))
        met = max(grown.heap_bytes, grown.process_bytes) < GROWTH_WANTED_BYTES
        print(json.dumps({**asdict(grown), "wanted_bytes": GROWTH_WANTED_BYTES, "met": met}))


if __name__ == "__main__":
    main()
