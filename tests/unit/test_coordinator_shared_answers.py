"""Kept answers: worked out once for all who ask, never older than what has been stored, no error kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from coordinator.shared_answers import SharedAnswers
from coordinator.store import Store
from cotrain.errors import NotFoundError


class Work:
    """Counts how often it is done; waits at its gate."""

    def __init__(self) -> None:
        self.done = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> bytes:
        await self.gate.wait()
        self.done += 1
        return str(self.done).encode()


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    store = Store(database_url, lambda _session, _events: None)
    await store.migrate()
    yield store
    await store.close()


async def commit(store: Store) -> None:
    async with store.write():
        pass


async def test_an_answer_holds_until_something_is_stored(store: Store) -> None:
    answers, work = SharedAnswers(store), Work()
    assert [await answers.get("a", work) for _ in range(3)] == [b"1"] * 3
    await commit(store)
    assert await answers.get("a", work) == b"2"
    assert await answers.get("b", work) == b"3"


async def test_what_another_program_stores_is_seen_after_a_while(store: Store) -> None:
    clock = [0.0]
    answers, work = SharedAnswers(store, lambda: clock[0]), Work()
    await answers.get("a", work)
    clock[0] = 0.2
    assert await answers.get("a", work) == b"1"
    clock[0] = 0.3
    assert await answers.get("a", work) == b"2"


async def test_it_is_worked_out_once_for_all_who_ask_meanwhile(store: Store) -> None:
    answers, work = SharedAnswers(store), Work()
    work.gate.clear()
    asking = [asyncio.create_task(answers.get("a", work)) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()  # the first one goes away; the others still get theirs
    work.gate.set()
    assert await asyncio.gather(*asking[1:]) == [b"1"] * 4
    assert work.done == 1


async def test_what_was_read_before_a_commit_is_not_kept_after_it(store: Store) -> None:
    answers, work = SharedAnswers(store), Work()
    work.gate.clear()
    early = asyncio.create_task(answers.get("a", work))
    await asyncio.sleep(0)
    await commit(store)
    late = asyncio.create_task(answers.get("a", work))
    await asyncio.sleep(0)
    work.gate.set()
    assert sorted(await asyncio.gather(early, late)) == [b"1", b"2"]
    assert work.done == 2


async def test_an_error_is_told_and_not_kept(store: Store) -> None:
    answers = SharedAnswers(store)
    found = [False]

    async def work() -> bytes:
        if not found[0]:
            raise NotFoundError("there is no such session")
        return b"here"

    with pytest.raises(NotFoundError):
        await answers.get("a", work)
    await asyncio.sleep(0)
    found[0] = True
    assert await answers.get("a", work) == b"here"


async def test_only_so_many_are_kept(store: Store) -> None:
    answers = SharedAnswers(store)

    def work_of(text: str) -> Callable[[], Coroutine[Any, Any, bytes]]:
        async def work() -> bytes:
            return text.encode()

        return work

    for number in range(200):
        assert await answers.get(str(number), work_of(str(number))) == str(number).encode()
    assert len(answers._answers) == 64
