"""Brings the entries of records to the chain, one after another, beside everything else. What fails is tried again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import not_

from coordinator.chain.config import ChainSection
from coordinator.chain.content import content_of
from coordinator.chain.entries import (
    Entries,
    Place,
    as_entry,
    attempts_of,
    is_unmined,
    note_mined,
    note_sent,
    note_signed,
    note_unmined,
    restart,
    settle,
)
from coordinator.chain.errors import ChainNodeError, RefusedTransactionError
from coordinator.chain.machine import (
    PENDING_STATES,
    Action,
    Confirm,
    Facts,
    Fail,
    Fees,
    Mined,
    Release,
    Reopen,
    Rules,
    Send,
    Sign,
    Unmined,
    Wait,
    decide,
    has_gap,
    next_nonce,
)
from coordinator.chain.rows import ChainEntryRow
from coordinator.store import Store
from cotrain.status import now as unix_time

if TYPE_CHECKING:
    from coordinator.chain.node import ChainNode, Head
    from coordinator.chain.signer import Signer

_logger = logging.getLogger(__name__)

_DAY_S = 86400.0
_MOST_STEPS = 6
"""Of one entry in one round: from a lost block over a new nonce to a transaction that is sent."""
_SENDS_WHILE_STUCK = 5
"""How often the same bytes are sent before they are replaced: nodes forget transactions."""


@dataclass(frozen=True)
class _Moment:
    """What holds for all entries of one round."""

    head: Head
    settled: int
    """Number of the newest block with enough confirmations."""
    nonce: int
    settled_nonce: int
    fees: Fees
    balance_wei: int


class Recorder:
    """Sends what is pending, and watches it until it is there to stay.

    Args:
        clock: Unix seconds.

    Attributes:
        last_error_at: when the node last did not do its part, in Unix seconds; None if it always has.
    """

    def __init__(self, store: Store, section: ChainSection, *, clock: Callable[[], float] = unix_time):
        self._entries = Entries(store)
        self._section = section
        self._clock = clock
        self._signer: Signer | None = None
        self._node: ChainNode | None = None
        self._said = ""
        self.last_error_at: float | None = None
        self._rules = Rules(
            confirmations=section.confirmations, most_fee_wei=section.most_fee_wei, most_gas=section.gas_limit,
            stuck_after_s=section.stuck_after_s, send_again_s=section.stuck_after_s / _SENDS_WHILE_STUCK,
        )  # fmt: skip

    @property
    def opener(self) -> str:
        """Address that signs; empty before `start`."""
        return "" if self._signer is None else self._signer.address

    async def start(self) -> None:
        """Open the key. Raises CotrainError: a coordinator that cannot sign should not begin."""
        from coordinator.chain.signer import Signer

        self._signer = await asyncio.to_thread(Signer.open, self._section)

    @property
    def _place(self) -> Place:
        return Place(self._section.chain, self._section.contract, self.opener)

    async def run(self) -> None:
        """Look after what is pending, until cancelled."""
        await self.begin()
        while True:
            await self.tick()
            await asyncio.sleep(self._section.poll_interval_s)

    async def begin(self) -> None:
        """Have what goes elsewhere say so, and forget what nobody needs any more."""
        await self._entries.say(
            "it belongs to another chain, contract or key than is configured now", not_(self._place.here)
        )
        await self._entries.forget_transactions(self._clock() - self._section.transactions_kept_days * _DAY_S)

    async def close(self) -> None:
        """Let go of the node."""
        if self._node is not None:
            await self._node.close()

    async def tick(self) -> None:
        """One round: do for each pending entry what can be done now. Without any, nobody is asked."""
        pending = await self._entries.pending(self._place)
        if not pending:
            return
        try:
            moment = await self._look()
            for number in pending:
                await self._advance(number, moment)
        except ChainNodeError as error:
            await self._note_error(error)
        else:
            if self._said:
                _logger.info("the chain's node does its part again")
                self._said = ""

    async def _note_error(self, error: ChainNodeError) -> None:
        self.last_error_at = self._clock()
        if self._said != error.message:
            _logger.warning("records wait for the chain: %s", error)
            self._said = error.message
        await self._entries.say(error.message, self._place.here)

    async def _look(self) -> _Moment:
        node = self._node or await self._connect()
        await node.check()
        head = await node.head()
        settled = max(0, head.block.number - self._section.confirmations + 1)
        return _Moment(
            head, settled, await node.nonce(head.block.number), await node.nonce(settled), await node.fees(head),
            await node.balance(),
        )  # fmt: skip

    async def _connect(self) -> ChainNode:
        node = await asyncio.to_thread(_node_of, self._section, self.opener)
        try:
            await node.check()
            await node.check_contract()
        except ChainNodeError:
            await node.close()
            raise
        self._node = node
        return node

    async def _advance(self, number: int, moment: _Moment) -> None:
        for _ in range(_MOST_STEPS):
            row, others, opening = await self._entries.get(number)
            if row.state not in PENDING_STATES:
                return
            if row.state == "waiting" and not _has_its_turn(others, opening):
                await self._wait(row, "")  # the chain is not asked about those that only queue
                return
            facts = await self._facts(row, others, opening, moment)
            if not await self._act(row, others, facts, decide(as_entry(row), facts, self._rules, self._clock())):
                return

    async def _facts(
        self, row: ChainEntryRow, others: Sequence[ChainEntryRow], opening: ChainEntryRow | None, moment: _Moment
    ) -> Facts:  # fmt: skip
        node, content = self._node, content_of(row)
        assert node is not None
        standing = await node.standing(content, moment.head.block.number)
        settled = await node.standing(content, moment.settled)
        may_sign = _has_its_turn(others, opening)
        asks_gas = row.state == "waiting" and may_sign and standing == "absent"
        hashes = [one.tx_hash for one in reversed(row.transactions)]
        return Facts(
            head=moment.head.block.number, nonce=moment.nonce, settled_nonce=moment.settled_nonce, standing=standing,
            settled=settled, fees=moment.fees, balance_wei=moment.balance_wei, may_sign=may_sign,
            receipt=await node.receipt(hashes, moment.head),
            gas=await node.gas(content.calldata()) if asks_gas else None,
            gap=row.nonce is not None and has_gap(row.nonce, moment.nonce, _held(others)),
            opening_failed=opening is not None and opening.state == "failed",
        )  # fmt: skip

    async def _act(self, row: ChainEntryRow, others: Sequence[ChainEntryRow], facts: Facts, action: Action) -> bool:
        """Do it; returns whether there may be more to do at once."""
        now, change = self._clock(), self._entries.change
        match action:
            case Wait(reason):
                await self._wait(row, reason)
                return False
            case Sign(fees, gas):
                await self._sign(row, others, facts, fees, gas)
            case Send():
                await self._send(row)
                return False
            case Mined(receipt):
                await change(row.id, lambda entry: note_mined(entry, receipt, now))
            case Unmined():
                _logger.warning("the chain took back a block: %s of session %s is sent again", row.kind, row.session_id)
                await change(row.id, lambda entry: note_unmined(entry, now))
            case Release(reason):
                _logger.warning("%s of session %s is signed anew: %s", row.kind, row.session_id, reason)
                await change(row.id, lambda entry: restart(entry, reason, now))
            case Reopen():
                await self._entries.reopen(row, now)
                return False
            case Confirm():
                good = facts.receipt if facts.receipt is not None and facts.receipt.succeeded else None
                await change(row.id, lambda entry: settle(entry, "confirmed", good, now))
                _logger.info("%s of session %s is recorded on %s", row.kind, row.session_id, row.chain)
            case Fail(reason):
                await change(row.id, lambda entry: settle(entry, "failed", facts.receipt, now, reason))
                _logger.error("%s of session %s cannot be recorded: %s", row.kind, row.session_id, reason)
        return True

    async def _wait(self, row: ChainEntryRow, reason: str) -> None:
        if row.message == reason or (row.state != "waiting" and not reason):
            return  # what the node had against a transaction that was sent is still worth to be read

        def say(entry: ChainEntryRow) -> None:
            entry.message = reason

        await self._entries.change(row.id, say)

    async def _sign(
        self, row: ChainEntryRow, others: Sequence[ChainEntryRow], facts: Facts, fees: Fees, gas: int | None
    ) -> None:  # fmt: skip
        """The bytes are on disk before anybody sees them."""
        assert self._signer is not None
        nonce = next_nonce(facts.nonce, _held(others)) if row.nonce is None else row.nonce
        gas = attempts_of(row)[-1].gas if gas is None else gas
        signed = self._signer.sign(
            to=row.contract, data=content_of(row).calldata(), nonce=nonce, gas=gas, fees=fees
        )  # fmt: skip
        at = self._clock()
        await self._entries.change(
            row.id, lambda entry: note_signed(entry, signed, nonce=nonce, gas=gas, fees=fees, now=at)
        )

    async def _send(self, row: ChainEntryRow) -> None:
        assert self._node is not None
        problem = ""
        try:
            await self._node.send(attempts_of(row)[-1].raw)
        except RefusedTransactionError as error:  # what the chain says next time tells what to do
            problem = error.message
        await self._entries.change(row.id, lambda entry: note_sent(entry, self._clock(), problem))


def _has_its_turn(others: Sequence[ChainEntryRow], opening: ChainEntryRow | None) -> bool:
    """Whether nothing that comes before an entry is still to be settled, or never will be."""
    return not any(map(is_unmined, others)) and (opening is None or opening.state not in PENDING_STATES)


def _held(others: Sequence[ChainEntryRow]) -> set[int]:
    return {row.nonce for row in others if row.nonce is not None}


def _node_of(section: ChainSection, opener: str) -> ChainNode:
    """Called in a thread: loading web3 takes a second."""
    from coordinator.chain.node import ChainNode

    return ChainNode(
        section.rpc_url, chain_id=section.chain_id, contract=section.contract, account=opener
    )  # fmt: skip
