"""The account that signs what goes to the chain. Its key is never written, logged or shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coordinator.chain.config import ChainSection
from coordinator.chain.machine import Fees
from cotrain.identity.ethereum import EthereumSigner
from cotrain.identity.keystore import open_keystore
from cotrain.identity.password import PasswordSource


@dataclass(frozen=True)
class Signed:
    """A signed transaction; both are 0x-hex."""

    tx_hash: str
    raw: str


class Signer:
    """Signs transactions of type 2 (EIP-1559) for one chain."""

    def __init__(self, key: bytes, chain_id: int):
        self._signer = EthereumSigner.from_key(key)
        self._chain_id = chain_id
        self.address: str = self._signer.address
        """0x-hex with its checksum (EIP-55)."""

    @classmethod
    def open(cls, section: ChainSection) -> Signer:
        """The one in the section's keystore; takes a second. Raises CotrainError that names the file."""
        keystore = Path(section.key_file)
        password = PasswordSource(file=Path(section.password_file)).of_existing(keystore)
        return cls(open_keystore(keystore, password), section.chain_id)

    def sign(self, *, to: str | None, data: bytes, nonce: int, gas: int, fees: Fees) -> Signed:
        """A transaction without value; `to` None makes a contract."""
        unsigned = {
            "type": 2, "chainId": self._chain_id, "nonce": nonce, "value": 0, "data": data, "gas": gas,
            "maxFeePerGas": fees.most_wei, "maxPriorityFeePerGas": fees.tip_wei,
        }  # fmt: skip
        signed = self._signer.sign_transaction(unsigned if to is None else {**unsigned, "to": bytes.fromhex(to[2:])})
        return Signed("0x" + bytes(signed.hash).hex(), "0x" + bytes(signed.raw_transaction).hex())

    def __repr__(self) -> str:
        return f"Signer({self.address})"
