"""Which points of a session's curves stay, and which are shown."""

from __future__ import annotations

import itertools
import math

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from coordinator.metrics import EXACT_ROUNDS, Point, curve, spread, staying, stride, thin
from coordinator.models import MetricRow
from coordinator.store import Store
from tests.databases import BOTH
from tests.unit.test_coordinator_store import session_row

ROUNDS = st.sets(st.integers(0, 200_000), min_size=1, max_size=200)


def points_of(rounds: set[int], every: int = 7) -> list[Point]:
    return [Point(number, number % every == 0) for number in sorted(rounds)]


@given(ROUNDS)
def test_the_newest_rounds_all_stay(rounds: set[int]) -> None:
    newest = max(rounds)
    assert {r for r in rounds if newest - r < EXACT_ROUNDS} <= staying(points_of(rounds), newest) <= rounds


@given(ROUNDS, st.integers(0, 300_000), st.integers(0, 300_000))
def test_thinning_twice_leaves_what_thinning_once_leaves(rounds: set[int], sooner: int, later: int) -> None:
    points, newest = points_of(rounds), max(rounds)
    first = staying(points, newest + min(sooner, later))
    left = [point for point in points if point.round in first]
    assert staying(left, newest + max(sooner, later)) == staying(points, newest + max(sooner, later))


def test_a_million_rounds_leave_few_points_none_far_from_another() -> None:
    newest = 999_999
    kept = sorted(staying((Point(number, False) for number in range(newest + 1)), newest))
    octaves = math.ceil(math.log2((newest + 1) / EXACT_ROUNDS))
    assert len(kept) <= EXACT_ROUNDS * (1 + octaves / 2) + octaves
    for before, after in itertools.pairwise(kept):
        assert after - before <= 2 * stride(newest - before)


def test_an_evaluated_round_stays_before_others() -> None:
    kept = staying([Point(8, False), Point(9, True), Point(10, True), Point(11, False)], 8 + 2 * EXACT_ROUNDS + 5)
    assert kept == {9}


@given(ROUNDS, st.integers(1, 250))
def test_no_more_points_are_shown_than_asked_for(rounds: set[int], most: int) -> None:
    shown = spread(points_of(rounds), most)
    assert len(shown) == min(most, len(rounds))
    assert shown == sorted(set(shown))
    assert set(shown) <= rounds
    assert shown[-1] == max(rounds)


@settings(max_examples=20)
@given(st.integers(2, 50))
def test_what_is_shown_is_evenly_spread(most: int) -> None:
    shown = spread(points_of(set(range(1000)), every=10_000), most)
    gaps = [after - before for before, after in itertools.pairwise(shown)]
    assert max(gaps) - min(gaps) <= 1


@BOTH
async def test_old_points_of_long_sessions_are_deleted_and_no_others(database_url: str) -> None:
    store = Store(database_url, lambda _session, _event: None)
    await store.migrate()
    short, long = session_row(), session_row()
    short.id, count = "short", EXACT_ROUNDS + 700
    values = [
        {"session_id": "s", "round": number, "time": 0.0, "samples": number,
         "validation_loss": 1.0 if number % 10 == 3 else None}
        for number in range(count)
    ]  # fmt: skip
    async with store.write() as transaction:
        transaction.rows.add_all([short, long])
        await transaction.rows.flush()
        await transaction.rows.execute(insert(MetricRow), values)
        await transaction.rows.execute(insert(MetricRow), [{**value, "session_id": "short"} for value in values[:50]])
    assert await thin(store) == 350
    assert await thin(store) == 0
    async with store.read() as rows:
        left = [row.round for row in await curve(rows, "s", first=0, last=699, most=2000)]
        assert left[:5] == [0, 3, 4, 6, 8]
        assert len(await curve(rows, "short", first=0, last=100, most=2000)) == 50
        newest = await curve(rows, "s", first=700, last=count, most=3)
        assert [row.round for row in newest][-1] == count - 1
        assert len(newest) == 3
    await store.close()
