"""The recorder and nodes that are dead, slow, or lie: records wait, and nothing that is not so is believed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from coordinator.chain.rpc import MAX_ANSWER_BYTES
from tests.evm import Body, Call
from tests.integration.chain_fixtures import (
    HANG_LIMIT_S,
    STUCK_AFTER_S,
    Desk,
    Stage,
    desk,
    hang,
    lie,
    stage,
    until_confirmed,
)

__all__ = ["desk", "stage"]

HASH = "0x" + "ee" * 32
FAULTS: dict[str, tuple[Any, str]] = {
    "another chain": (lie(chainId={"result": "0x2a"}), "another chain"),
    "no contract": (lie(getCode={"result": "0x"}), "no registry"),
    "another contract": (lie(getCode={"result": "0x6001"}), "no registry"),
    "errors": (lie(everything={"error": {"code": -32005, "message": "key s3cret is over its limit"}}), "-32005"),
    "no JSON": (lie(everything=b"<html>s3cret</html>"), "cannot be asked"),
    "deep JSON": (lie(everything=b"[" * 100_000), "cannot be asked"),
    "another answer": (lie(everything=b'{"jsonrpc": "2.0", "id": 1000000, "result": "0x1"}'), "not asked"),
    "a list": (lie(everything=b"[1]"), "not asked"),
    "hangs up": (lie(everything=None), "cannot be asked"),
    "no number": (lie(getTransactionCount={"result": "seven"}), "nonsense"),
    "a number that nobody has": (lie(getTransactionCount={"result": "0x" + "f" * 64}), "nonsense"),
    "a null block": (lie(getBlockByNumber={"result": None}), "nonsense"),
    "a block without a fee": (lie(getBlockByNumber={"result": {"number": "0x1", "hash": HASH}}), "base fee"),
    "half a record": (lie(call={"result": "0x01"}), "registry"),
    "a huge answer": (lie(chainId=b" " * (MAX_ANSWER_BYTES + 1)), "more than"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_node_that_does_not_do_its_part_is_waited_for(desk: Desk, stage: Stage, fault: str) -> None:
    stage.node.interfere, words = FAULTS[fault]
    await desk.open("tales")
    await desk.rounds(2)
    row = await desk.entry("tales")
    assert row.state == "waiting"
    assert words in row.message
    assert "s3cret" not in row.message
    assert desk.recorder.last_error_at is not None
    stage.node.interfere = None
    await until_confirmed(desk, "tales")
    assert (await desk.entry("tales")).message == ""


async def test_a_dead_node_is_waited_for_and_its_url_is_not_told(
    desk: Desk, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    await desk.open("tales")
    await desk.rounds()
    stage.node.down()
    await desk.rounds(3)
    row = await desk.entry("tales")
    assert (row.state, row.message) == ("sent", "the chain's node cannot be asked (ClientConnectorError)")
    warnings = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert len(warnings) == 1  # not one for each round
    assert stage.node.url not in caplog.text
    stage.node.up()
    await until_confirmed(desk, "tales")
    assert stage.transactions() == 1


async def test_a_node_that_answers_too_late_is_given_up(
    desk: Desk, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    import coordinator.chain.node

    init = coordinator.chain.node.Rpc.__init__
    monkeypatch.setattr(
        coordinator.chain.node.Rpc, "__init__", lambda self, url, timeout_s: init(self, url, timeout_s=0.2)
    )
    release = threading.Event()
    stage.node.interfere = hang(release)
    await desk.open("tales")
    began = time.monotonic()
    await desk.rounds()
    assert time.monotonic() - began < HANG_LIMIT_S / 2
    assert "did not answer within 0.2 s" in (await desk.entry("tales")).message
    release.set()


@pytest.mark.parametrize(
    "changes",
    [
        {"transactionHash": HASH}, {"to": "0x" + "11" * 20}, {"from": "0x" + "11" * 20},
        {"blockNumber": "0x" + "f" * 40},
    ],
)  # fmt: skip
async def test_the_receipt_of_another_transaction_is_no_receipt(
    desk: Desk, stage: Stage, changes: dict[str, str]
) -> None:
    def other(call: Call, honest: Callable[[], Body]) -> Body:
        said = honest()
        if call["method"] == "eth_getTransactionReceipt" and said.get("result"):
            said["result"].update(changes)
        return said

    await desk.open("tales")
    await desk.rounds()
    stage.node.interfere = other
    await desk.rounds(2)
    row = await desk.entry("tales")
    assert row.state == "sent"
    assert "receipt" in row.message
    stage.node.interfere = None
    await until_confirmed(desk, "tales")


async def test_a_receipt_of_a_block_that_is_not_in_the_chain_is_none(desk: Desk, stage: Stage) -> None:
    """The node has not noticed everywhere that the block is gone."""

    def stale(call: Call, honest: Callable[[], Body]) -> Body:
        said = honest()
        if call["method"] == "eth_getTransactionReceipt" and said.get("result"):
            said["result"]["blockHash"] = HASH
        return said

    await desk.open("tales")
    await desk.rounds()
    stage.node.interfere = stale
    await desk.rounds(2)
    row = await desk.entry("tales")
    assert (row.state, row.message) == ("sent", "")
    stage.node.interfere = None
    await until_confirmed(desk, "tales")


async def test_a_receipt_for_what_is_not_in_the_contract_confirms_nothing(desk: Desk, stage: Stage) -> None:
    """The node makes up a receipt that fits in all but the contract's state."""
    await desk.open("tales")
    await desk.rounds()
    row = await desk.entry("tales")
    block = stage.registry.web3.eth.get_block(1)
    made_up = {
        "transactionHash": row.tx_hash, "from": row.opener, "to": row.contract, "status": "0x1",
        "blockNumber": hex(block["number"]), "blockHash": block["hash"].to_0x_hex(),
    }  # fmt: skip
    stage.node.interfere = lie(getTransactionReceipt={"result": made_up})
    await desk.rounds()
    row = await desk.entry("tales")
    assert row.state == "mined"
    assert "does not hold it" in row.message
    stage.node.interfere = None
    await until_confirmed(desk, "tales")


async def test_a_node_that_refuses_the_transaction_is_tried_again(desk: Desk, stage: Stage) -> None:
    stage.node.interfere = lie(sendRawTransaction={"error": {"code": -32000, "message": "transaction underpriced"}})
    await desk.open("tales")
    await desk.rounds(2)
    row = await desk.entry("tales")
    assert (row.state, stage.node.evm.waiting()) == ("sent", [])
    assert "fee is too low" in row.message
    stage.node.interfere = None
    desk.clock.at += STUCK_AFTER_S / 5
    await until_confirmed(desk, "tales")
