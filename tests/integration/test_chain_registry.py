"""The registry's contract on a chain of py-evm: who may do what, which proofs it takes, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cotrain.chain.merkle import EMPTY_ROOT, Share, account_key, contributions_root, keccak, leaf, prove, session_key
from cotrain.chain.registry import artifact, is_registry
from tests.evm import EvmNode
from tests.registry_client import RegistryClient, RevertedError

SESSION = session_key("tales")
CONFIG_HASH, DIGEST = b"\1" * 32, b"\2" * 32
SHARES = [
    Share(f"eip155:1:0x{'0' * 39}{digit}", samples)
    for digit, samples in ((1, 1000), (2, 1), (3, 250), (4, 64), (5, 0))
] + [Share("aptos:1:0x" + "a" * 64, 77)]  # fmt: skip
TOTAL = sum(share.samples for share in SHARES)
ROOT = contributions_root(SHARES)

MOST_GAS = {"deploy": 410_000, "open": 70_000, "close": 77_000}
"""What each may take, a little above what is measured: a costlier contract is to be noticed."""


@pytest.fixture(scope="module")
def node() -> Iterator[EvmNode]:
    with EvmNode() as serving:
        yield serving


@pytest.fixture
def registry(node: EvmNode) -> RegistryClient:
    return RegistryClient.deploy(node)[0]


@pytest.fixture
def closed(registry: RegistryClient) -> RegistryClient:
    """A registry in which the first account has closed SESSION."""
    opener = registry.node.accounts[0]
    registry.open(opener, SESSION, CONFIG_HASH)
    registry.close(opener, SESSION, DIGEST, ROOT, TOTAL)
    return registry


def test_a_session_is_opened_and_closed_by_its_opener(registry: RegistryClient) -> None:
    opener = registry.node.accounts[1]
    opened = registry.open(opener, SESSION, CONFIG_HASH)
    (event,) = registry.contract.events.SessionOpened().process_receipt(opened)
    assert event["args"] == {"opener": opener.address, "sessionId": SESSION, "configHash": CONFIG_HASH}
    config_hash, digest, root, total, opened_at, closed_at = registry.session(opener, SESSION)
    assert (config_hash, digest, root, total, closed_at) == (CONFIG_HASH, bytes(32), bytes(32), 0, 0)
    assert opened_at == registry.web3.eth.get_block(opened["blockNumber"])["timestamp"]

    ended = registry.close(opener, SESSION, DIGEST, ROOT, TOTAL)
    (event,) = registry.contract.events.SessionClosed().process_receipt(ended)
    assert event["args"] == {
        "opener": opener.address, "sessionId": SESSION, "finalDigest": DIGEST, "contributionsRoot": ROOT,
        "totalSamples": TOTAL,
    }  # fmt: skip
    closed_at = registry.web3.eth.get_block(ended["blockNumber"])["timestamp"]
    assert registry.session(opener, SESSION) == (CONFIG_HASH, DIGEST, ROOT, TOTAL, opened_at, closed_at)


def test_opening_twice_is_refused(registry: RegistryClient) -> None:
    opener = registry.node.accounts[1]
    registry.open(opener, SESSION, CONFIG_HASH)
    before = registry.session(opener, SESSION)
    with pytest.raises(RevertedError, match="AlreadyOpened"):
        registry.open(opener, SESSION, DIGEST)
    assert registry.session(opener, SESSION) == before


def test_closing_twice_is_refused(closed: RegistryClient) -> None:
    opener = closed.node.accounts[0]
    before = closed.session(opener, SESSION)
    with pytest.raises(RevertedError, match="AlreadyClosed"):
        closed.close(opener, SESSION, b"\3" * 32, EMPTY_ROOT, 0)
    with pytest.raises(RevertedError, match="AlreadyOpened"):
        closed.open(opener, SESSION, b"\3" * 32)
    assert closed.session(opener, SESSION) == before


def test_what_was_not_opened_is_not_closed(registry: RegistryClient) -> None:
    with pytest.raises(RevertedError, match="NotOpened"):
        registry.close(registry.node.accounts[1], SESSION, DIGEST, ROOT, TOTAL)


def test_a_stranger_neither_closes_a_session_nor_occupies_its_id(registry: RegistryClient) -> None:
    opener, stranger = registry.node.accounts[1:3]
    registry.open(stranger, SESSION, b"\7" * 32)
    registry.open(opener, SESSION, CONFIG_HASH)
    registry.close(stranger, SESSION, b"\7" * 32, contributions_root([Share(SHARES[0].account, 10**9)]), 10**9)
    assert registry.session(opener, SESSION)[:4] == (CONFIG_HASH, bytes(32), bytes(32), 0)

    other = session_key("another")
    registry.open(opener, other, CONFIG_HASH)
    with pytest.raises(RevertedError, match="NotOpened"):
        registry.close(stranger, other, DIGEST, ROOT, TOTAL)


def test_a_failed_transaction_changes_nothing_on_the_chain(registry: RegistryClient) -> None:
    opener, stranger = registry.node.accounts[1:3]
    registry.open(opener, SESSION, CONFIG_HASH)
    before = registry.session(opener, SESSION)
    receipt = registry.close(stranger, SESSION, DIGEST, ROOT, TOTAL, asked_first=False)
    assert receipt["status"] == 0
    assert registry.session(opener, SESSION) == before


def test_every_share_is_proved(closed: RegistryClient) -> None:
    opener = closed.node.accounts[0]
    for share in SHARES:
        assert closed.verify(opener, SESSION, account_key(share.account), share.samples, prove(SHARES, share.account))


def test_forged_shares_are_refused(closed: RegistryClient) -> None:
    opener = closed.node.accounts[0]
    share = SHARES[0]
    key, proof = account_key(share.account), prove(SHARES, share.account)

    def takes(wallet: bytes = key, samples: int = share.samples, siblings: list[bytes] = proof) -> bool:
        return closed.verify(opener, SESSION, wallet, samples, siblings)

    assert takes()
    assert not takes(samples=share.samples + 1)
    assert not takes(samples=2**256 - 1)
    assert not takes(wallet=account_key(SHARES[1].account))
    assert not takes(wallet=account_key("eip155:1:0x" + "e" * 40))
    assert not takes(siblings=proof[:-1])
    assert not takes(siblings=[*proof, proof[-1]])
    assert not takes(siblings=[])
    assert not takes(siblings=[b"\5" * 32 for _ in proof])


def test_an_inner_node_is_no_share(closed: RegistryClient) -> None:
    opener = closed.node.accounts[0]
    shares = SHARES[:2]
    one, other = sorted(leaf(share) for share in shares)
    session = session_key("two")
    closed.open(opener, session, CONFIG_HASH)
    closed.close(opener, session, DIGEST, contributions_root(shares), 1001)
    assert closed.session(opener, session)[2] == keccak(one + other)
    assert not closed.verify(opener, session, one, int.from_bytes(other), [])


def test_nothing_is_proved_before_the_end_or_by_strangers(closed: RegistryClient) -> None:
    opener, stranger = closed.node.accounts[:2]
    share = SHARES[0]
    key, proof = account_key(share.account), prove(SHARES, share.account)
    assert not closed.verify(stranger, SESSION, key, share.samples, proof)
    assert not closed.verify(opener, session_key("never"), key, share.samples, proof)

    closed.open(opener, session_key("open"), CONFIG_HASH)
    assert not closed.verify(opener, session_key("open"), key, share.samples, proof)


def test_a_session_to_which_nobody_gave_anything_proves_nothing(registry: RegistryClient) -> None:
    opener = registry.node.accounts[1]
    registry.open(opener, SESSION, CONFIG_HASH)
    registry.close(opener, SESSION, DIGEST, contributions_root([]), 0)
    assert not registry.verify(opener, SESSION, account_key(SHARES[0].account), 0, [])
    assert not registry.verify(opener, SESSION, bytes(32), 0, [])


def test_it_takes_no_money(registry: RegistryClient) -> None:
    sender = registry.node.accounts[1]
    paid = registry.pay(sender, value_wei=1)
    assert paid["status"] == 0
    assert registry.web3.eth.get_balance(registry.address) == 0


def test_it_can_do_what_its_abi_says_and_no_more(registry: RegistryClient) -> None:
    functions = {one["name"]: one["stateMutability"] for one in artifact()["abi"] if one["type"] == "function"}
    assert functions == {
        "openSession": "nonpayable", "closeSession": "nonpayable", "session": "view", "verify": "view",
    }  # fmt: skip
    code = bytes(registry.web3.eth.get_code(registry.address))
    assert is_registry(code)
    assert not is_registry(code[:-1])
    assert not is_registry(b"")


def test_what_it_costs(node: EvmNode) -> None:
    registry, deployed = RegistryClient.deploy(node)
    opener = node.accounts[3]
    gas = {
        "deploy": deployed,
        "open": registry.open(opener, SESSION, CONFIG_HASH)["gasUsed"],
        "close": registry.close(opener, SESSION, DIGEST, ROOT, TOTAL)["gasUsed"],
    }
    assert all(used <= MOST_GAS[name] for name, used in gas.items()), gas
