"""The registry's contract for tests: put on a chain and asked by web3, over JSON-RPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cotrain.chain.registry import artifact
from tests.evm import EvmNode
from tests.evm_chain import GWEI
from tests.evm_contracts import GAS_LIMIT, deploy, transact

# what is above keeps the recursion limit as it is
# isort: split
from web3 import Web3
from web3.contract.contract import ContractFunction
from web3.exceptions import ContractCustomError

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount


class RevertedError(Exception):
    """A transaction was refused by the contract; `name` is its custom error."""

    def __init__(self, name: str):
        super().__init__(name)
        self.name = name


class RegistryClient:
    """A registry on a node's chain."""

    def __init__(self, node: EvmNode, address: str):
        self.node, self.address = node, address
        self.web3 = Web3(Web3.HTTPProvider(node.url))
        self.contract = self.web3.eth.contract(address=Web3.to_checksum_address(address), abi=artifact()["abi"])

    @classmethod
    def deploy(cls, node: EvmNode) -> tuple[RegistryClient, int]:
        """A new registry, and the gas that it took."""
        receipt = deploy(node, artifact())
        return cls(node, receipt["contractAddress"]), receipt["gasUsed"]

    def open(self, by: LocalAccount, session: bytes, config_hash: bytes) -> Any:
        """The receipt of `openSession`. Raises RevertedError."""
        return self._send(by, self.contract.functions.openSession(session, config_hash))

    def close(
        self, by: LocalAccount, session: bytes, digest: bytes, root: bytes, total: int, *, asked_first: bool = True
    ) -> Any:
        """The receipt of `closeSession`. Raises RevertedError, unless it is sent without having been tried."""
        called = self.contract.functions.closeSession(session, digest, root, total)
        return self._send(by, called) if asked_first else transact(self.web3, by, called)

    def pay(self, by: LocalAccount, *, value_wei: int) -> Any:
        """The receipt of money that is sent to the contract."""
        unsigned = {
            "to": self.address, "value": value_wei, "gas": GAS_LIMIT, "chainId": self.node.evm.chain_id,
            "nonce": self.web3.eth.get_transaction_count(by.address), "maxFeePerGas": 2 * self.web3.eth.gas_price,
            "maxPriorityFeePerGas": GWEI,
        }  # fmt: skip
        sent = self.web3.eth.send_raw_transaction(by.sign_transaction(unsigned).raw_transaction)
        return self.web3.eth.get_transaction_receipt(sent)

    def verify(self, opener: LocalAccount, session: bytes, wallet: bytes, samples: int, proof: list[bytes]) -> bool:
        """What the contract says to a proof."""
        called = self.contract.functions.verify(opener.address, session, wallet, samples, proof)
        return bool(called.call())

    def session(self, opener: LocalAccount, session: bytes) -> tuple[Any, ...]:
        """The record, in the order of the contract's struct."""
        return tuple(self.contract.functions.session(opener.address, session).call())

    def _send(self, by: LocalAccount, called: ContractFunction) -> Any:
        try:
            called.call({"from": by.address})
        except ContractCustomError as error:
            raise RevertedError(_error_names()[str(error.data)[2:10]]) from error
        return transact(self.web3, by, called)


def _error_names() -> dict[str, str]:
    """Selector (8 hexadecimal digits) -> name of a custom error."""
    errors = [one for one in artifact()["abi"] if one["type"] == "error"]
    named = {one["name"]: f"{one['name']}({','.join(each['type'] for each in one['inputs'])})" for one in errors}
    return {Web3.keccak(text=signature)[:4].hex(): name for name, signature in named.items()}
