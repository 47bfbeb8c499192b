"""What becomes of an entry of a record (a session's opening, or its end) on the way to the chain. Pure.

    waiting -> signed -> sent -> mined -> confirmed, or failed

The signed bytes are stored before they are sent, so whoever is killed sends the same bytes again: of all transactions
with one nonce the chain takes one. An entry gives its nonce up only once another transaction has used it for good, or
where the chain has never come so far; the contract then refuses whichever of two comes second. What stands in the
contract decides in the end, whoever put it there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["open", "close"]
EntryState = Literal["waiting", "signed", "sent", "mined", "confirmed", "failed"]
Standing = Literal["absent", "same", "other", "unopened"]
"""What the contract says of an entry: nothing yet, this, something else under the same id; of an end: not opened."""

ENTRY_STATES: tuple[EntryState, ...] = get_args(EntryState)
PENDING_STATES: frozenset[EntryState] = frozenset({"waiting", "signed", "sent", "mined"})
UNMINED_STATES: frozenset[EntryState] = frozenset({"signed", "sent"})

_REPLACEMENT_PERCENT = 125
"""Of the fees before; nodes ask for 110 at least."""


@dataclass(frozen=True)
class Fees:
    """Of a transaction of type 2 (EIP-1559), in wei for a unit of gas."""

    most_wei: int
    tip_wei: int


@dataclass(frozen=True)
class Block:
    """A block by its number and its hash (0x and 64 digits)."""

    number: int
    hash: str


@dataclass(frozen=True)
class Attempt:
    """A signed transaction. `sent_at`: Unix seconds; None before it is sent, and once it has to be sent again."""

    tx_hash: str
    fees: Fees
    sent_at: float | None = None


@dataclass(frozen=True)
class Entry:
    """An entry as it is stored; the last of its attempts, which have one nonce, is the newest.

    `since`: when it came into its state, or was signed anew, in Unix seconds.
    """

    kind: Kind
    state: EntryState
    since: float = 0.0
    nonce: int | None = None
    attempts: Sequence[Attempt] = ()
    block: Block | None = None
    """Where it was mined."""


@dataclass(frozen=True)
class Receipt:
    """That the chain at its head holds one of the attempts."""

    tx_hash: str
    block: Block
    succeeded: bool


@dataclass(frozen=True)
class Facts:
    """What the chain says at one moment.

    Attributes:
        head: number of the newest block.
        nonce: how many transactions of the account the chain holds.
        settled_nonce: the same as of the newest block with enough confirmations.
        standing: what the contract says.
        settled: the same as of that block.
        receipt: of one of the entry's attempts.
        fees: what a transaction should offer now.
        may_sign: no other entry is on its way to be mined, and the opening of its session is confirmed.
        opening_failed: an end is never recorded then.
        gas: what the contract needs for it; None where it would refuse it. Asked for where it is to be signed.
        gap: a nonce below its own is free, and none of the coordinator's own entries holds it.
    """

    head: int
    nonce: int
    settled_nonce: int
    standing: Standing
    settled: Standing
    fees: Fees
    balance_wei: int
    may_sign: bool
    receipt: Receipt | None = None
    gas: int | None = None
    gap: bool = False
    opening_failed: bool = False


@dataclass(frozen=True)
class Rules:
    """How the operator wants it. `most_fee_wei`: for a unit of gas."""

    confirmations: int
    most_fee_wei: int
    most_gas: int
    stuck_after_s: float
    send_again_s: float


@dataclass(frozen=True)
class Wait:
    """Nothing can be done now; `reason` for people, empty where that is as it should be."""

    reason: str = ""


@dataclass(frozen=True)
class Sign:
    """Sign a transaction, and store it before anything else is done."""

    fees: Fees
    gas: int | None
    """None: as the attempt before."""


@dataclass(frozen=True)
class Send:
    """Send the newest attempt, for the first time or again."""


@dataclass(frozen=True)
class Mined:
    """Note where it stands."""

    receipt: Receipt


@dataclass(frozen=True)
class Unmined:
    """The block is no longer of the chain: the same bytes are sent again."""


@dataclass(frozen=True)
class Release:
    """Its nonce leads nowhere: begin again with another."""

    reason: str


@dataclass(frozen=True)
class Reopen:
    """The chain has lost the opening of this session after all: that comes first."""


@dataclass(frozen=True)
class Confirm:
    """It stands in the contract for good."""


@dataclass(frozen=True)
class Fail:
    """It can never be."""

    reason: str


Action = Wait | Sign | Send | Mined | Unmined | Release | Reopen | Confirm | Fail


def decide(entry: Entry, facts: Facts, rules: Rules, now: float) -> Action:
    """The next thing to do for an entry that is pending."""
    if facts.settled == "same":
        return Confirm()
    if facts.settled == "other":
        return Fail("the contract holds another record of this session by the same account")
    if entry.state == "waiting":
        return _of_waiting(facts, rules)
    if entry.state == "mined":
        return _of_mined(entry, facts, rules)
    return _of_unmined(entry, facts, rules, now)


def replaced(before: Fees, suggested: Fees) -> Fees:
    """Fees that nodes take in the place of those before."""
    return Fees(
        most_wei=max(suggested.most_wei, _raised(before.most_wei)),
        tip_wei=max(suggested.tip_wei, _raised(before.tip_wei)),
    )


def next_nonce(used: int, held: Collection[int]) -> int:
    """The lowest nonce that neither the chain has `used` (it is their count) nor an entry of ours holds."""
    while used in held:
        used += 1
    return used


def has_gap(nonce: int, used: int, held: Collection[int]) -> bool:
    """Whether a nonce between those that are used and this one is nobody's: until somebody uses it, this one waits."""
    return next_nonce(used, held) < nonce


def _of_waiting(facts: Facts, rules: Rules) -> Action:
    if facts.opening_failed:
        return Fail("the opening of the session could not be recorded")
    if facts.standing != "absent":
        # "same": somebody's transaction is mined, and not yet deep enough
        return Reopen() if facts.standing == facts.settled == "unopened" else Wait()
    if not facts.may_sign:
        return Wait()
    if facts.gas is None:
        return Wait("the contract would refuse it at the moment")
    if facts.gas > rules.most_gas:
        return Wait(f"it needs {facts.gas} gas, and gas_limit is {rules.most_gas}")
    if facts.fees.most_wei > rules.most_fee_wei:
        return Wait(f"the chain asks for {_gwei(facts.fees.most_wei)} gwei a unit of gas, above max_fee_gwei")
    if facts.balance_wei < facts.gas * facts.fees.most_wei:
        return Wait(f"the account has {facts.balance_wei} wei, it takes {facts.gas * facts.fees.most_wei}")
    return Sign(facts.fees, facts.gas)


def _of_mined(entry: Entry, facts: Facts, rules: Rules) -> Action:
    assert entry.block is not None
    receipt = facts.receipt
    if receipt is None:
        return Unmined()
    if receipt.block != entry.block:
        return Mined(receipt)
    if facts.head - receipt.block.number + 1 < rules.confirmations:
        return Wait()
    if not receipt.succeeded:
        return Fail("the contract refused the transaction")
    return Wait("the node says that it is mined, and the contract there does not hold it")


def _of_unmined(entry: Entry, facts: Facts, rules: Rules, now: float) -> Action:
    assert entry.nonce is not None
    newest = entry.attempts[-1]
    if facts.receipt is not None:
        return Mined(facts.receipt)
    if facts.settled_nonce > entry.nonce:
        return Release("another transaction has used its nonce")
    if facts.nonce > entry.nonce:
        return Wait()  # by another, or by this one, whose receipt is not there yet
    if newest.sent_at is None:
        return Send()
    if now - entry.since < rules.stuck_after_s:
        return Send() if now - newest.sent_at >= rules.send_again_s else Wait()
    if facts.gap:
        return Release("a nonce before its own is free")
    fees = replaced(newest.fees, facts.fees)
    if fees.most_wei <= rules.most_fee_wei:
        return Sign(fees, None)
    if now - newest.sent_at >= rules.send_again_s:
        return Send()
    return Wait("it is not mined, and a higher fee would be above max_fee_gwei")


def _raised(wei: int) -> int:
    return -(-wei * _REPLACEMENT_PERCENT // 100)


def _gwei(wei: int) -> str:
    return f"{wei / 10**9:g}"
