"""Queues what is to be recorded of a session, in the transaction of what it records. Nothing here waits for a chain."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from coordinator.chain.config import ChainSection
from coordinator.chain.entries import entry_of
from coordinator.chain.machine import Kind
from coordinator.chain.rows import ChainEntryRow
from coordinator.contributions import count_rounds
from coordinator.contributors import samples_by_account
from coordinator.models import SessionRow
from coordinator.store import Transaction
from cotrain.chain.config_hash import config_hash
from cotrain.chain.merkle import Share, ShareTree
from cotrain.status import FINAL_STATES, Status, now

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Notes:
    """What the recorder shall bring to the chain; nothing where that is off.

    Args:
        opener: address that signs.
        clock: Unix seconds.
    """

    def __init__(self, section: ChainSection, opener: Callable[[], str], *, clock: Callable[[], float] = now):
        self._section = section
        self._opener = opener
        self._clock = clock

    def note_opening(self, transaction: Transaction, row: SessionRow) -> None:
        """A session is open for training: that is to be recorded."""
        if self._section.enabled:
            opener, contract = self._opener(), self._section.contract
            entry = _entry(row, "open", self._clock(), chain=self._section.chain, contract=contract, opener=opener)
            entry.config_hash = config_hash(row.config).hex()
            transaction.rows.add(entry)

    async def note_end(self, transaction: Transaction, row: SessionRow, newest: Status | None = None) -> None:
        """After a session's state has changed: if it has ended, that is to be recorded, with what is known by then.

        A session whose opening is no record is left alone.

        Args:
            newest: the checkpointer's last word, where it has been read; else the last that was stored counts.
        """
        rows = transaction.rows
        if row.state not in FINAL_STATES or (opening := await entry_of(rows, row.id, "open")) is None:
            return
        if await entry_of(rows, row.id, "close") is not None:
            return
        if newest is not None:
            await count_rounds(transaction, row.id, newest.records)
        shares = [Share(account, samples) for account, samples in (await samples_by_account(rows, row.id)).items()]
        entry = _entry(
            row, "close", self._clock(), chain=opening.chain, contract=opening.contract, opener=opening.opener
        )  # fmt: skip
        entry.config_hash = opening.config_hash
        entry.final_digest = _digest(newest, row.checkpointer_status or {})
        entry.contributions_root = ShareTree(shares).root.hex()
        entry.total_samples = sum(share.samples for share in shares)
        entry.shares = [{"account": share.account, "samples": share.samples} for share in shares]
        rows.add(entry)


def _digest(newest: Status | None, stored: Mapping[str, Any]) -> str:
    """Of the last outer state that the checkpointer has told of; empty if it has told of none."""
    said = str(stored.get("digest", "")) if newest is None else newest.digest
    return said if _DIGEST.fullmatch(said) else ""


def _entry(
    row: SessionRow, kind: Kind, at: float, *, chain: str, contract: str, opener: str
) -> ChainEntryRow:  # fmt: skip
    return ChainEntryRow(
        session_id=row.id, visibility=row.visibility, kind=kind, chain=chain, contract=contract, opener=opener,
        final_digest="", contributions_root="", total_samples=0, shares=[], state="waiting", tx_hash="", block_hash="",
        message="", created_at=at, updated_at=at,
    )  # fmt: skip
