"""The bond: what wallet and peer sign, and why it serves neither elsewhere, nor later, nor for another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cotrain.errors import NotAuthorizedError
from cotrain.identity.account import Account
from cotrain.identity.challenge import sign_challenge
from cotrain.identity.signature import SignatureError, verify_signature
from cotrain.identity.text import sign_in_text
from cotrain.identity.wallet import EthereumWallet
from cotrain.membership.bond import LONGEST_BOND_S, Bond, BondTerms, bond_text, check_bond, make_bond
from cotrain.membership.sealed import MembershipError
from cotrain.peer_key import PeerSigner, load_or_create_peer_key

NOW = 1_800_000_000.0
COORDINATOR = "https://train.example"


@pytest.fixture
def wallet() -> EthereumWallet:
    return EthereumWallet(b"\x11" * 32)


@pytest.fixture
def peer(tmp_path: Path) -> PeerSigner:
    load_or_create_peer_key(tmp_path / "peer.key")
    return PeerSigner(tmp_path / "peer.key")


def checked(bond: Bond, wallet: EthereumWallet, peer_id: str, **changes: Any) -> None:
    """What a coordinator does with a bond, its memory of used nonces aside."""
    facts: dict[str, Any] = {
        "account": wallet.account, "peer_id": peer_id, "session": "s", "coordinator": COORDINATOR, "now": NOW,
    }  # fmt: skip
    facts |= changes
    text = check_bond(bond, **facts)
    verify_signature(facts["account"], text, bond.signature, purpose="statement", nonce=bond.nonce)


def bond_of(wallet: EthereumWallet, peer: PeerSigner, **changes: Any) -> Bond:
    facts: dict[str, Any] = {"session": "s", "coordinator": COORDINATOR, "now": NOW} | changes
    return make_bond(wallet, peer, **facts)


def test_wallet_and_peer_sign_a_text_that_a_person_can_read(wallet: EthereumWallet, peer: PeerSigner) -> None:
    bond = bond_of(wallet, peer)
    checked(bond, wallet, peer.peer_id)
    terms = BondTerms(coordinator=COORDINATOR, nonce="00" * 16, issued_at=0, expires_at=86_400)
    text = bond_text(terms, account=wallet.account, peer_id=peer.peer_id, session="s")
    assert text == (
        "Let a peer train for my account at https://train.example\n\n"
        "This allows the peer below to take part in the session below in my name. It moves no money.\n\n"
        "Coordinator: https://train.example\n"
        "Session: s\n"
        f"Peer: {peer.peer_id}\n"
        f"Account: {wallet.account}\n"
        "Nonce: 00000000000000000000000000000000\n"
        "Issued At: 1970-01-01T00:00:00Z\n"
        "Expiration Time: 1970-01-02T00:00:00Z"
    )


def test_it_serves_at_no_other_coordinator_in_no_other_session_and_for_no_other_peer(
    wallet: EthereumWallet, peer: PeerSigner, tmp_path: Path
) -> None:
    bond = bond_of(wallet, peer)
    with pytest.raises(MembershipError, match=r"is for the coordinator https://train\.example"):
        checked(bond, wallet, peer.peer_id, coordinator="https://evil.example")
    with pytest.raises(MembershipError, match="peer itself has not signed"):
        checked(bond, wallet, peer.peer_id, session="t")
    other = load_or_create_peer_key(tmp_path / "other.key")
    with pytest.raises(MembershipError, match="peer itself has not signed"):
        checked(bond, wallet, other)


def test_nobody_claims_a_peer_whose_key_is_not_theirs(wallet: EthereumWallet, peer: PeerSigner, tmp_path: Path) -> None:
    """A thief signs with his wallet, and with his own peer's key, for the peer of somebody else."""
    thief = EthereumWallet(b"\x22" * 32)
    load_or_create_peer_key(tmp_path / "thief.key")
    signer = PeerSigner(tmp_path / "thief.key")
    signer.peer_id = peer.peer_id
    with pytest.raises(MembershipError, match="peer itself has not signed"):
        checked(bond_of(thief, signer), thief, peer.peer_id)
    # and the honest peer's signature is over the honest wallet's name
    stolen = bond_of(wallet, peer)
    with pytest.raises(MembershipError, match="peer itself has not signed"):
        checked(stolen, thief, peer.peer_id)


def test_a_peer_alone_cannot_give_itself_to_a_wallet(wallet: EthereumWallet, peer: PeerSigner) -> None:
    class Impostor:
        account = wallet.account

        def sign(self, text: str) -> str:
            return EthereumWallet(b"\x33" * 32).sign(text)

    bond = make_bond(Impostor(), peer, session="s", coordinator=COORDINATOR, now=NOW)
    with pytest.raises(SignatureError):
        checked(bond, wallet, peer.peer_id)


@pytest.mark.parametrize(
    ("made_at", "lifetime_s", "reason"),
    [
        (NOW - 200, 100, "expired, or holds for too long"),
        (NOW, LONGEST_BOND_S + 1, "expired, or holds for too long"),
        (NOW + 3600, 7200, "not valid yet"),
    ],
)
def test_it_holds_for_its_time_only(
    wallet: EthereumWallet, peer: PeerSigner, made_at: float, lifetime_s: int, reason: str
) -> None:
    with pytest.raises(MembershipError, match=reason):
        checked(bond_of(wallet, peer, now=made_at, lifetime_s=lifetime_s), wallet, peer.peer_id)


@pytest.mark.parametrize("field", ["nonce", "issued_at", "expires_at"])
def test_no_field_can_be_changed_afterwards(wallet: EthereumWallet, peer: PeerSigner, field: str) -> None:
    bond = bond_of(wallet, peer)
    changed = "ab" * 16 if field == "nonce" else getattr(bond, field) + 1
    with pytest.raises(MembershipError, match="peer itself has not signed"):
        checked(bond.model_copy(update={field: changed}), wallet, peer.peer_id)


def test_a_sign_in_is_no_statement_and_a_statement_no_sign_in(wallet: EthereumWallet, peer: PeerSigner) -> None:
    bond = bond_of(wallet, peer)
    sign_in = sign_in_text(
        wallet.account, domain="train.example", uri=COORDINATOR, nonce=bond.nonce, issued_at=NOW, expires_at=NOW + 300
    )
    with pytest.raises(SignatureError):
        verify_signature(wallet.account, sign_in, bond.signature, purpose="sign-in")
    swapped = bond.model_copy(update={"signature": wallet.sign(sign_in)})
    with pytest.raises(SignatureError):
        checked(swapped, wallet, peer.peer_id)


# ---------------------------------------------------------------------------------------------- signing by itself
def challenge(account: Account, **changes: Any) -> str:
    facts: dict[str, Any] = {
        "domain": "train.example", "uri": COORDINATOR, "nonce": "ab" * 16, "issued_at": NOW, "expires_at": NOW + 300,
    }  # fmt: skip
    return sign_in_text(account, **(facts | changes))


def test_a_node_signs_what_its_own_coordinator_asks_for(wallet: EthereumWallet) -> None:
    message = challenge(wallet.account)
    signature = sign_challenge(wallet, nonce="ab" * 16, message=message, coordinator=COORDINATOR)
    verify_signature(wallet.account, message, signature, purpose="sign-in")


def test_a_node_signs_nothing_else(wallet: EthereumWallet) -> None:
    other = EthereumWallet(b"\x44" * 32).account
    texts = [
        challenge(wallet.account, domain="bank.example"),
        challenge(wallet.account, uri="https://bank.example"),
        challenge(wallet.account, nonce="cd" * 16),
        challenge(other),
        challenge(wallet.account) + "\nResources:\n- https://bank.example",
        challenge(wallet.account).replace("Issued At: 2", "Issued At: x"),
        "Send everything to me",
        "",
    ]
    for text in texts:
        with pytest.raises(NotAuthorizedError, match="nothing else is signed"):
            sign_challenge(wallet, nonce="ab" * 16, message=text, coordinator=COORDINATOR)
    with pytest.raises(NotAuthorizedError, match=r"it calls itself bank\.example"):
        sign_challenge(wallet, nonce="ab" * 16, message=texts[0], coordinator=COORDINATOR)
