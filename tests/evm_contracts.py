"""Contracts on a node's chain: put there and changed by web3, over JSON-RPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.evm import EvmNode

# what is above keeps the recursion limit as it is
# isort: split
from web3 import Web3

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

GAS_LIMIT = 1_000_000


def deploy(node: EvmNode, compiled: Mapping[str, Any], *arguments: Any) -> Any:
    """The receipt of a new contract, of its `abi` and `bytecode`; the first of the node's accounts pays for it."""
    web3 = Web3(Web3.HTTPProvider(node.url))
    factory = web3.eth.contract(abi=compiled["abi"], bytecode=compiled["bytecode"])
    return transact(web3, node.accounts[0], factory.constructor(*arguments))


def transact(web3: Web3, by: LocalAccount, called: Any) -> Any:
    """The receipt of a transaction that was mined at once, whether or not it was reverted."""
    unsigned = called.build_transaction(
        {"from": by.address, "nonce": web3.eth.get_transaction_count(by.address), "gas": GAS_LIMIT}
    )
    sent = web3.eth.send_raw_transaction(by.sign_transaction(unsigned).raw_transaction)
    return web3.eth.get_transaction_receipt(sent)
