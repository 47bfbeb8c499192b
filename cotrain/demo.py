"""`cotrain demo`: a coordinator and N nodes on this machine train a small model, and say how it went.

Nothing here is special to the demo: it runs the same commands that people run, and asks the same REST API.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from cotrain.demo_chaos import Chaos
from cotrain.demo_summary import PRESETS, Summary, all_items, summarize, summary_lines
from cotrain.errors import CotrainError, UnreachableError
from cotrain.status import FINAL_STATES, replace_file

READY_TIMEOUT_S = 60.0
END_GRACE_S = 20.0
SAVING_GRACE_S = 120.0
"""For the coordinator to save the model once the nodes have finished."""
POLL_S = 0.5

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class DemoFailedError(CotrainError):
    """The demo did not reach its end; the message names the process that failed and its log."""

    code = "demo-failed"
    exit_code = 70


@dataclass
class Options:
    """The knobs of the demo."""

    peers: int
    preset: str
    folder: Path
    keep: bool
    report: Path | None
    chaos_seed: int | None = None
    """Of the moments at which nodes are killed and stopped; None: they are left in peace."""


@app.command()
def demo(
    peers: Annotated[int | None, typer.Option(min=1, max=16, help="Nodes to start: 2, with --chaos 4.")] = None,
    preset: Annotated[str, typer.Option(help=f"How much to train: {', '.join(PRESETS)}.")] = "nano",
    report: Annotated[Path | None, typer.Option(help="Write the summary as JSON to this file.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the coordinator up until Ctrl-C.")] = False,
    folder: Annotated[Path, typer.Option(help="Where this and earlier demos keep their files.")] = Path(".demo"),
    chaos: Annotated[bool, typer.Option("--chaos", help="Kill nodes (-9) and stop them while they train.")] = False,
    chaos_seed: Annotated[int, typer.Option(help="Decides which, when and for how long.")] = 0,
) -> None:
    """A coordinator and some nodes on this machine train a small model together."""
    if preset not in PRESETS:
        raise typer.BadParameter(f"{preset!r} is not one of {', '.join(PRESETS)}", param_hint="--preset")
    if chaos and peers == 1:
        raise typer.BadParameter("chaos needs a node that goes on while another is away", param_hint="--peers")
    place = folder.resolve() / time.strftime("%Y%m%d-%H%M%S")
    options = Options(peers or (4 if chaos else 2), preset, place, keep, report, chaos_seed if chaos else None)
    raise typer.Exit(asyncio.run(run(options)))


async def run(options: Options) -> int:
    """The whole demo; returns the exit code."""
    task = asyncio.current_task()
    assert task is not None
    received: list[signal.Signals] = []
    for number in (signal.SIGINT, signal.SIGTERM):

        def interrupt(number: signal.Signals = number) -> None:
            received.append(number)
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(number, interrupt)
    try:
        return await Demo(options).run()
    except asyncio.CancelledError:
        if not received:
            raise
        print("\nended; everything that was started has been stopped", file=sys.stderr)
        return 128 + received[0]


@dataclass
class Child:
    """A process of the demo, its output in a log file."""

    name: str
    log: Path
    process: asyncio.subprocess.Process


@dataclass
class Demo:
    """One run of the demo."""

    options: Options
    nodes: list[Child] = field(default_factory=list)
    chaos: Chaos | None = None
    nodes_ended_at: float | None = None

    async def run(self) -> int:
        """Start everything, follow the session to its end, sum up, stop everything."""
        options = self.options
        options.folder.mkdir(parents=True)
        started = time.monotonic()
        print(f"cotrain demo: {options.peers} nodes, preset {options.preset}; files and logs in {options.folder}")
        async with self._coordinator() as url, Api(url) as api:
            print(f"dashboard: {url}")
            await api.sign_in(options.folder / "owner")
            session = await api.post("/api/v1/sessions", PRESETS[options.preset].request(options.peers))
            await api.post(f"/api/v1/sessions/{session['id']}/start")
            try:
                for number in range(1, options.peers + 1):
                    self.nodes.append(await self._start_node(number, session["url"]))
                self._prepare_chaos(session["url"])
                await self._follow(api, session["id"])
                if self.chaos is not None:
                    await self.chaos.finish()
                await self._await_nodes()
                summary = await summarize(api.get, session["id"], wall_s=time.monotonic() - started)
            finally:
                if self.chaos is not None:
                    await self.chaos.close()
                await asyncio.gather(*(_end(node) for node in self.nodes))
            self._show(summary, url)
            if options.keep:
                print(f"\nThe coordinator stays up at {url}; Ctrl-C ends it.")
                await asyncio.Event().wait()
        return 0

    @asynccontextmanager
    async def _coordinator(self) -> AsyncIterator[str]:
        child = await self._start(
            "coordinator", ["coordinator", "serve", "--host", "127.0.0.1", "--port", "0", "--json"], {}
        )
        try:
            yield await _read_url(child)
        finally:
            await _end(child)

    async def _start_node(self, number: int, url: str) -> Child:
        home = self.options.folder / f"node-{number}" / "home"
        name = f"node-{number}"
        return await self._start(
            name, ["node", "join", url, "--json", "--threads", "1", "--name", name], {"COTRAIN_HOME": str(home)}
        )

    def _prepare_chaos(self, url: str) -> None:
        if self.options.chaos_seed is None:
            return

        async def restart(index: int) -> asyncio.subprocess.Process:
            self.nodes[index] = await self._start_node(index + 1, url)  # the same home: the same identity
            return self.nodes[index].process

        self.chaos = Chaos(self.options.chaos_seed, [node.process for node in self.nodes], restart)

    async def _start(self, name: str, arguments: list[str], extra: dict[str, str]) -> Child:
        from cotrain.process import child_environment

        folder = self.options.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "output.log"
        environment = child_environment(COTRAIN_SHARED=str(folder / "shared"), **extra)
        environment.pop("COTRAIN_DATABASE_URL", None)  # the demo's own database, in its own folder
        with log.open("ab") as output:  # a node that is started again goes on in it
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "cotrain.cli", *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=output,
                stderr=asyncio.subprocess.STDOUT, env=environment, start_new_session=True,
            )  # fmt: skip
        return Child(name, log, process)

    # ------------------------------------------------------------------------------------------ while it runs
    async def _follow(self, api: Api, session: str) -> None:
        """Show the progress until the session has ended."""
        from cotrain.demo_display import DemoDisplay

        with DemoDisplay() as display:
            while True:
                try:
                    view = await api.get(f"/api/v1/sessions/{session}/progress")
                    participants = await all_items(api.get, f"/api/v1/sessions/{session}/participants")
                except UnreachableError:
                    display.show_away()  # nodes train on without a coordinator: do not end them
                else:
                    display.show(view, participants)
                    if view["status"] in FINAL_STATES:
                        break
                    if self.chaos is not None:
                        self.chaos.note_progress(view["round"], view["processRate"])
                self._check_nodes()
                await asyncio.sleep(POLL_S)
        if view["status"] != "completed":
            reason = view["errorMsg"] or "see the coordinator's log"
            raise DemoFailedError(f"the session is {view['status']}: {reason}", field=str(self.options.folder))

    def _check_nodes(self) -> None:
        """One node may fail, the others go on; without any, nobody would ever finish.

        Those that have finished leave a coordinator that is still saving the model.
        """
        ended = [node for node in self.nodes if node.process.returncode is not None]
        if not ended or len(ended) < len(self.nodes):
            return
        if self.nodes_ended_at is None:
            self.nodes_ended_at = time.monotonic()
        finished = any(node.process.returncode == 0 for node in ended)
        if not finished or time.monotonic() - self.nodes_ended_at > SAVING_GRACE_S:
            raise DemoFailedError(
                f"all nodes have ended; the last lines of {ended[0].name}: {_tail(ended[0].log)}",
                field=str(ended[0].log),
            )

    async def _await_nodes(self) -> None:
        for node in self.nodes:
            try:
                await asyncio.wait_for(node.process.wait(), END_GRACE_S)
            except TimeoutError:
                raise DemoFailedError(
                    f"{node.name} did not end within {END_GRACE_S:.0f} s after the session", field=str(node.log)
                ) from None

    def _show(self, summary: Summary, url: str) -> None:
        print("\n".join(summary_lines(summary)))
        if self.chaos is not None:
            print(f"  chaos            {self.chaos.told()}")
        print(f"  dashboard        {url} (while it is up; `cotrain demo --keep` leaves it up)")
        if self.options.report is not None:
            content = json.dumps(summary.model_dump(by_alias=True), indent=2) + "\n"
            replace_file(self.options.report.resolve(), content.encode())
        if self.chaos is not None and not summary.digests_equal:
            raise DemoFailedError("the outer states parted under chaos", field=str(self.options.folder))


class Api:
    """The coordinator's REST API, as the demo needs it."""

    def __init__(self, url: str):
        self._url = url

    async def __aenter__(self) -> Api:
        import aiohttp

        self._client = aiohttp.ClientSession(self._url, timeout=aiohttp.ClientTimeout(total=30))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def sign_in(self, home: Path) -> None:
        """As the wallet in the folder, which is made if there is none: what is opened from now on is its own."""
        from cotrain.identity.wallet import WalletOptions, open_wallet
        from node.client import CoordinatorClient

        async with CoordinatorClient(self._url) as client:
            token = await client.sign_in(open_wallet(home, WalletOptions(), ask=None))
        self._client.headers["Authorization"] = f"Bearer {token}"

    async def get(self, path: str) -> dict[str, Any]:
        return await self._call("GET", path)

    async def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return await self._call("POST", path, json=body)

    async def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """The JSON answer. Raises DemoFailedError for a refusal, UnreachableError without an answer."""
        import aiohttp

        try:
            async with self._client.request(method, path, **arguments) as response:
                answer: dict[str, Any] = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnreachableError(f"the coordinator does not answer: {error!r}", field=self._url + path) from error
        if response.status >= 400:
            raise DemoFailedError(str(answer.get("detail", answer)), field=path)
        return answer


async def _read_url(child: Child) -> str:
    """The address in the coordinator's first line of JSON."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and child.process.returncode is None:
        for line in child.log.read_text().splitlines():
            if line.startswith("{"):
                return str(json.loads(line)["url"])
        await asyncio.sleep(0.05)
    raise DemoFailedError(f"the coordinator did not start: {_tail(child.log)}", field=str(child.log))


async def _end(child: Child) -> None:
    from cotrain.process import end_process

    await asyncio.shield(asyncio.create_task(end_process(child.process, grace_s=END_GRACE_S)))


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return " | ".join(lines[-3:]) or "nothing was written"
