"""The entries of records in the database: which are pending, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, and_, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.chain.machine import (
    PENDING_STATES,
    UNMINED_STATES,
    Attempt,
    Block,
    Entry,
    EntryState,
    Fees,
    Receipt,
)
from coordinator.chain.rows import ChainEntryRow, ChainTransactionRow
from coordinator.store import Store

if TYPE_CHECKING:
    from coordinator.chain.signer import Signed

MOST_AT_ONCE = 64
"""Entries that are looked after in one round; the others come once these are confirmed."""

Change = Callable[[ChainEntryRow], None]


@dataclass(frozen=True)
class Place:
    """Where entries go: a chain (CAIP-2), a registry there, and the account that signs."""

    chain: str
    contract: str
    opener: str

    @property
    def here(self) -> ColumnElement[bool]:
        """Entries that go there: a condition for queries."""
        return and_(
            ChainEntryRow.chain == self.chain, ChainEntryRow.contract == self.contract,
            ChainEntryRow.opener == self.opener,
        )  # fmt: skip


class Entries:
    """The stored entries of one coordinator."""

    def __init__(self, store: Store):
        self._store = store

    async def pending(self, place: Place) -> Sequence[int]:
        """Numbers of the oldest entries that are not settled."""
        query = select(ChainEntryRow.id).where(ChainEntryRow.state.in_(PENDING_STATES), place.here)
        async with self._store.read() as rows:
            return (await rows.scalars(query.order_by(ChainEntryRow.id).limit(MOST_AT_ONCE))).all()

    async def get(self, number: int) -> tuple[ChainEntryRow, Sequence[ChainEntryRow], ChainEntryRow | None]:
        """An entry, the others on the same way that hold a nonce, and, for an end, its opening."""
        async with self._store.read() as rows:
            row = await rows.get_one(ChainEntryRow, number)
            held = select(ChainEntryRow).where(
                ChainEntryRow.state.in_(PENDING_STATES), ChainEntryRow.nonce.is_not(None), ChainEntryRow.id != number,
                Place(row.chain, row.contract, row.opener).here,
            )  # fmt: skip
            others = (await rows.scalars(held)).all()
            return row, others, await entry_of(rows, row.session_id, "open") if row.kind == "close" else None

    async def change(self, number: int, change: Change) -> None:
        """Change an entry; on disk when this returns."""
        async with self._store.write() as transaction:
            change(await transaction.rows.get_one(ChainEntryRow, number))

    async def reopen(self, end: ChainEntryRow, now: float) -> None:
        """Have the opening of an end's session recorded again: the chain has lost it."""
        async with self._store.write() as transaction:
            opening = await entry_of(transaction.rows, end.session_id, "open")
            if opening is not None:
                restart(opening, "the chain has lost it", now)

    async def say(self, message: str, which: ColumnElement[bool]) -> None:
        """Have pending entries say why they wait."""
        told = update(ChainEntryRow).where(
            ChainEntryRow.state.in_(PENDING_STATES), ChainEntryRow.message != message, which
        )
        async with self._store.write() as transaction:
            await transaction.rows.execute(told.values(message=message))

    async def forget_transactions(self, before: float) -> None:
        """Remove the signed transactions of entries that were settled before then (Unix seconds)."""
        settled = select(ChainEntryRow.id).where(
            ChainEntryRow.state.not_in(PENDING_STATES), ChainEntryRow.updated_at < before
        )
        gone = delete(ChainTransactionRow).where(ChainTransactionRow.record_id.in_(settled))
        async with self._store.write() as transaction:
            await transaction.rows.execute(gone)


async def entry_of(rows: AsyncSession, session: str, kind: str) -> ChainEntryRow | None:
    """An entry of a session, if there is one."""
    found: ChainEntryRow | None = await rows.scalar(
        select(ChainEntryRow).where(ChainEntryRow.session_id == session, ChainEntryRow.kind == kind)
    )
    return found


async def count_by_state(rows: AsyncSession) -> dict[EntryState, int]:
    """How many entries there are in each state that has any."""
    found = await rows.execute(select(ChainEntryRow.state, func.count()).group_by(ChainEntryRow.state))
    return {row[0]: row[1] for row in found}


# ------------------------------------------------------------------------------------------------- one entry
def attempts_of(row: ChainEntryRow) -> list[ChainTransactionRow]:
    """Its transactions with its present nonce, in the order in which they were signed."""
    return [one for one in row.transactions if one.nonce == row.nonce]


def as_entry(row: ChainEntryRow) -> Entry:
    """As the machine sees it."""
    attempts = [Attempt(one.tx_hash, Fees(one.most_fee_wei, one.tip_wei), one.sent_at) for one in attempts_of(row)]
    block = None if row.block_number is None else Block(row.block_number, row.block_hash)
    return Entry(row.kind, row.state, row.updated_at, row.nonce, attempts, block)


def note_signed(row: ChainEntryRow, signed: Signed, *, nonce: int, gas: int, fees: Fees, now: float) -> None:
    """It has a transaction that can be sent."""
    row.transactions.append(
        ChainTransactionRow(
            tx_hash=signed.tx_hash, nonce=nonce, raw=signed.raw, gas=gas, most_fee_wei=fees.most_wei,
            tip_wei=fees.tip_wei, signed_at=now, sent_at=None,
        )
    )  # fmt: skip
    row.nonce, row.tx_hash = nonce, signed.tx_hash
    _enter(row, "signed", now)


def note_sent(row: ChainEntryRow, now: float, message: str = "") -> None:
    """The newest transaction was handed over; `message`: what the node had against it."""
    attempts_of(row)[-1].sent_at = now
    if row.state == "signed":
        _enter(row, "sent", now)
    row.message = message


def note_mined(row: ChainEntryRow, receipt: Receipt, now: float) -> None:
    """One of its transactions is in a block."""
    row.tx_hash, row.block_number, row.block_hash = receipt.tx_hash, receipt.block.number, receipt.block.hash
    _enter(row, "mined", now)


def note_unmined(row: ChainEntryRow, now: float) -> None:
    """That block is gone: what was sent is to be sent again."""
    newest = attempts_of(row)[-1]
    newest.sent_at, row.tx_hash, row.block_number, row.block_hash = None, newest.tx_hash, None, ""
    _enter(row, "sent", now)


def restart(row: ChainEntryRow, message: str, now: float) -> None:
    """Begin again, with another nonce."""
    row.nonce, row.tx_hash, row.block_number, row.block_hash = None, "", None, ""
    _enter(row, "waiting", now)
    row.message = message


def settle(row: ChainEntryRow, state: EntryState, receipt: Receipt | None, now: float, message: str = "") -> None:
    """It is confirmed, or has failed; without a receipt, by no transaction that is known here."""
    if receipt is None:
        row.tx_hash, row.block_number, row.block_hash = "", None, ""
    else:
        note_mined(row, receipt, now)
    _enter(row, state, now)
    row.message = message


def is_unmined(row: ChainEntryRow) -> bool:
    """Whether it is on its way to be mined."""
    return row.state in UNMINED_STATES


def _enter(row: ChainEntryRow, state: EntryState, now: float) -> None:
    row.state, row.updated_at, row.message = state, now, ""
