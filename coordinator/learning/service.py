"""Auto-learning as the coordinator runs it: when a cycle begins, and the process that carries it out."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from pydantic import ValidationError
from sqlalchemy import ColumnElement, select

from coordinator.chat_log import ChatLog
from coordinator.learning.cycles import Cycles, Position
from coordinator.learning.rows import Trigger
from coordinator.learning.standing import standing_of
from coordinator.learning.student import Student, find_student
from coordinator.learning.task import CycleDone, CycleTask
from coordinator.learning.views import CycleView, LearningView
from coordinator.model_rows import ModelVersionRow
from coordinator.settings import Settings
from coordinator.store import Store
from cotrain.backoff import Backoff
from cotrain.errors import ConflictError, CotrainError
from cotrain.process import child_environment, end_process
from cotrain.status import now

_logger = logging.getLogger(__name__)

_END_GRACE_S = 1.0
_LOG = "learning.log"
_AGAIN = Backoff(first_s=5.0, most_s=600.0)
"""Between the tries of a cycle that could not go on."""


class Learning:
    """The learning cycles of this coordinator, one at a time, each in a process of its own."""

    def __init__(self, store: Store, settings: Settings, chats: ChatLog):
        self._store = store
        self._settings = settings
        self._learning = settings.config.learning
        self._chats = chats
        self.cycles = Cycles(store)
        self._asked = asyncio.Event()
        self._running = False
        self._next_at: float | None = None

    async def ask(self) -> None:
        """Begin a cycle soon. Raises ConflictError if one is under way, and what `find_student` raises."""
        await find_student(self._store, self._learning.model)
        if self._running or self._asked.is_set() or await self.cycles.unfinished() is not None:
            raise ConflictError("a cycle is under way", hint="wait for it: GET /api/v1/learning")
        self._asked.set()

    async def view(self, seen: ColumnElement[bool]) -> LearningView:
        """How it stands, for whoever sees these versions (`Invitations.versions_seen`)."""
        return await standing_of(
            await self._student(seen), self._learning, self._settings.shared, self._chats, self.cycles,
            running=self._running or self._asked.is_set(), next_at=self._next_at,
        )  # fmt: skip

    async def log(
        self, seen: ColumnElement[bool], before: Position | None, limit: int
    ) -> tuple[list[CycleView], Position | None]:
        """A page of the cycles of the model that learns; none for whoever sees none of its versions."""
        student = await self._student(seen)
        return ([], None) if student is None else await self.cycles.newest_first(student.model, before, limit)

    async def _student(self, seen: ColumnElement[bool]) -> Student | None:
        with suppress(CotrainError):  # none is named, or it is not there yet
            student = await find_student(self._store, self._learning.model)
            query = select(ModelVersionRow.version).where(ModelVersionRow.model_id == student.model, seen).limit(1)
            async with self._store.read() as rows:
                return None if await rows.scalar(query) is None else student
        return None

    # -------------------------------------------------------------------------------------- in the background
    async def run(self) -> None:
        """Carry out cycles when they are due or asked for; first the one that the last coordinator left."""
        failures = 0
        trigger: Trigger | None = None if await self.cycles.unfinished() is None else "timer"
        while True:
            trigger = trigger or await self._next_trigger()
            done = await self._carry_out(trigger)
            _logger.info("auto-learning: %s", done.message)
            trigger = None
            if done.failed and await self.cycles.unfinished() is not None:
                await asyncio.sleep(_AGAIN.delay_s(failures))
                failures, trigger = failures + 1, "timer"
            else:
                failures = 0

    async def _next_trigger(self) -> Trigger:
        """Wait until a cycle is due or asked for."""
        interval_s = self._learning.interval_s if self._learning.automatic else None
        self._next_at = None if interval_s is None else now() + interval_s
        try:
            async with asyncio.timeout(interval_s):
                await self._asked.wait()
        except TimeoutError:
            return "timer"
        finally:
            self._next_at = None
        return "request"

    async def _carry_out(self, trigger: Trigger) -> CycleDone:
        self._running = True
        self._asked.clear()
        try:
            return await self._in_process(trigger)
        except OSError as error:
            return CycleDone(message=f"its process cannot be started: {error.strerror}", failed=True)
        finally:
            self._running = False

    async def _in_process(self, trigger: Trigger) -> CycleDone:
        settings = self._settings
        task = CycleTask(
            shared=str(settings.shared.root), database_url=settings.resolved_database_url, trigger=trigger,
            url=(self._learning.url or settings.public_url).rstrip("/"), config=settings.config,
        )  # fmt: skip
        with (settings.shared.system_logs / _LOG).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *settings.learning_command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                env=child_environment(),
            )  # fmt: skip
        output = b""
        try:
            output, _ = await process.communicate(task.model_dump_json(by_alias=True).encode())
        finally:
            # a task that is being cancelled must still see its child end
            code = await asyncio.shield(asyncio.create_task(end_process(process, grace_s=_END_GRACE_S)))
        try:
            return CycleDone.model_validate_json(output.strip().rpartition(b"\n")[2])
        except ValidationError:
            return CycleDone(message=f"its process ended with exit code {code}; see logs/system/{_LOG}", failed=True)
