"""A wallet's public name: an address on a chain, in the form of CAIP-10 (https://chainagnostic.org/CAIPs/caip-10).

Ethereum addresses are kept with their EIP-55 checksum, Aptos addresses in their long form in lower case, so that one
wallet has one spelling: `eip155:1:0x8ba1f109551bD432803012645Ac136ddd64DBA72`, `aptos:1:0x` and 64 digits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from cotrain.errors import InvalidRequestError

Namespace = Literal["eip155", "aptos"]

_CHAIN = re.compile(r"(eip155|aptos):([1-9][0-9]{0,17})", re.ASCII)
_ETHEREUM_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)
_APTOS_ADDRESS = re.compile(r"0x[0-9a-fA-F]{64}", re.ASCII)


@dataclass(frozen=True)
class Account:
    """One wallet on one chain. Make it with `of` or `parse`, which check and normalize."""

    namespace: Namespace
    reference: str
    """The chain's number within its namespace, decimal."""
    address: str

    @classmethod
    def of(cls, chain: str, address: str) -> Account:
        """An account by CAIP-2 chain and address. Raises InvalidRequestError that names the field."""
        found = _CHAIN.fullmatch(chain)
        if found is None:
            raise InvalidRequestError(
                "is not a chain that wallets can sign in with", field="chain",
                hint='a chain is "eip155:1" (Ethereum) or "aptos:1" (Aptos)',
            )  # fmt: skip
        if found[1] == "eip155":
            return cls("eip155", found[2], _normal_ethereum(address))
        return cls("aptos", found[2], _normal_aptos(address))

    @classmethod
    def parse(cls, text: str) -> Account:
        """An account by its CAIP-10 name. Raises InvalidRequestError."""
        chain, _, address = text.rpartition(":")
        return cls.of(chain, address)

    @property
    def chain(self) -> str:
        """CAIP-2: `eip155:1`."""
        return f"{self.namespace}:{self.reference}"

    def __str__(self) -> str:
        return f"{self.chain}:{self.address}"


def _normal_ethereum(address: str) -> str:
    if _ETHEREUM_ADDRESS.fullmatch(address) is None:
        raise InvalidRequestError("is not an Ethereum address", field="address", hint="0x and 40 hexadecimal digits")
    # a coordinator that starts does without what this loads
    from eth_utils.address import is_checksum_address, to_checksum_address

    digits = address[2:]
    mixed = digits not in (digits.lower(), digits.upper())
    if mixed and not is_checksum_address(address):
        raise InvalidRequestError(
            "the checksum in the letters' case is wrong", field="address", hint="copy the address again (EIP-55)"
        )
    return str(to_checksum_address(address))


def _normal_aptos(address: str) -> str:
    if _APTOS_ADDRESS.fullmatch(address) is None:
        raise InvalidRequestError(
            "is not an Aptos address in its long form", field="address", hint="0x and 64 hexadecimal digits"
        )
    return address.lower()
