"""The recorder against a real EVM: reorganizations, stuck, used and missing nonces, restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from coordinator.chain.content import content_of
from cotrain.chain.config_hash import config_hash
from cotrain.chain.merkle import session_key
from tests.databases import BOTH
from tests.evm import Body, Call
from tests.evm_chain import GWEI
from tests.integration.chain_fixtures import (
    CONFIRMATIONS,
    DIGEST,
    STUCK_AFTER_S,
    Clock,
    Desk,
    Stage,
    desk,
    desk_at,
    lie,
    stage,
    until_confirmed,
)
from tests.integration.coordinator_fixtures import until
from tests.registry_client import RegistryClient

__all__ = ["desk", "stage"]


# ------------------------------------------------------------------------------------------------- the way
@BOTH
async def test_a_session_is_opened_and_closed_once(desk: Desk, stage: Stage) -> None:
    await desk.open("tales")
    await desk.rounds()
    assert await desk.state("tales") == "sent"
    assert len(stage.node.evm.waiting()) == 1
    await desk.rounds(2)
    assert await desk.state("tales") == "mined"
    await desk.end("tales")
    await desk.rounds()
    assert await desk.state("tales", "close") == "waiting"  # its opening may still be taken back
    await until_confirmed(desk, "tales")
    await until_confirmed(desk, "tales", "close")
    found = stage.recorded("tales")
    assert (found.config_hash, found.final_digest) == (config_hash("# tales\n"), bytes.fromhex(DIGEST))
    assert (found.contributions_root, found.total_samples) == (bytes(32), 0)
    assert stage.transactions() == 2
    opening = await desk.entry("tales")
    receipt = stage.registry.web3.eth.get_transaction_receipt(opening.tx_hash)  # type: ignore[arg-type]
    assert receipt["blockHash"].to_0x_hex() == opening.block_hash


async def test_nobody_is_asked_while_nothing_is_pending(desk: Desk, stage: Stage) -> None:
    await desk.open("tales")
    await until_confirmed(desk, "tales")
    asked = len(stage.node.calls)
    await desk.rounds(3)
    assert len(stage.node.calls) == asked


async def test_several_sessions_go_one_after_another_without_a_gap(desk: Desk, stage: Stage) -> None:
    for session in ("a", "b", "c"):
        await desk.open(session)
    await desk.rounds()
    assert [one.nonce for one in stage.node.evm.waiting()] == [0]
    for session in ("a", "b", "c"):
        await until_confirmed(desk, session)
    assert [(await desk.entry(session)).nonce for session in ("a", "b", "c")] == [0, 1, 2]


# ------------------------------------------------------------------------------------------------- reorganizations
@pytest.mark.parametrize("lose", [True, False])
async def test_what_a_reorganization_takes_back_is_sent_again(desk: Desk, stage: Stage, lose: bool) -> None:
    await desk.open("tales")
    await desk.rounds(2)
    before = await desk.entry("tales")
    assert before.state == "mined"
    stage.node.evm.reorganize(1, lose=lose)
    assert stage.recorded("tales").opened_at == 0
    await desk.rounds()
    assert await desk.state("tales") == "sent"
    assert len(stage.node.evm.waiting()) == 1  # the same bytes: two of them are one
    await until_confirmed(desk, "tales")
    after = await desk.entry("tales")
    assert (after.tx_hash, after.nonce) == (before.tx_hash, before.nonce)
    assert after.block_hash != before.block_hash
    assert stage.transactions() == 1


async def test_a_block_that_another_takes_the_place_of_counts_its_confirmations_anew(desk: Desk, stage: Stage) -> None:
    await desk.open("tales")
    await desk.rounds(2)
    first = await desk.entry("tales")
    stage.node.evm.reorganize(1)
    stage.node.evm.mine()  # it is in again, in another block
    await desk.rounds()
    second = await desk.entry("tales")
    assert (second.state, second.tx_hash) == ("mined", first.tx_hash)
    assert second.block_number is not None
    assert first.block_number is not None
    assert second.block_number > first.block_number
    await until_confirmed(desk, "tales")


async def test_an_opening_that_is_lost_after_its_confirmation_comes_before_the_end(desk: Desk, stage: Stage) -> None:
    await desk.open("tales")
    await until_confirmed(desk, "tales")
    stage.node.evm.reorganize(CONFIRMATIONS + 1, lose=True)
    await desk.end("tales")
    await desk.rounds()
    assert await desk.state("tales") == "waiting"
    await until_confirmed(desk, "tales")
    await until_confirmed(desk, "tales", "close")
    assert stage.recorded("tales").final_digest.hex() == DIGEST


# ------------------------------------------------------------------------------------------------- nonces and fees
async def test_a_transaction_that_is_stuck_is_replaced_by_one_with_a_higher_fee(desk: Desk, stage: Stage) -> None:
    stage.node.evm.least_priority_fee_wei = GWEI + 1
    await desk.open("tales")
    await desk.rounds(2)
    assert await desk.state("tales") == "sent"
    (stuck,) = stage.node.evm.waiting()
    desk.clock.at += STUCK_AFTER_S
    await desk.rounds()
    (replacing,) = stage.node.evm.waiting()
    assert replacing.nonce == stuck.nonce
    assert replacing.max_fee_per_gas >= stuck.max_fee_per_gas * 1.1
    await until_confirmed(desk, "tales")
    assert stage.transactions() == 1


async def test_no_fee_is_offered_above_the_operators(stage: Stage, database_url: str) -> None:
    async with desk_at(stage, database_url, max_fee_gwei=0.5) as desk:
        await desk.open("tales")
        await desk.rounds()
        row = await desk.entry("tales")
        assert (row.state, stage.node.evm.waiting()) == ("waiting", [])
        assert "max_fee_gwei" in row.message
    async with desk_at(stage, database_url, max_fee_gwei=3) as desk:
        await until_confirmed(desk, "tales")


async def test_a_transaction_that_the_pool_has_lost_is_sent_again(desk: Desk, stage: Stage) -> None:
    await desk.open("tales")
    before = stage.node.calls.count("eth_sendRawTransaction")
    await desk.rounds()
    stage.node.evm.drop_waiting()
    desk.clock.at += STUCK_AFTER_S / 5
    await until_confirmed(desk, "tales")
    assert stage.node.calls.count("eth_sendRawTransaction") == before + 2
    assert stage.transactions() == 1


async def test_a_nonce_that_somebody_else_has_used_is_given_up(desk: Desk, stage: Stage) -> None:
    await desk.open("tales")
    await desk.rounds()
    stage.node.evm.drop_waiting()
    stage.node.evm.mines_at_once = True
    stage.registry.open(stage.opener, session_key("of-a-person"), bytes(32))
    stage.node.evm.mines_at_once = False
    await desk.rounds()
    assert (await desk.entry("tales")).nonce == 0
    await until_confirmed(desk, "tales")
    assert (await desk.entry("tales")).nonce == 1


async def test_a_nonce_that_leads_nowhere_is_given_up(desk: Desk, stage: Stage) -> None:
    """The node said once that the account is further than it is."""

    def ahead(call: Call, honest: Callable[[], Body]) -> Body:
        return {"result": "0x7"} if call["method"] == "eth_getTransactionCount" else honest()

    await desk.open("tales")
    stage.node.interfere = ahead
    await desk.rounds()
    stage.node.interfere = None
    assert (await desk.entry("tales")).nonce == 7
    await desk.rounds(2)
    assert await desk.state("tales") == "sent"
    desk.clock.at += STUCK_AFTER_S
    await until_confirmed(desk, "tales")
    assert (await desk.entry("tales")).nonce == 0


async def test_what_somebody_has_recorded_already_is_believed_and_not_paid_twice(desk: Desk, stage: Stage) -> None:
    stage.node.evm.mines_at_once = True
    stage.registry.open(stage.opener, session_key("tales"), config_hash("# tales\n"))
    stage.node.evm.mines_at_once = False
    await desk.open("tales")
    await until_confirmed(desk, "tales")
    assert (await desk.entry("tales")).tx_hash == ""
    assert stage.transactions() == 1


async def test_another_record_under_the_same_id_fails_and_so_does_its_end(desk: Desk, stage: Stage) -> None:
    stage.node.evm.mines_at_once = True
    stage.registry.open(stage.opener, session_key("tales"), b"\7" * 32)
    stage.node.evm.mines_at_once = False
    desk.pass_block(CONFIRMATIONS)
    await desk.open("tales")
    await desk.end("tales")
    await desk.rounds(2)
    assert await desk.state("tales") == await desk.state("tales", "close") == "failed"
    assert "another record" in (await desk.entry("tales")).message
    assert stage.transactions() == 1


async def test_an_account_without_money_waits_and_says_so(stage: Stage, database_url: str) -> None:
    def poor(call: Call, honest: Callable[[], Body]) -> Body:
        return {"result": "0x1"} if call["method"] == "eth_getBalance" else honest()

    async with desk_at(stage, database_url) as desk:
        stage.node.interfere = poor
        await desk.open("tales")
        await desk.rounds()
        assert "the account has 1 wei" in (await desk.entry("tales")).message
        stage.node.interfere = None
        await until_confirmed(desk, "tales")


# ------------------------------------------------------------------------------------------------- restarts, settings
async def test_a_restart_goes_on_where_the_entry_is(stage: Stage, database_url: str) -> None:
    """Also where the bytes were signed and stored, and nobody was sent them."""
    clock = Clock()
    seen = []
    async with desk_at(stage, database_url, clock) as desk:
        await desk.open("tales")
    stage.node.interfere = lie(sendRawTransaction=None)
    for _ in range(2):
        async with desk_at(stage, database_url, clock) as desk:
            await desk.rounds()
            row = await desk.entry("tales")
            seen.append((row.state, row.tx_hash))
    stage.node.interfere = None
    for _ in range(4):
        async with desk_at(stage, database_url, clock) as desk:
            await desk.rounds()
            row = await desk.entry("tales")
            seen.append((row.state, row.tx_hash))
            desk.pass_block()
    assert [state for state, _ in seen] == ["signed", "signed", "sent", "mined", "mined", "confirmed"]
    assert len({tx_hash for _, tx_hash in seen}) == 1
    assert stage.transactions() == 1


async def test_entries_of_other_settings_wait_for_these(stage: Stage, database_url: str) -> None:
    clock = Clock()
    async with desk_at(stage, database_url, clock) as desk:
        await desk.open("tales")
    stage.node.evm.mines_at_once = True
    other, _ = RegistryClient.deploy(stage.node)
    stage.node.evm.mines_at_once = False
    async with desk_at(stage, database_url, clock, contract=other.address) as desk:
        await desk.recorder.begin()
        await desk.open("poems")
        await until_confirmed(desk, "poems")
        assert "another chain, contract or key" in (await desk.entry("tales")).message
        assert stage.recorded("tales").opened_at == 0
    async with desk_at(stage, database_url, clock) as desk:
        await until_confirmed(desk, "tales")


async def test_signed_transactions_go_after_their_time_and_records_stay(stage: Stage, database_url: str) -> None:
    clock = Clock()
    async with desk_at(stage, database_url, clock, transactions_kept_days=1) as desk:
        await desk.open("tales")
        await until_confirmed(desk, "tales")
        for passed_s, kept in ((80_000.0, 1), (90_000.0, 0)):
            clock.at += passed_s
            running = asyncio.create_task(desk.recorder.run())
            await _until_kept(desk, kept)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        row = await desk.entry("tales")
        assert row.state == "confirmed"
        assert row.tx_hash.startswith("0x")
        assert content_of(row).config_hash == config_hash("# tales\n")


async def _until_kept(desk: Desk, transactions: int) -> None:
    async def reached() -> bool:
        return len((await desk.entry("tales")).transactions) == transactions

    await until(reached)
