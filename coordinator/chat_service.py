"""The pool of processes that answer chats: started when somebody asks, changed over without losing a request.

There are at most `[chat] loaded` versions in memory, and one more while another takes over: the new one is loaded
beside the old one, which takes no new requests from then on, answers those that it has, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

import aiohttp

from coordinator.chat_models import ServedVersion
from coordinator.checkpointer_process import restart_delay
from coordinator.problem import RETRY_AFTER
from coordinator.serve_process import ServeProcess
from coordinator.settings import Settings
from cotrain.chat_protocol import BusyError, ChatRequest, ChatUnavailableError

_logger = logging.getLogger(__name__)

_TRIES = 2
"""Of a request whose process dies before it answers."""


class _Failures:
    """When a version that fails may be tried again."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._known: dict[str, tuple[int, float]] = {}
        """By name: how often in a row, and until when to wait."""

    def note(self, name: str, *, at_once: bool) -> None:
        """It failed; `at_once`: the first time in a row costs no wait."""
        count = self._known.get(name, (0, 0.0))[0] + 1
        delay = restart_delay(
            count, self._settings.restart_delay_s, self._settings.restart_delay_limit_s, random.random()
        )
        self._known[name] = count, time.monotonic() + (0.0 if at_once and count == 1 else delay)

    def forget(self, name: str) -> None:
        """It has been well."""
        self._known.pop(name, None)

    def check(self, name: str) -> None:
        """Raises ChatUnavailableError, which says when to come back, while it must wait."""
        wait_s = self._known.get(name, (0, 0.0))[1] - time.monotonic()
        if wait_s > 0.0:
            seconds = math.ceil(wait_s)
            raise ChatUnavailableError(
                f"{name} failed a moment ago", hint=f"try again in {seconds} s", details={RETRY_AFTER: seconds}
            )


class ChatService:
    """The processes of one coordinator. Nothing is started before somebody asks."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._failures = _Failures(settings)
        self._ready: dict[str, ServeProcess] = {}
        """By name: those that take requests."""
        self._retiring: set[ServeProcess] = set()
        """Those that only answer what they have."""
        self._starting: dict[str, asyncio.Task[ServeProcess]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._none_retires = asyncio.Event()
        self._none_retires.set()
        self._watching: set[asyncio.Task[None]] = set()
        self._waiting = 0

    @property
    def processes(self) -> dict[str, int | None]:
        """Process ids by the names of the versions that take requests."""
        return {name: process.pid for name, process in self._ready.items()}

    def in_use(self, name: str) -> int:
        """Requests that a version is answering; 0 where it takes none."""
        process = self._ready.get(name)
        return 0 if process is None else process.in_use

    @contextlib.asynccontextmanager
    async def asking(
        self, candidates: Sequence[ServedVersion], wanted: ChatRequest
    ) -> AsyncIterator[tuple[ServedVersion, aiohttp.ClientResponse]]:
        """Who answers, and the response that is being read; leaving the context lets go of it.

        Args:
            candidates: the version that is meant, and behind it those that may answer until it is loaded.

        Raises ChatUnavailableError, BusyError. What breaks off later is an aiohttp.ClientError.
        """
        async with contextlib.AsyncExitStack() as stack:
            process, response = await self._ask(stack, candidates, wanted)
            stack.callback(response.close)
            yield process.served, response

    async def close(self) -> None:
        """End all processes."""
        for task in self._starting.values():
            task.cancel()
        await asyncio.gather(*self._starting.values(), return_exceptions=True)
        processes = [*self._ready.values(), *self._retiring]
        self._ready.clear()
        await asyncio.gather(*(process.end() for process in processes))
        await asyncio.gather(*self._watching)

    async def _ask(
        self, stack: contextlib.AsyncExitStack, candidates: Sequence[ServedVersion], wanted: ChatRequest
    ) -> tuple[ServeProcess, aiohttp.ClientResponse]:
        for _ in range(_TRIES):
            process = await self._taken(candidates)
            stack.callback(self._release, process)
            try:
                return process, await process.ask(wanted)
            except aiohttp.ClientConnectionError:
                _logger.warning("%s has gone before it answered", process.served.name)
                self._drop(process)
        raise ChatUnavailableError("the model's process ended before it answered", hint="try again in a moment")

    async def _taken(self, candidates: Sequence[ServedVersion]) -> ServeProcess:
        """A process that counts a request more. To be released."""
        while True:
            process = self._ready.get(candidates[0].name)
            if process is None or not process.alive:
                process = self._stand_in(candidates) or await self._started(candidates[0])
            # one that was waited for may have been retired since
            if process.alive and self._ready.get(process.served.name) is process:
                process.in_use += 1
                process.last_used = time.monotonic()
                return process

    def _release(self, process: ServeProcess) -> None:
        process.in_use -= 1
        process.last_used = time.monotonic()
        if process in self._retiring and process.in_use == 0:
            self._watch(self._end(process))

    def _stand_in(self, candidates: Sequence[ServedVersion]) -> ServeProcess | None:
        """Another version that answers while the one that is meant is loaded, or cannot be."""
        for other in candidates[1:]:
            process = self._ready.get(other.name)
            if process is not None and process.alive:
                with contextlib.suppress(ChatUnavailableError):  # it stays until the other one can be had
                    self._start(candidates[0])
                return process
        return None

    async def _started(self, wanted: ServedVersion) -> ServeProcess:
        """Raises ChatUnavailableError, and BusyError where too many wait for it."""
        chat = self._settings.config.chat
        if self._waiting >= chat.concurrent + chat.waiting:
            raise BusyError("too many chats wait for a model to be loaded", hint="try again in a moment")
        starting = self._start(wanted)
        self._waiting += 1
        try:
            # as long for those that have to end before it as for itself
            async with asyncio.timeout(2 * chat.start_limit_s):
                return await asyncio.shield(starting)
        except TimeoutError as error:
            raise BusyError("other models are at work", hint="try again in a moment") from error
        finally:
            self._waiting -= 1

    def _start(self, wanted: ServedVersion) -> asyncio.Task[ServeProcess]:
        found = self._starting.get(wanted.name)
        if found is None:
            self._failures.check(wanted.name)
            found = asyncio.create_task(self._start_in_turn(wanted), name=f"chat {wanted.name}")
            self._starting[wanted.name] = found
            found.add_done_callback(lambda task: self._start_ended(wanted, task))
        return found

    def _start_ended(self, wanted: ServedVersion, task: asyncio.Task[ServeProcess]) -> None:
        del self._starting[wanted.name]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.note(wanted.name, at_once=False)
            _logger.error("%s could not be loaded: %s", wanted.name, error)

    async def _start_in_turn(self, wanted: ServedVersion) -> ServeProcess:
        async with self._one_at_a_time:
            await self._none_retires.wait()
            await self._make_room(wanted)
            process = ServeProcess(self._settings, wanted)
            await process.start()
            self._ready[wanted.name] = process
            self._watch(self._until_it_ends(process))
            _logger.info("%s answers chats", wanted.name)
            while len(self._ready) > self._settings.config.chat.loaded:
                self._retire(self._least_recently_used(beside=process))
            return process

    async def _make_room(self, wanted: ServedVersion) -> None:
        """End idle ones first, to have their memory; not those that answer in the place of the wanted one."""
        while len(self._ready) >= self._settings.config.chat.loaded:
            idle = [
                process for process in self._ready.values()
                if process.in_use == 0 and process.served.model != wanted.model
            ]  # fmt: skip
            if not idle:
                return
            self._retire(min(idle, key=lambda process: process.last_used))
            await self._none_retires.wait()

    def _least_recently_used(self, beside: ServeProcess) -> ServeProcess:
        """Older versions of the same model go first."""
        others = [process for process in self._ready.values() if process is not beside]
        return min(others, key=lambda process: (process.served.model != beside.served.model, process.last_used))

    def _retire(self, process: ServeProcess) -> None:
        """No more requests; it ends once it has answered those that it has."""
        del self._ready[process.served.name]
        self._retiring.add(process)
        self._none_retires.clear()
        if process.in_use == 0:
            self._watch(self._end(process))

    async def _end(self, process: ServeProcess) -> None:
        await process.end()
        self._retiring.discard(process)
        if not self._retiring:
            self._none_retires.set()
        _logger.info("%s answers no more chats", process.served.name)

    async def _until_it_ends(self, process: ServeProcess) -> None:
        code = await process.wait()
        if self._ready.get(process.served.name) is process:
            _logger.error("the process of %s ended with exit code %s", process.served.name, code)
            self._drop(process)

    def _drop(self, process: ServeProcess) -> None:
        """It died, or does not answer: the next request has another one started."""
        name = process.served.name
        if self._ready.get(name) is not process:
            return
        del self._ready[name]
        if process.has_answered:
            self._failures.forget(name)
        self._failures.note(name, at_once=True)
        self._watch(process.end())

    def _watch(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)
