"""Shares of a session under one root: what is proved, and that nothing else is."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.chain.config_hash import config_hash
from cotrain.chain.merkle import (
    EMPTY_ROOT,
    LONGEST_PROOF,
    Share,
    ShareError,
    ShareTree,
    account_key,
    contributions_root,
    keccak,
    leaf,
    prove,
    session_key,
    verify,
)
from cotrain.errors import InvalidRequestError, NotFoundError
from cotrain.sections import LARGEST_INTEGER

samples = st.integers(0, LARGEST_INTEGER)
accounts = st.builds(lambda chain, number: f"aptos:{chain}:0x{number:064x}", st.integers(1, 9), st.integers(0, 2**64))
shares_of_a_session = st.lists(
    st.builds(Share, accounts, samples), min_size=1, max_size=40, unique_by=lambda share: share.account
)


def account(number: int) -> str:
    return f"eip155:1:0x{number:040d}"


# ------------------------------------------------------------------------------------------------- laws
@given(shares_of_a_session)
def test_every_share_is_proved(shares: list[Share]) -> None:
    tree = ShareTree(shares)
    assert all(verify(tree.root, share, tree.proof(share.account)) for share in shares)


@given(shares_of_a_session, st.randoms(use_true_random=False))
def test_the_order_of_the_shares_does_not_count(shares: list[Share], random: object) -> None:
    mixed = list(shares)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert contributions_root(mixed) == contributions_root(shares)


@given(shares_of_a_session, samples, st.data())
def test_no_other_number_of_samples_is_proved(shares: list[Share], claimed: int, data: st.DataObject) -> None:
    share = data.draw(st.sampled_from(shares))
    root, proof = contributions_root(shares), prove(shares, share.account)
    assert verify(root, Share(share.account, claimed), proof) == (claimed == share.samples)


@given(shares_of_a_session, st.data())
def test_no_proof_serves_another_account(shares: list[Share], data: st.DataObject) -> None:
    one, other = data.draw(st.sampled_from(shares)), data.draw(st.sampled_from(shares))
    root, proof = contributions_root(shares), prove(shares, one.account)
    assert verify(root, Share(other.account, one.samples), proof) == (one.account == other.account)


@given(shares_of_a_session, st.data())
def test_a_proof_with_a_changed_bit_proves_nothing(shares: list[Share], data: st.DataObject) -> None:
    share = data.draw(st.sampled_from(shares))
    root, proof = contributions_root(shares), prove(shares, share.account)
    if not proof:
        return
    place, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
    changed = (int.from_bytes(proof[place]) ^ (1 << bit)).to_bytes(32)
    assert not verify(root, share, [*proof[:place], changed, *proof[place + 1 :]])


@given(shares_of_a_session, st.data())
def test_a_session_without_one_of_its_shares_has_another_root(shares: list[Share], data: st.DataObject) -> None:
    dropped = data.draw(st.sampled_from(shares))
    assert contributions_root([share for share in shares if share is not dropped]) != contributions_root(shares)


@given(shares_of_a_session)
def test_proofs_are_no_longer_than_the_tree_is_high(shares: list[Share]) -> None:
    tree = ShareTree(shares)
    assert max(len(tree.proof(share.account)) for share in shares) == (len(shares) - 1).bit_length()


# ------------------------------------------------------------------------------------------------- cases
def test_no_shares_have_the_empty_root_and_nothing_is_under_it() -> None:
    assert contributions_root([]) == EMPTY_ROOT == bytes(32)
    assert not verify(EMPTY_ROOT, Share(account(1), 0), [])
    with pytest.raises(NotFoundError, match="has no share"):
        prove([], account(1))


def test_a_single_share_is_the_root_and_needs_no_siblings() -> None:
    share = Share(account(1), 5)
    assert contributions_root([share]) == leaf(share) == keccak(keccak(account_key(account(1)) + bytes(31) + b"\5"))
    assert prove([share], account(1)) == []
    assert verify(leaf(share), share, [])


def test_an_account_with_two_shares_is_refused() -> None:
    with pytest.raises(ShareError, match="two shares") as refused:
        contributions_root([Share(account(1), 5), Share(account(2), 1), Share(account(1), 6)])
    assert refused.value.field == account(1)
    with pytest.raises(ShareError):
        contributions_root([Share(account(1), 5), Share(account(1), 5)])


def test_an_inner_node_is_no_share() -> None:
    one, other = Share(account(1), 5), Share(account(2), 6)
    root = contributions_root([one, other])
    assert root == keccak(min(leaf(one), leaf(other)) + max(leaf(one), leaf(other)))
    assert leaf(one) != keccak(account_key(one.account) + one.samples.to_bytes(32))


@pytest.mark.parametrize(
    "proof", [[b"\1" * 32] * (LONGEST_PROOF + 1), [b"\1" * 31], [b"\1" * 64], [b""]],
    ids=["too long", "short", "two in one", "empty"],
)  # fmt: skip
def test_what_is_no_proof_proves_nothing(proof: list[bytes]) -> None:
    share = Share(account(1), 5)
    assert not verify(leaf(share), share, proof)


@pytest.mark.parametrize(
    "name",
    [
        "", "x", account(1).upper(), "eip155:1:0x8BA1f109551bD432803012645Ac136ddd64DBA72", f" {account(1)}",
        "eip155:1:0x8ba1f109551bd432803012645ac136ddd64dba72", "aptos:1:0x" + "A" * 64, "aptos:1:0x" + "a" * 10_000,
        "bip122:1:0x" + "a" * 64,
    ],
)  # fmt: skip
def test_an_account_has_one_spelling(name: str) -> None:
    with pytest.raises(InvalidRequestError):
        Share(name, 1)


@pytest.mark.parametrize("count", [-1, LARGEST_INTEGER + 1, True, 2**256])
def test_samples_have_bounds(count: int) -> None:
    with pytest.raises(InvalidRequestError, match="samples"):
        Share(account(1), count)


def test_keys_are_hashes_of_names() -> None:
    # of "tales", by any implementation of Ethereum's keccak256; SHA3-256 pads otherwise
    assert session_key("tales") == keccak(b"tales")
    assert session_key("tales") != hashlib.sha3_256(b"tales").digest()
    assert keccak(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


def test_a_config_is_hashed_byte_by_byte() -> None:
    assert config_hash("a = 1\n") == hashlib.sha256(b"a = 1\n").digest()
    assert config_hash("a = 1\n") != config_hash("a = 1\r\n")
    assert config_hash("# ä\n") == hashlib.sha256(b"# \xc3\xa4\n").digest()
