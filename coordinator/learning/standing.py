"""How auto-learning stands: what the API and `cotrain learn status` tell."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from coordinator.chat_log import ChatLog
from coordinator.config import LearningSection
from coordinator.learning.cycles import Cycles
from coordinator.learning.place import Place
from coordinator.learning.student import Student, find_student
from coordinator.learning.views import LearningView
from coordinator.store import open_store
from coordinator.views import iso_time
from cotrain.errors import CotrainError
from cotrain.learn.versions import DatasetVersions
from cotrain.paths import SharedPaths


async def standing(place: Place) -> LearningView:
    """As whoever has the coordinator's data folder may see it."""
    async with open_store(place.database_url) as store:
        student = None
        with suppress(CotrainError):  # none is named, or it is not there: that is how it stands
            student = await find_student(store, place.config.learning.model)
        chats = ChatLog(store, kept=place.config.chat.kept)
        return await standing_of(student, place.config.learning, place.shared, chats, Cycles(store))


async def standing_of(
    student: Student | None, settings: LearningSection, shared: SharedPaths, chats: ChatLog, cycles: Cycles, *,
    running: bool = False, next_at: float | None = None,
) -> LearningView:  # fmt: skip
    """How it stands with the model that learns.

    Args:
        student: None where no model learns, for whoever asks.
        running: whether a cycle's process runs, besides a cycle that has not ended.
        next_at: when the next cycle begins by itself, in Unix seconds.
    """
    found = LearningView(
        model=None, promoted_version=None, automatic=settings.automatic, running=running,
        next_at=None if next_at is None else iso_time(next_at), chats=0, min_chats=settings.min_chats,
        max_size=settings.max_size, threshold=settings.threshold, dataset_version=None, dataset_size=0, held_out=0,
        last=None,
    )  # fmt: skip
    if student is None:
        return found
    unfinished = await cycles.unfinished()
    newest, _ = await cycles.newest_first(student.model, None, 1)
    found.model, found.promoted_version = student.model, await student.promoted()
    found.running = running or unfinished is not None
    found.chats = await chats.count(model=student.model)
    found.last = newest[0] if newest else None
    current = await asyncio.to_thread(DatasetVersions(shared.learned_dataset(student.model)).current)
    if current is not None:
        found.dataset_version = current.number
        found.dataset_size, found.held_out = current.train_size, current.held_out_size
    return found
