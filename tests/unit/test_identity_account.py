"""Accounts: one wallet has one spelling, and what is no account is refused with its field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.errors import InvalidRequestError
from cotrain.identity.account import Account

# the addresses of EIP-55's own examples
CHECKSUMMED = [
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
]
APTOS_ADDRESS = "0x147e4d3a5b10eaed2a93536e284c23096dfcea9ac61f0a8420e5d01fbd8f0ea8"


@pytest.mark.parametrize("address", CHECKSUMMED)
def test_an_ethereum_address_gets_its_checksum(address: str) -> None:
    for spelling in (address, address.lower(), "0x" + address[2:].upper()):
        assert str(Account.of("eip155:1", spelling)) == f"eip155:1:{address}"


def test_an_aptos_address_is_kept_in_lower_case() -> None:
    account = Account.of("aptos:2", "0x" + APTOS_ADDRESS[2:].upper())
    assert (account.namespace, account.reference, account.address) == ("aptos", "2", APTOS_ADDRESS)
    assert account.chain == "aptos:2"


@given(
    st.sampled_from(["eip155", "aptos"]), st.integers(1, 10**18 - 1), st.binary(min_size=32, max_size=32)
)  # fmt: skip
def test_a_name_is_read_as_it_was_written(namespace: str, reference: int, raw: bytes) -> None:
    address = "0x" + (raw[:20] if namespace == "eip155" else raw).hex()
    account = Account.of(f"{namespace}:{reference}", address)
    assert Account.parse(str(account)) == account
    assert account.address.lower() == address


@pytest.mark.parametrize(
    "chain",
    ["", "eip155", "eip155:", "eip155:0", "eip155:01", "eip155:-1", "eip155:1 ", "eip155:1\n", "eip155:١", "EIP155:1",
     "solana:1", "aptos:mainnet", "eip155:1:2", "eip155:" + "9" * 19],
)  # fmt: skip
def test_what_is_no_chain_is_refused(chain: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Account.of(chain, CHECKSUMMED[0])
    assert caught.value.field == "chain"
    assert "eip155:1" in caught.value.hint


@pytest.mark.parametrize(
    ("chain", "address", "reason"),
    [
        ("eip155:1", "", "not an Ethereum address"),
        ("eip155:1", "0x", "not an Ethereum address"),
        ("eip155:1", CHECKSUMMED[2][2:], "not an Ethereum address"),
        ("eip155:1", "0X" + CHECKSUMMED[2][2:], "not an Ethereum address"),
        ("eip155:1", CHECKSUMMED[2] + "\n", "not an Ethereum address"),
        ("eip155:1", CHECKSUMMED[2][:-1] + "g", "not an Ethereum address"),
        ("eip155:1", "vitalik.eth", "not an Ethereum address"),
        ("eip155:1", APTOS_ADDRESS, "not an Ethereum address"),
        ("eip155:1", CHECKSUMMED[2].replace("aA", "Aa", 1), "checksum"),
        ("aptos:1", "0x1", "not an Aptos address in its long form"),
        ("aptos:1", CHECKSUMMED[2], "not an Aptos address"),
        ("aptos:1", APTOS_ADDRESS + "0", "not an Aptos address"),
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(chain: str, address: str, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason) as caught:
        Account.of(chain, address)
    assert caught.value.field == "address"
    assert caught.value.hint


@pytest.mark.parametrize(
    "name", ["", ":", "0x", CHECKSUMMED[0], f"eip155:{CHECKSUMMED[0]}", "eip155:1:", "aptos:1:0x1"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError):
        Account.parse(name)
