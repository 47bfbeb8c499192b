"""What an operator does with a chain by hand: puts up a registry, and looks how records are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pydantic import Field
from sqlalchemy import select

from coordinator.chain.config import ChainSection
from coordinator.chain.entries import MOST_AT_ONCE, count_by_state
from coordinator.chain.errors import ChainNodeError
from coordinator.chain.machine import PENDING_STATES, EntryState, Kind
from coordinator.chain.node import ChainNode
from coordinator.chain.rows import ChainEntryRow
from coordinator.chain.signer import Signer
from coordinator.store import open_store
from cotrain.chain.registry import artifact
from cotrain.errors import ConfigError
from cotrain.identity.account import Account
from cotrain.request import CamelModel

_LOOK_EVERY_S = 1.0


class PendingEntry(CamelModel):
    """An opening or an end that is not settled, or has failed."""

    session_id: str
    kind: Kind
    state: EntryState
    tx_hash: str
    message: str


class ChainReport(CamelModel):
    """How records are; what the node does not tell is null."""

    chain: str
    contract: str
    account: str
    node_error: str = ""
    """Why it does not do its part; empty if it does."""
    balance_wei: int | None = None
    nonce: int | None = None
    entries: dict[EntryState, int]
    """How many are in each state."""
    pending: list[PendingEntry] = Field(max_length=MOST_AT_ONCE)
    """The oldest that are not confirmed."""


async def chain_report(section: ChainSection, database_url: str) -> ChainReport:
    """How records are, as the database and the node say. Raises ConfigError, DatabaseError."""
    async with open_store(database_url) as store, store.read() as rows:
        entries = await count_by_state(rows)
        states = [*PENDING_STATES, "failed"]
        query = select(ChainEntryRow).where(ChainEntryRow.state.in_(states)).order_by(ChainEntryRow.id)
        pending = [
            PendingEntry(
                session_id=row.session_id, kind=row.kind, state=row.state, tx_hash=row.tx_hash, message=row.message
            )
            for row in await rows.scalars(query.limit(MOST_AT_ONCE))
        ]
    async with _connected(section) as (node, signer):
        report = ChainReport(
            chain=section.chain, contract=section.contract, account=signer.address, entries=entries, pending=pending
        )
        try:
            await node.check()
            if section.enabled:
                await node.check_contract()
            report.balance_wei = await node.balance()
            report.nonce = await node.nonce((await node.head()).block.number)
        except ChainNodeError as error:
            report.node_error = str(error)
    return report


async def deploy_registry(section: ChainSection, on_sent: Callable[[str], None], *, wait_s: float) -> str:
    """Put up a registry; its address, once it is mined.

    Args:
        on_sent: is told the transaction's hash before anybody waits for it.

    Raises:
        ConfigError: the section does not say all that is needed.
        ChainNodeError: the node does not do its part, the price is above `max_fee_gwei`, the account cannot pay, or
            the transaction is not mined in time.
    """
    code = bytes.fromhex(artifact()["bytecode"].removeprefix("0x"))
    async with _connected(section) as (node, signer):
        await node.check()
        head = await node.head()
        fees, gas = await node.fees(head), await node.deployment_gas(code)
        balance = await node.balance()
        if gas is None:
            raise ChainNodeError("the chain refuses the contract", hint="does it know Cancun's instructions?")
        if fees.most_wei > section.most_fee_wei:
            raise ChainNodeError("the chain asks for more than max_fee_gwei", field="chain.max_fee_gwei")
        if balance < gas * fees.most_wei:
            raise ChainNodeError(
                f"the account has {balance} wei, and it takes {gas * fees.most_wei}", field=signer.address
            )
        signed = signer.sign(to=None, data=code, nonce=await node.nonce(head.block.number), gas=gas, fees=fees)
        await node.send(signed.raw)
        on_sent(signed.tx_hash)
        address = await _mined(node, signed.tx_hash, wait_s)
        made = Account.of(section.chain, address).address
        await node.check_contract(made)
    return made


async def _mined(node: ChainNode, tx_hash: str, wait_s: float) -> str:
    try:
        async with asyncio.timeout(wait_s):
            while (address := await node.created(tx_hash)) is None:  # noqa: ASYNC110 - the chain tells nobody
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        raise ChainNodeError(
            f"not mined within {wait_s:g} s", field=tx_hash, hint="look later who made what: an explorer knows it"
        ) from None
    return address


@asynccontextmanager
async def _connected(section: ChainSection) -> AsyncIterator[tuple[ChainNode, Signer]]:
    """The node and the account that the section names. Raises ConfigError, and what opening a keystore raises."""
    for name in ("rpc_url", "key_file", "password_file"):
        if not getattr(section, name):
            raise ConfigError("is not set", field=f"chain.{name}", hint="docs/operations.md shows a whole section")
    signer = await asyncio.to_thread(Signer.open, section)
    node = ChainNode(
        section.rpc_url, chain_id=section.chain_id, contract=section.contract, account=signer.address
    )  # fmt: skip
    try:
        yield node, signer
    finally:
        await node.close()
