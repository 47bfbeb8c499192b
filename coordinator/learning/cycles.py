"""Learning cycles in the database."""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.learning.rows import LearningCycleRow, Trigger
from coordinator.learning.views import CycleFigures, CycleView, cycle_view
from coordinator.observability import LearningCounts
from coordinator.store import Store
from cotrain.status import now

Position = tuple[float, str]
"""Where a page of cycles begins: creation time and id of the last one seen."""


class Cycles:
    """The cycles of this coordinator; one at a time is under way."""

    def __init__(self, store: Store):
        self._store = store

    async def unfinished(self) -> LearningCycleRow | None:
        """The cycle that is under way, or was when its process ended."""
        async with self._store.read() as rows:
            return await unfinished(rows)

    async def begin(self, model: str, trigger: Trigger, *, base_version: int, chats_until: int) -> LearningCycleRow:
        """A new cycle, about to look at the chats up to a position."""
        created = now()
        row = LearningCycleRow(
            id=f"c-{secrets.token_hex(8)}", model_id=model, trigger=trigger, stage="collecting", figures={},
            base_version=base_version, chats_until=chats_until, message="", created_at=created, updated_at=created,
        )  # fmt: skip
        async with self._store.write() as transaction:
            transaction.rows.add(row)
        return row

    async def advance(self, cycle: LearningCycleRow, **changes: Any) -> LearningCycleRow:
        """Note what a stage has come to, and which one is next."""
        async with self._store.write() as transaction:
            return await advance(transaction.rows, cycle.id, **changes)

    async def last_trained(self, model: str) -> LearningCycleRow | None:
        """The newest cycle whose data a session has trained on to its end."""
        query = (
            select(LearningCycleRow)
            .where(LearningCycleRow.model_id == model, LearningCycleRow.outcome.in_(("promoted", "kept")))
            .order_by(LearningCycleRow.created_at.desc()).limit(1)
        )  # fmt: skip
        async with self._store.read() as rows:
            found: LearningCycleRow | None = await rows.scalar(query)
            return found

    async def counts(self) -> LearningCounts:
        """For Prometheus."""
        ended = select(LearningCycleRow.outcome, func.count()).where(LearningCycleRow.stage == "ended")
        newest = select(LearningCycleRow.figures).where(LearningCycleRow.dataset_version.is_not(None))
        async with self._store.read() as rows:
            counted = (await rows.execute(ended.group_by(LearningCycleRow.outcome))).all()
            figures = await rows.scalar(newest.order_by(LearningCycleRow.created_at.desc()).limit(1))
        by_outcome = {outcome: count for outcome, count in counted if outcome is not None}
        return LearningCounts(by_outcome, CycleFigures.model_validate(figures or {}).final_size)

    async def newest_first(
        self, model: str, before: Position | None, limit: int
    ) -> tuple[list[CycleView], Position | None]:
        """At most `limit` cycles of this model older than `before`, and where the next page begins."""
        query = (
            select(LearningCycleRow).where(LearningCycleRow.model_id == model)
            .order_by(LearningCycleRow.created_at.desc(), LearningCycleRow.id.desc()).limit(limit + 1)
        )  # fmt: skip
        if before is not None:
            query = query.where(tuple_(LearningCycleRow.created_at, LearningCycleRow.id) < before)
        async with self._store.read() as rows:
            found = list(await rows.scalars(query))
        page = found[:limit]
        return [cycle_view(row) for row in page], (page[-1].created_at, page[-1].id) if len(found) > limit else None


async def unfinished(rows: AsyncSession) -> LearningCycleRow | None:
    """The cycle that has not ended."""
    query = select(LearningCycleRow).where(LearningCycleRow.stage != "ended").order_by(LearningCycleRow.created_at)
    found: LearningCycleRow | None = await rows.scalar(query.limit(1))
    return found


async def advance(rows: AsyncSession, cycle: str, **changes: Any) -> LearningCycleRow:
    """The same within a transaction."""
    row = await rows.get_one(LearningCycleRow, cycle)
    for name, value in changes.items():
        setattr(row, name, value)
    row.updated_at = now()
    return row
