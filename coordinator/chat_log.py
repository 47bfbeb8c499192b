"""The chat log: exchanges whose people allow learning from them, without personal data, the oldest leaving first.

Without consent nothing comes here. Texts are redacted before they are written, so no file or backup has had the others.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import delete, func, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql import ColumnElement

from coordinator.chat_rows import ChatRow
from coordinator.store import Store
from cotrain.status import now

Consent = Literal["request", "header", "import"]
Rating = Literal[1, 0, -1]

_ID_PREFIX = "chatcmpl-"
_IMPORTED_AT_ONCE = 500


@dataclass(frozen=True)
class Exchange:
    """A question and its answer, as they were. Not shown by `repr`: nobody's words belong into a log."""

    question: str
    answer: str
    consent: Consent
    id: str = ""
    """As the answer had it; empty: a new one."""
    account: str = ""
    """CAIP-10; empty for somebody who has not signed in."""
    model: str = ""
    version: int = 0
    rating: Rating = 0

    def __repr__(self) -> str:
        return f"Exchange(id={self.id!r}, model={self.model!r}, version={self.version})"


@dataclass(frozen=True)
class LoggedChat:
    """An exchange as it is kept."""

    position: int
    """Rises with the time."""
    id: str
    question: str
    """Redacted, as `answer`."""
    answer: str
    language: str
    """`en`, `fa`, `zh` or `other`: the question's."""
    model: str
    """Empty for one that was imported."""
    version: int
    rating: int
    """1, 0 or -1."""
    created_at: float
    """Unix seconds."""

    def __repr__(self) -> str:
        return f"LoggedChat(position={self.position}, id={self.id!r}, language={self.language!r})"


class ChatLog:
    """The chats of one coordinator.

    Args:
        kept: how many stay.
        clock: Unix seconds.
    """

    def __init__(self, store: Store, *, kept: int, clock: Callable[[], float] = now):
        self._store = store
        self._kept = kept
        self._clock = clock

    async def add(self, exchange: Exchange) -> str:
        """Keep an exchange, redacted; returns its id."""
        row = await asyncio.to_thread(_row_of, exchange, self._clock())
        async with self._store.write() as transaction:
            transaction.rows.add(row)
            await transaction.rows.flush()
            await self._drop_oldest(transaction.rows)
        return row.id

    async def import_many(self, exchanges: Sequence[Exchange]) -> int:
        """Keep many, in their order, as `add` does; returns how many of them are there then."""
        added = list(exchanges)[-self._kept :]
        for start in range(0, len(added), _IMPORTED_AT_ONCE):  # in pieces: others want to write, too
            piece = added[start : start + _IMPORTED_AT_ONCE]
            rows = await asyncio.to_thread(_rows_of, piece, self._clock())
            async with self._store.write() as transaction:
                transaction.rows.add_all(rows)
                await transaction.rows.flush()
                await self._drop_oldest(transaction.rows)
        return len(added)

    async def count(self, *, model: str | None = None) -> int:
        """How many there are; `model`: with this one, by its id, or with none, as imported ones."""
        async with self._store.read() as rows:
            return int(await rows.scalar(select(func.count()).select_from(ChatRow).where(_with(model))) or 0)

    async def oldest(self, limit: int, *, model: str | None = None) -> list[LoggedChat]:
        """At most `limit`, oldest first; `model` as in `count`."""
        query = select(ChatRow).where(_with(model)).order_by(ChatRow.position).limit(limit)
        async with self._store.read() as rows:
            return [_logged(row) for row in await rows.scalars(query)]

    async def clear(
        self, until_position: int, *, model: str | None = None, rows: AsyncSession | None = None
    ) -> int:  # fmt: skip
        """Delete all up to this position, which has been learnt from; returns how many there were.

        Args:
            model: as in `count`.
            rows: of a transaction that it is a part of; None: one of its own.
        """
        which = _with(model) & (ChatRow.position <= until_position)
        if rows is not None:
            return await _delete(rows, which)
        async with self._store.write() as transaction:
            return await _delete(transaction.rows, which)

    async def rate(self, id_: str, rating: Rating) -> bool:
        """Note what somebody who has its id thinks of an exchange; False if there is none."""
        change = update(ChatRow).where(ChatRow.id == id_).values(rating=rating).returning(ChatRow.id)
        async with self._store.write() as transaction:
            return (await transaction.rows.execute(change)).scalar_one_or_none() is not None

    async def remove(self, id_: str) -> bool:
        """Delete one exchange; False if there is none."""
        async with self._store.write() as transaction:
            return await _delete(transaction.rows, ChatRow.id == id_) > 0

    async def export(self, account: str, after: int, limit: int) -> tuple[list[LoggedChat], int | None]:
        """At most `limit` of an account's behind position `after`, oldest first, and where the next page begins."""
        query = (
            select(ChatRow).where(ChatRow.account == _one(account), ChatRow.position > after)
            .order_by(ChatRow.position).limit(limit + 1)
        )  # fmt: skip
        async with self._store.read() as rows:
            found = [_logged(row) for row in await rows.scalars(query)]
        return found[:limit], found[limit - 1].position if len(found) > limit else None

    async def delete(self, account: str) -> int:
        """Delete all of an account's; returns how many there were."""
        async with self._store.write() as transaction:
            return await _delete(transaction.rows, ChatRow.account == _one(account))

    async def _drop_oldest(self, rows: AsyncSession) -> None:
        first_gone = await rows.scalar(
            select(ChatRow.position).order_by(ChatRow.position.desc()).offset(self._kept).limit(1)
        )
        if first_gone is not None:
            await _delete(rows, ChatRow.position <= first_gone)


def _row_of(exchange: Exchange, clock: float) -> ChatRow:
    """Reads the rules of redaction when it is first called."""
    from cotrain.learn.language import language_of
    from cotrain.learn.redaction import redact

    question, answer = redact(exchange.question), redact(exchange.answer)
    return ChatRow(
        id=exchange.id or new_chat_id(), account=exchange.account, consent=exchange.consent, model_id=exchange.model,
        version=exchange.version, language=language_of(question), question=question, answer=answer,
        rating=exchange.rating, created_at=clock,
    )  # fmt: skip


def _rows_of(exchanges: Sequence[Exchange], clock: float) -> list[ChatRow]:
    return [_row_of(exchange, clock) for exchange in exchanges]


def new_chat_id() -> str:
    """An id that nobody can guess."""
    return f"{_ID_PREFIX}{secrets.token_urlsafe(24)}"


def _one(account: str) -> str:
    """Raises ValueError for no account: what nobody's account has is nobody's to see."""
    if not account:
        raise ValueError("an account is needed")
    return account


def _logged(row: ChatRow) -> LoggedChat:
    return LoggedChat(
        position=row.position, id=row.id, question=row.question, answer=row.answer, language=row.language,
        model=row.model_id, version=row.version, rating=row.rating, created_at=row.created_at,
    )  # fmt: skip


def _with(model: str | None) -> ColumnElement[bool]:
    return true() if model is None else ChatRow.model_id.in_((model, ""))


async def _delete(rows: AsyncSession, which: ColumnElement[bool]) -> int:
    gone = await rows.execute(delete(ChatRow).where(which).returning(ChatRow.position))
    return len(gone.all())
