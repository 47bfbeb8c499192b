"""A session's curves: exact while they are new, thinner with age, and as many points as were asked for."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.models import MetricRow
from coordinator.store import Store

EXACT_ROUNDS = 10_000
"""Rounds behind the newest one whose points all stay."""
MAX_POINTS = 2000
"""Most points of one answer."""

_THIN_EVERY_S = 600.0
_DELETED_AT_ONCE = 500


class Point(NamedTuple):
    """A point as far as its choice goes."""

    round: int
    evaluated: bool
    """Whether it has a validation loss. There are few of these, so that they go before others."""


def stride(age: int) -> int:
    """How many rounds one point stands for, `age` rounds behind the newest: a power of two that doubles with the age.

    So n rounds keep at most EXACT_ROUNDS x (1 + log2(n / EXACT_ROUNDS) / 2) points, and one for each of these steps.
    """
    return 1 << (age // EXACT_ROUNDS).bit_length()


def staying(points: Iterable[Point], newest: int) -> set[int]:
    """Rounds whose points stay when `newest` is the newest round: of each stride the first evaluated one, or the first.

    Thinning often leaves what thinning once would have left, since a stride is made of whole smaller ones. Pure.
    """
    chosen: dict[tuple[int, int], Point] = {}
    for point in sorted(points):
        rounds = stride(newest - point.round)
        place = (rounds, point.round // rounds)
        if place not in chosen or (point.evaluated and not chosen[place].evaluated):
            chosen[place] = point
    return {point.round for point in chosen.values()}


def spread(points: Sequence[Point], most: int) -> list[int]:
    """At most `most` rounds (one or more) of `points`, which rise: evenly spread, the last one among them. Pure."""
    if len(points) <= most:
        return [point.round for point in points]
    earlier, parts = points[:-1], most - 1
    bounds = [part * len(earlier) // parts for part in range(parts)] + [len(earlier)] if parts else []
    pieces = [earlier[low:high] for low, high in itertools.pairwise(bounds)]
    firsts = [next((point for point in piece if point.evaluated), piece[0]) for piece in pieces]
    return [point.round for point in (*firsts, points[-1])]


async def curve(rows: AsyncSession, session: str, *, first: int, last: int, most: int) -> list[MetricRow]:
    """At most `most` points of the rounds `first` to `last`, in order."""
    wanted = spread(await _points(rows, session, first, last), most)
    found = await rows.scalars(
        select(MetricRow).where(MetricRow.session_id == session, MetricRow.round.in_(wanted)).order_by(MetricRow.round)
    )
    return list(found)


async def thin_forever(store: Store) -> None:
    """Thin what has grown old, from time to time, until cancelled."""
    while True:
        await thin(store)
        await asyncio.sleep(_THIN_EVERY_S)


async def thin(store: Store) -> int:
    """Delete the points that need not stay, of all sessions; returns how many."""
    query = (
        select(MetricRow.session_id, func.max(MetricRow.round))
        .group_by(MetricRow.session_id).having(func.count() > EXACT_ROUNDS)
    )  # fmt: skip
    async with store.read() as rows:
        long_ones = (await rows.execute(query)).all()
    return sum([await _thin_session(store, session, newest) for session, newest in long_ones])


async def _thin_session(store: Store, session: str, newest: int) -> int:
    async with store.read() as rows:
        old = await _points(rows, session, 0, newest - EXACT_ROUNDS)
    kept = staying(old, newest)
    surplus = [point.round for point in old if point.round not in kept]
    for start in range(0, len(surplus), _DELETED_AT_ONCE):  # in pieces: others want to write, too
        gone = MetricRow.round.in_(surplus[start : start + _DELETED_AT_ONCE])
        async with store.write() as transaction:
            await transaction.rows.execute(delete(MetricRow).where(MetricRow.session_id == session, gone))
    return len(surplus)


async def _points(rows: AsyncSession, session: str, first: int, last: int) -> list[Point]:
    found = await rows.execute(
        select(MetricRow.round, MetricRow.validation_loss.is_not(None))
        .where(MetricRow.session_id == session, MetricRow.round.between(first, last)).order_by(MetricRow.round)
    )  # fmt: skip
    return [Point(number, evaluated) for number, evaluated in found]
