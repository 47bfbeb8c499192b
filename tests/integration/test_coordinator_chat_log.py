"""The chat log, on both databases: what it keeps, in which order it lets go, and whose it is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select

from coordinator.chat_log import ChatLog, Exchange
from coordinator.chat_rows import ChatRow
from coordinator.store import Store
from tests.databases import BOTH

KEPT = 5
MINE, OTHERS = "eip155:1:0xaa", "eip155:1:0xbb"
PERSONAL = "I am jane.doe@example.org, call +1 415 555 2671"


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    made = Store(database_url, lambda _session, _events: None)
    await made.migrate()
    yield made
    await made.close()


@pytest.fixture
def log(store: Store) -> ChatLog:
    return ChatLog(store, kept=KEPT, clock=lambda: 7.0)


def exchange(number: int = 0, **fields: object) -> Exchange:
    told = {"question": f"Question {number}?", "answer": f"Answer {number}.", "consent": "request"}
    return Exchange(**{**told, **fields})  # type: ignore[arg-type]


async def questions(log: ChatLog) -> list[str]:
    return [chat.question for chat in await log.oldest(100)]


@BOTH
async def test_texts_are_redacted_before_they_are_written(log: ChatLog, store: Store) -> None:
    told = exchange(question=PERSONAL, answer=f"Hello {PERSONAL}", model="m", version=3, account=MINE)
    id_ = await log.add(told)
    assert "jane" not in repr(told)
    async with store.read() as rows:
        (row,) = await rows.scalars(select(ChatRow))
    assert row.question == "I am [email], call [phone]"
    assert row.answer == "Hello I am [email], call [phone]"
    (chat,) = await log.oldest(1)
    assert (chat.id, chat.model, chat.version, chat.language, chat.rating) == (id_, "m", 3, "en", 0)
    assert (row.consent, row.account, chat.created_at) == ("request", MINE, 7.0)
    assert "Question" not in repr(chat)


@BOTH
async def test_each_exchange_has_its_language(log: ChatLog) -> None:
    for question in ("Who wrote this poem, and when?", "این شعر را چه کسی سروده است؟", "这首诗是谁写的？"):
        await log.add(exchange(question=question))
    assert [chat.language for chat in await log.oldest(10)] == ["en", "fa", "zh"]


@BOTH
async def test_the_oldest_leave_first(log: ChatLog) -> None:
    for number in range(KEPT + 2):
        await log.add(exchange(number))
    assert await questions(log) == [f"Question {number}?" for number in range(2, KEPT + 2)]
    assert [chat.question for chat in await log.oldest(2)] == ["Question 2?", "Question 3?"]
    assert await log.count() == KEPT


@BOTH
async def test_what_has_been_learnt_from_is_cleared_and_no_more(log: ChatLog, store: Store) -> None:
    for number in range(4):
        await log.add(exchange(number))
    second = (await log.oldest(2))[-1].position

    async def clear_in_vain() -> None:
        async with store.write() as transaction:
            assert await log.clear(second, rows=transaction.rows) == 2
            raise RuntimeError("not learnt after all")

    with pytest.raises(RuntimeError, match="not learnt"):
        await clear_in_vain()
    assert await log.count() == 4
    assert await log.clear(second) == 2
    assert await questions(log) == ["Question 2?", "Question 3?"]
    last = (await log.oldest(4))[-1].position
    assert await log.clear(last) == 2
    await log.add(exchange(4))
    # a position that was cleared is never given again
    assert (await log.oldest(1))[0].position > last
    assert await log.clear(last) == 0


@BOTH
async def test_an_account_sees_and_deletes_its_own(log: ChatLog) -> None:
    for number in range(4):
        await log.add(exchange(number, account=MINE if number != 1 else OTHERS))
    page, following = await log.export(MINE, 0, 2)
    assert [chat.question for chat in page] == ["Question 0?", "Question 2?"]
    rest, end = await log.export(MINE, following or 0, 2)
    assert ([chat.question for chat in rest], end) == (["Question 3?"], None)
    assert await log.delete(MINE) == 3
    assert await questions(log) == ["Question 1?"]
    for nobody in (log.export("", 0, 1), log.delete("")):
        with pytest.raises(ValueError, match="account"):
            await nobody


@BOTH
async def test_whoever_has_an_id_rates_and_removes(log: ChatLog) -> None:
    first, second = await log.add(exchange(1)), await log.add(exchange(2))
    assert first != second
    assert len(first) > 30
    assert await log.rate(first, 1)
    assert await log.rate(first, -1)
    assert not await log.rate("chatcmpl-other", 1)
    assert [chat.rating for chat in await log.oldest(2)] == [-1, 0]
    assert await log.remove(first)
    assert not await log.remove(first)
    assert [chat.id for chat in await log.oldest(2)] == [second]


@BOTH
async def test_an_import_keeps_the_newest_in_their_order(log: ChatLog) -> None:
    await log.add(exchange(99))
    some = [exchange(number, consent="import", question=f"{number}: {PERSONAL}") for number in range(KEPT + 3)]
    assert await log.import_many(some) == KEPT
    assert await questions(log) == [f"{number}: I am [email], call [phone]" for number in range(3, KEPT + 3)]
    assert await log.import_many([]) == 0
