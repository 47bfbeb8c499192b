"""A learning cycle, stage by stage: what a stage has done is on disk before the next one begins, and each may be done
again after a crash without doing anything twice."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

from coordinator.chat_log import ChatLog
from coordinator.config import LearningSection
from coordinator.learning.api import OwnApi
from coordinator.learning.cycles import Cycles, advance
from coordinator.learning.data import data_path, make_version, tokens_of, untrained_samples
from coordinator.learning.decide import HELD_OUT_BATCHES, is_significant, sequence_length, session_request, verdict
from coordinator.learning.likelihood import served_perplexity
from coordinator.learning.rows import LearningCycleRow, Stage, Trigger
from coordinator.learning.student import Student
from coordinator.learning.views import CycleView, cycle_view
from coordinator.model_rows import ModelVersionRow
from coordinator.store import Store
from cotrain.config import parse_config
from cotrain.errors import ConflictError, CotrainError, NotFoundError
from cotrain.learn.log import append_once
from cotrain.learn.versions import DatasetVersions
from cotrain.paths import SharedPaths
from cotrain.status import FINAL_STATES

_TOKENIZER = "tokenizer.json"
MOST_CHATS = 100_000
"""That one cycle looks at."""


@dataclass(frozen=True)
class TooFewChats:
    """Nothing was begun."""

    chats: int
    wanted: int


class Learner:
    """Carries out cycles for one model.

    Args:
        student: the model that learns.
        say: told in one line what is being done.
    """

    def __init__(
        self, settings: LearningSection, shared: SharedPaths, store: Store, chats: ChatLog, api: OwnApi,
        student: Student, say: Callable[[str], None],
    ):  # fmt: skip
        self._settings = settings
        self._shared = shared
        self._store = store
        self._chats = chats
        self._api = api
        self._student = student
        self._say = say
        self._cycles = Cycles(store)
        self._versions = DatasetVersions(shared.learned_dataset(student.model))
        self._stages: Mapping[Stage, Callable[[LearningCycleRow], Awaitable[LearningCycleRow]]] = {
            "collecting": self._collect, "switching": self._switch, "training": self._train,
            "evaluating": self._evaluate, "promoting": self._promote, "reporting": self._report,
        }  # fmt: skip

    async def run(self, trigger: Trigger) -> CycleView | TooFewChats:
        """Go on with the cycle that was begun, or do a new one, to its end.

        Raises CotrainError where the cycle cannot go on for now: it is taken up again by the next call.
        """
        cycle = await self._cycles.unfinished()
        if cycle is None:
            begun = await self._begin(trigger)
            if isinstance(begun, TooFewChats):
                return begun
            cycle = begun
        elif cycle.model_id != self._student.model:
            raise ConflictError(
                f"a cycle of the model {cycle.model_id} has not ended", field="learning.model",
                hint="name that model again until it has",
            )  # fmt: skip
        else:
            self._say(f"going on with cycle {cycle.id}: {cycle.stage}")
        while cycle.stage != "ended":
            cycle = await self._stages[cycle.stage](cycle)
        return cycle_view(cycle)

    async def _begin(self, trigger: Trigger) -> LearningCycleRow | TooFewChats:
        chats = await self._chats.oldest(MOST_CHATS, model=self._student.model)
        if len(chats) < self._settings.min_chats:
            return TooFewChats(len(chats), self._settings.min_chats)
        base = await self._student.served()
        until = chats[-1].position
        return await self._cycles.begin(self._student.model, trigger, base_version=base.version, chats_until=until)

    # ------------------------------------------------------------------------------------------- the data
    async def _collect(self, cycle: LearningCycleRow) -> LearningCycleRow:
        """Write the next version of the data; nobody reads it yet."""
        logged = await self._chats.oldest(MOST_CHATS, model=cycle.model_id)
        chats = [chat for chat in logged if chat.position <= cycle.chats_until]
        self._say(f"cycle {cycle.id}: {len(chats)} chats")
        base = await self._base(cycle) if self._settings.perplexity else None
        judge = nullcontext() if base is None else served_perplexity(self._shared.root / base.path)
        with judge as perplexity:
            number, figures = await asyncio.to_thread(
                make_version, self._versions, cycle.id, chats, self._settings, perplexity
            )
        return await self._cycles.advance(
            cycle, stage="switching", dataset_version=number, figures=figures.model_dump(by_alias=True)
        )

    async def _switch(self, cycle: LearningCycleRow) -> LearningCycleRow:
        """Make that version the current one; only then the chats may go."""
        assert cycle.dataset_version is not None
        await asyncio.to_thread(self._versions.switch, self._versions.get(cycle.dataset_version))
        trained = await self._cycles.last_trained(cycle.model_id)
        base = None if trained is None else trained.dataset_version
        new, size = await asyncio.to_thread(untrained_samples, self._versions, cycle.dataset_version, base)
        figures = {**cycle.figures, "seqLength": await self._sequence_length(cycle)}
        if figures["seqLength"] is None:
            message = "what is held out is too short for a sample: more chats have to come"
        elif not is_significant(new, size - new, self._settings):
            message = f"{new} samples have not been trained on yet, of {size}: too few for a session"
        else:
            message = ""
        changes = {"stage": "reporting", "outcome": "not-significant"} if message else {"stage": "training"}
        async with self._store.write() as transaction:
            await self._chats.clear(cycle.chats_until, model=cycle.model_id, rows=transaction.rows)
            return await advance(transaction.rows, cycle.id, figures=figures, message=message, **changes)

    async def _sequence_length(self, cycle: LearningCycleRow) -> int | None:
        """Raises NotFoundError if the files of the base version are gone, ConfigError."""
        base = await self._base(cycle)
        tokenizer = self._shared.root / base.path / _TOKENIZER
        tokens = await asyncio.to_thread(tokens_of, self._versions, cycle.dataset_version or 0, tokenizer)
        return sequence_length(parse_config(base.config).data.seq_length, *tokens)

    async def _base(self, cycle: LearningCycleRow) -> ModelVersionRow:
        """The version that the cycle goes on from. Raises NotFoundError if its files are gone."""
        base = await self._student.version(cycle.base_version or 0)
        if not base.path:
            raise NotFoundError(f"the files of version {base.version} have been removed", field="base version")
        return base

    # ------------------------------------------------------------------------------------------- the model
    async def _train(self, cycle: LearningCycleRow) -> LearningCycleRow:
        """Have volunteers train on it, in a session like any other."""
        try:
            if cycle.session_id is None:
                view = await self._api.post("sessions", await self._request(cycle), key=f"{cycle.id}-open")
                cycle = await self._cycles.advance(cycle, session_id=view["id"])
                self._say(f"cycle {cycle.id}: volunteers join with: {view['joinCommand']}")
            ended = await self._session_end(cycle.session_id or "")
            made = await self._student.version_of(ended["id"])
        except CotrainError as error:
            return await self._fail(cycle, f"no session has trained on the data: {error}")
        if made is None:
            reason = f": {ended['errorMsg']}" if ended["errorMsg"] else ""
            return await self._fail(cycle, f"session {ended['id']} is {ended['status']} without a model{reason}")
        return await self._cycles.advance(cycle, stage="evaluating", new_version=made)

    async def _session_end(self, session: str) -> dict[str, str]:
        """Start it, unless that was done, and wait for its end. Raises what the coordinator answers."""
        view = await self._api.get(f"sessions/{session}")
        if view["status"] == "draft":
            await self._api.post(f"sessions/{session}/start", key=f"{session}-start")
        try:
            async with asyncio.timeout(self._settings.session_limit_s):
                return await self._api.session_end(session)
        except TimeoutError:
            view = await self._api.get(f"sessions/{session}")
            if view["status"] not in FINAL_STATES:
                self._say(f"session {session} has taken {self._settings.session_limit_s:g} s: it is stopped")
                action = "stop" if "stop" in view["possibleActions"] else "cancel"
                await self._api.post(f"sessions/{session}/{action}")
            return await self._api.session_end(session)

    async def _request(self, cycle: LearningCycleRow) -> dict[str, object]:
        """Raises NotFoundError if the files of the base version are gone."""
        base = await self._base(cycle)
        folder = (self._shared.root / base.path).relative_to(self._shared.final_models.parent)
        assert cycle.dataset_version is not None
        data = data_path(self._shared, self._versions.get(cycle.dataset_version))
        return session_request(
            self._settings.request, name=self._student.name, visibility=base.visibility, cycle=cycle.id,
            source=str(folder), data_path=data, seq_length=cycle.figures["seqLength"], base=parse_config(base.config),
        )  # fmt: skip

    async def _evaluate(self, cycle: LearningCycleRow) -> LearningCycleRow:
        """Measure both versions on samples that neither has seen."""
        try:
            if cycle.old_loss is None:
                cycle = await self._cycles.advance(cycle, old_loss=await self._loss(cycle, cycle.base_version))
            if cycle.new_loss is None:
                cycle = await self._cycles.advance(cycle, new_loss=await self._loss(cycle, cycle.new_version))
        except CotrainError as error:
            return await self._fail(cycle, f"the versions could not be compared: {error}")
        return await self._cycles.advance(cycle, stage="promoting")

    async def _loss(self, cycle: LearningCycleRow, version: int | None) -> float:
        """Validation loss of a version on the held-out samples. Raises what the coordinator answers."""
        assert cycle.dataset_version is not None
        wanted = {
            "version": version, "batches": HELD_OUT_BATCHES, "seqLength": cycle.figures["seqLength"],
            "dataPath": data_path(self._shared, self._versions.get(cycle.dataset_version)),
        }  # fmt: skip
        job = await self._api.post(f"models/{cycle.model_id}/evaluate", wanted, key=f"{cycle.id}-evaluate-{version}")
        result = await self._api.job_end(job["id"])
        loss = result["metrics"].get("validationLoss")
        if loss is None or not math.isfinite(loss):
            raise ConflictError(f"version {version} has no finite loss on what is held out", field="validationLoss")
        self._say(f"cycle {cycle.id}: version {version} has a loss of {loss:.4f}")
        return float(loss)

    async def _promote(self, cycle: LearningCycleRow) -> LearningCycleRow:
        """Have the better version served."""
        assert cycle.old_loss is not None
        assert cycle.new_loss is not None
        outcome, message = verdict(cycle.old_loss, cycle.new_loss)
        if outcome == "promoted":
            try:
                await self._api.post(f"models/{cycle.model_id}/promote", {"version": cycle.new_version})
            except CotrainError as error:
                return await self._fail(cycle, f"version {cycle.new_version} is better, but not served: {error}")
        return await self._cycles.advance(cycle, stage="reporting", outcome=outcome, message=message)

    async def _fail(self, cycle: LearningCycleRow, message: str) -> LearningCycleRow:
        """The data stay; the next session learns from them, too."""
        return await self._cycles.advance(cycle, stage="reporting", outcome="failed", message=message)

    async def _report(self, cycle: LearningCycleRow) -> LearningCycleRow:
        record = cycle_view(cycle).model_copy(update={"stage": "ended"}).model_dump(by_alias=True)
        await asyncio.to_thread(append_once, self._shared.enhancement_log, record, "id")
        await asyncio.to_thread(self._versions.prune)
        return await self._cycles.advance(cycle, stage="ended")
