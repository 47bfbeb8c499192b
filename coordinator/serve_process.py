"""One process that serves one version of a model to this coordinator, at a Unix socket that nobody else can open."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from coordinator.chat_models import ServedVersion
from coordinator.settings import Settings
from cotrain.chat_protocol import ChatRequest, ChatUnavailableError
from cotrain.process import child_environment, end_process

_logger = logging.getLogger(__name__)

_END_GRACE_S = 1.0
_LOG = "chat.log"
_URL = "http://chat/v1/chat/completions"


class ServeProcess:
    """A process, from its start to its end.

    Attributes:
        in_use: requests that it is answering.
        has_answered: whether it has answered any.
        last_used: when the last one began or ended, on the monotonic clock.
    """

    def __init__(self, settings: Settings, served: ServedVersion):
        self.served = served
        self.in_use = 0
        self.last_used = time.monotonic()
        self.has_answered = False
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._http: aiohttp.ClientSession | None = None
        # a socket's path must be short; the folder is for this user alone
        self._folder = Path(tempfile.mkdtemp(prefix="cotrain-chat-"))

    @property
    def pid(self) -> int | None:
        """None before it is started."""
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it, and wait until it answers. Raises ChatUnavailableError if it does not; it has ended then."""
        try:
            async with asyncio.timeout(self._settings.config.chat.start_limit_s):
                self._process = await self._spawn()
                said = await self._first_line(self._process)
        except TimeoutError as error:
            await self.end()
            raise ChatUnavailableError(
                f"{self.served.name} took too long to load", hint="the operator sets chat.start_limit_s"
            ) from error
        except OSError as error:
            await self.end()
            raise ChatUnavailableError(f"its process cannot be started: {error.strerror}") from error
        except asyncio.CancelledError:
            await self.end()
            raise
        if "ready" not in said:
            await self.end()
            raise self._failure(said.get("error", {}))
        connector = aiohttp.UnixConnector(str(self._socket), limit=0)
        self._http = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))

    async def ask(self, wanted: ChatRequest) -> aiohttp.ClientResponse:
        """Send a request; whoever is answered closes the response. Raises aiohttp.ClientConnectionError if it died."""
        assert self._http is not None
        body = wanted.model_copy(update={"model": self.served.name}).model_dump_json()
        response = await self._http.post(_URL, data=body, headers={"Content-Type": "application/json"})
        self.has_answered = True
        return response

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        assert self._process is not None
        return await self._process.wait()

    async def end(self) -> None:
        """End it, however far it has come; requests that it is answering break off."""
        # a task that is being cancelled must still see its child end
        await asyncio.shield(asyncio.create_task(self._end()))

    async def _end(self) -> None:
        if self._http is not None:
            await self._http.close()
        if self._process is not None:
            await end_process(self._process, grace_s=_END_GRACE_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _socket(self) -> Path:
        return self._folder / "http"

    async def _spawn(self) -> asyncio.subprocess.Process:
        chat = self._settings.config.chat
        environment = child_environment(OMP_NUM_THREADS=str(chat.threads))
        with (self._settings.shared.system_logs / _LOG).open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self._settings.serve_command, "--folder", str(self.served.folder.resolve()),
                "--name", self.served.name, "--socket", str(self._socket), "--running", str(chat.concurrent),
                "--waiting", str(chat.waiting), "--threads", str(chat.threads),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log, env=environment,
            )  # fmt: skip

    async def _first_line(self, process: asyncio.subprocess.Process) -> dict[str, Any]:
        """What it says of itself; nothing, where it ends without a word."""
        assert process.stdout is not None
        line = await process.stdout.readline()
        try:
            said = json.loads(line)
        except ValueError:
            return {}
        return said if isinstance(said, dict) else {}

    def _failure(self, said: Any) -> ChatUnavailableError:
        facts = said if isinstance(said, dict) else {}
        _logger.error("%s cannot be served: %s; its log: logs/system/%s", self.served.name, facts or "no word", _LOG)
        why = str(facts.get("message", "its process ended before it was ready"))
        return ChatUnavailableError(
            f"{self.served.name} {why.replace(f'{self._settings.shared.root}/', '')}",
            hint="choose another version; the operator finds its log in logs/system",
        )  # fmt: skip
