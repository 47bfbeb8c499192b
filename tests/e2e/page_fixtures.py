"""A coordinator as a real process, and headless Chromium driven over the Chrome DevTools Protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from cotrain.membership.bond import make_bond
from cotrain.peer_key import PeerSigner, load_or_create_peer_key
from cotrain.process import child_environment, end_process, python_command
from cotrain.protocol import Hello, RegisterRequest, StatusMessage
from cotrain.status import Record, RecordKind, Status, now
from tests.e2e.wallet_fixtures import KeyWallet, sign_in

CHROMIUM = shutil.which("chromium")
REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT_S = 30.0

_START_LIMIT_S = 90.0
_POLL_S = 0.02
_GRACE_S = 10.0
_MAX_FRAME_BYTES = 64 * 1024 * 1024
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--remote-debugging-port=0",
)  # fmt: skip
_KEY_CODES = {"Escape": 27, "Tab": 9, "Enter": 13, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
_ASKED_BY_VISITORS = "/api/v1/auth/me"
"""Answers 401 to who is not signed in, and the browser logs that."""
_ALARMING_CALLS = frozenset({"error", "assert", "warning"})


async def eventually(question: Callable[[], Any], what: str, *, limit_s: float = LIMIT_S) -> Any:
    """The first truthy answer of an async `question`; fails the test once the limit has passed."""
    deadline = time.monotonic() + limit_s
    while not (found := await question()):
        assert time.monotonic() < deadline, f"{what}: not within {limit_s} s"
        await asyncio.sleep(_POLL_S)
    return found


# ---------------------------------------------------------------------------------------------- the coordinator
@asynccontextmanager
async def coordinator_process(shared: Path, *, port: int = 0, config: str = "") -> AsyncIterator[str]:
    """Runs `cotrain coordinator serve` on its own data folder, with the TOML `config`; yields its URL."""
    settings = shared.parent / f"{shared.name}.toml"
    settings.write_text(config)
    options = ("--port", str(port), "--config", str(settings), "--json")
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    with (shared.parent / f"{shared.name}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *python_command("cotrain.cli", "coordinator", "serve", *options),
            env=child_environment(PYTHONPATH=path, COTRAIN_SHARED=str(shared), OMP_NUM_THREADS="1"),
            stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), _START_LIMIT_S)
        assert line, f"the coordinator ended before it was ready: see {log.name}"
        yield json.loads(line)["url"]
    finally:
        await end_process(process, grace_s=_GRACE_S)


class Api:
    """The coordinator's REST API; with a token, as the account that holds it."""

    def __init__(self, http: aiohttp.ClientSession, url: str, token: str = ""):
        self._http = http
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url

    async def get(self, path: str) -> dict[str, Any]:
        """The answer to a GET below /api/v1; fails the test on any other status than success."""
        return await self._call("GET", path, None)

    async def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a POST below /api/v1."""
        return await self._call("POST", path, body)

    async def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        address = f"{self.url}/api/v1{path}"
        async with self._http.request(method, address, json=body, headers=self._headers) as response:
            assert response.ok, f"{method} {path}: {response.status} {await response.text()}"
            answer: dict[str, Any] = await response.json()
            return answer


class Volunteer:
    """A registered participant that trains nothing: it says over a real uplink what it is told to say.

    Args:
        key: where its peer's key is, or will be.
    """

    def __init__(self, http: aiohttp.ClientSession, url: str, session: str, key: Path):
        self._http = http
        self._url = url
        self._base = f"{url}/api/v1/sessions/{session}/participants"
        self._session = session
        self._peer = load_or_create_peer_key(key)
        self._signer = PeerSigner(key)
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._sequence = self._recorded = 0

    async def join(self, name: str) -> None:
        """Sign in, register and open the uplink."""
        wallet = KeyWallet()
        headers = {"Authorization": f"Bearer {await sign_in(self._http, self._url, wallet)}"}
        bond = make_bond(wallet, self._signer, session=self._session, coordinator=self._url, now=now())
        wanted = RegisterRequest(peer_id=self._peer, bond=bond, name=name).model_dump(by_alias=True)
        async with self._http.post(self._base, json=wanted, headers=headers) as response:
            assert response.status == 201, await response.text()
            answer = await response.json()
        self._socket = await self._http.ws_connect(
            f"{self._base}/{answer['participant']}/stream", headers={"Authorization": f"Bearer {answer['token']}"}
        )
        await self._send(Hello())

    async def end_round(self, number: int, digest: str, **facts: Any) -> None:
        """Report a round with the digest of the outer state after it."""
        data: dict[str, Any] = {"round": number, "digest": digest}
        record = self._record("round", f"round {number} closed", data)
        await self._report([record], digest=digest, **facts)

    async def say(self, messages: Sequence[str], **facts: Any) -> None:
        """Report that it trains, with these entries in its log."""
        await self._report([self._record("log", message, {}) for message in messages], **facts)

    def _record(self, kind: RecordKind, message: str, data: dict[str, Any]) -> Record:
        self._recorded += 1
        return Record(number=self._recorded, time=now(), kind=kind, message=message, data=data)

    async def _report(self, records: list[Record], **facts: Any) -> None:
        self._sequence += 1
        status = Status(
            session=self._session, peer=self._peer, run="run-1", sequence=self._sequence, updated_at=now(),
            status="training", phase="training", records=records, **facts,
        )  # fmt: skip
        await self._send(StatusMessage(run="run-1", seq=self._sequence, status=status))

    async def hear(self) -> None:
        """Take in what the coordinator says until the uplink is closed: who reads nothing is given nothing any more."""
        assert self._socket is not None
        async for _ in self._socket:
            pass

    async def leave(self) -> None:
        """Close the uplink."""
        assert self._socket is not None
        await self._socket.close()

    async def _send(self, message: Hello | StatusMessage) -> None:
        assert self._socket is not None
        await self._socket.send_str(message.model_dump_json(by_alias=True))


# ------------------------------------------------------------------------------------------------- the browser
class DevTools:
    """One WebSocket to the browser: calls are numbered, events go to whoever listens to their target."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse):
        self._socket = socket
        self._calls: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.listeners: dict[str, Callable[[str, dict[str, Any]], None]] = {}

    async def call(self, method: str, parameters: dict[str, Any] | None = None, target: str = "") -> dict[str, Any]:
        """The result of a command; fails the test if the browser refuses it."""
        number = len(self._calls) + 1
        answer = self._calls[number] = asyncio.get_running_loop().create_future()
        routing = {"sessionId": target} if target else {}
        await self._socket.send_json({"id": number, "method": method, "params": parameters or {}, **routing})
        message = await asyncio.wait_for(answer, LIMIT_S)
        assert "error" not in message, f"{method}: {message.get('error')}"
        result: dict[str, Any] = message["result"]
        return result

    async def read(self) -> None:
        """Hand out what arrives until the browser closes the socket."""
        async for frame in self._socket:
            message = frame.json()
            if "id" in message:
                self._calls[message["id"]].set_result(message)
            elif listener := self.listeners.get(message.get("sessionId", "")):
                listener(message["method"], message["params"])


class Page:
    """One tab, with cookies and storage of its own.

    `alarms` holds what went wrong in it, `requests` every address that it asked for.
    """

    def __init__(self, tools: DevTools, context: str, target: str):
        self._tools = tools
        self._context = context
        self._target = target
        self._bindings: dict[str, Callable[[str], None]] = {}
        self.alarms: list[str] = []
        self.requests: list[str] = []
        tools.listeners[target] = self._on_event

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command to this tab."""
        return await self._tools.call(method, parameters, self._target)

    async def close(self) -> None:
        """Close the tab, and forget what it has stored."""
        await self._tools.call("Target.disposeBrowserContext", {"browserContextId": self._context})
        del self._tools.listeners[self._target]

    async def expose(self, name: str, handler: Callable[[str], None]) -> None:
        """Give the page's scripts a function of a text, which calls `handler`."""
        self._bindings[name] = handler
        await self.call("Runtime.addBinding", name=name)

    async def press(self, key: str) -> None:
        """Press and release a key that types no character: `Escape`, `Tab`."""
        typed = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown" if typed else "rawKeyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=_KEY_CODES[key], **typed
            )

    async def write(self, selector: str, text: str) -> None:
        """Put a text into a field, in place of what is there, as if it were typed."""
        field = f"document.querySelector({json.dumps(selector)})"
        await self.evaluate(f"{field}.focus()")
        await self.evaluate(f"{field}.select()")
        await self.call("Input.insertText", text=text)

    async def choose(self, selector: str, value: str) -> None:
        """Choose an option of a select by its value, as a person does."""
        field = f"document.querySelector({json.dumps(selector)})"
        events = "['input', 'change'].map((kind) => new Event(kind, { bubbles: true }))"
        await self.evaluate(f"{field}.value = {json.dumps(value)}")
        await self.evaluate(f"{events}.forEach((event) => {field}.dispatchEvent(event))")

    async def set_width(self, width: int, height: int = 800) -> None:
        """Look at the page as on a screen of this size, in CSS pixels."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def cookie(self, url: str, name: str) -> dict[str, Any] | None:
        """A cookie that the browser would send to `url`."""
        found = (await self.call("Network.getCookies", urls=[url]))["cookies"]
        return next((cookie for cookie in found if cookie["name"] == name), None)

    async def open(self, url: str) -> None:
        """Begin to load an address."""
        await self.call("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression; None where it throws, as it does while a page still loads."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return None if "exceptionDetails" in answer else answer["result"].get("value")

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

    async def click(self, selector: str) -> None:
        """Click with the mouse, in the middle of the first such element: it must be there for a person too."""
        where = await self.evaluate(
            f"(() => {{ const element = document.querySelector({json.dumps(selector)});"
            "element.scrollIntoView({block: 'center'}); const box = element.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        assert where, f"nothing matches {selector}"
        place = {"x": where[0], "y": where[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, **place)

    async def screenshot(self, path: Path) -> None:
        """What the window shows, as PNG."""
        image = await self.call("Page.captureScreenshot", format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(image["data"]))

    def foreign_requests(self, own_url: str) -> list[str]:
        """Requests that went anywhere but to `own_url`; data inside the page's own files is no request."""
        own = urlsplit(own_url).netloc
        return [url for url in self.requests if urlsplit(url).scheme != "data" and urlsplit(url).netloc != own]

    def _on_event(self, method: str, event: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.alarms.append(f"exception: {event['exceptionDetails']}")
        elif method == "Runtime.consoleAPICalled" and event["type"] in _ALARMING_CALLS:
            self.alarms.append(f"console.{event['type']}: {event['args']}")
        elif method == "Runtime.bindingCalled":
            self._bindings[event["name"]](event["payload"])
        elif method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
            if not event["entry"].get("url", "").endswith(_ASKED_BY_VISITORS):
                self.alarms.append(f"log: {event['entry']}")
        elif method == "Audits.issueAdded":
            self.alarms.append(f"issue: {event['issue']}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requests.append(event["url"])


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[DevTools]:
    """Headless Chromium with a profile of its own; ended, with all it started, on the way out."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank", env=child_environment(HOME=str(profile)),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port, path = await eventually(lambda: _debugging_address(profile), "Chromium listens")
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=_MAX_FRAME_BYTES) as socket,
        ):
            tools = DevTools(socket)
            reading = asyncio.create_task(tools.read())
            try:
                yield tools
            finally:
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading
    finally:
        await end_process(process, grace_s=_GRACE_S)


async def _debugging_address(profile: Path) -> list[str] | None:
    """Port and path of the DevTools socket, once Chromium has written both."""
    try:
        lines = (profile / "DevToolsActivePort").read_text().split()
    except FileNotFoundError:
        return None
    return lines if len(lines) == 2 else None


async def new_page(tools: DevTools) -> Page:
    """An empty tab that is watched from its first request on."""
    context = (await tools.call("Target.createBrowserContext"))["browserContextId"]
    target = await tools.call("Target.createTarget", {"url": "about:blank", "browserContextId": context})
    attached = await tools.call("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
    page = Page(tools, context, attached["sessionId"])
    for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
        await page.call(f"{domain}.enable")
    return page
