"""The bond: a wallet's signed statement that a peer acts for it in one session, and the peer's signature beside it.

The wallet's signature keeps others from giving this wallet peers; the peer's keeps others from claiming this peer. The
coordinator's address, the session, the validity and a nonce stand in the text: it serves once, and nowhere else.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from cotrain.identity.account import Account
from cotrain.identity.challenge import Signer
from cotrain.membership.certificate import CLOCK_TOLERANCE_S, Seconds
from cotrain.membership.sealed import MembershipError
from cotrain.peer_key import PeerSigner, signed_by_peer
from cotrain.request import CamelModel

LONGEST_BOND_S = 90 * 24 * 3600
PEER_PURPOSE = "bond"
LONGEST_SIGNATURE = 16 * 1024
"""Hexadecimal digits: contract wallets have long ones."""


class BondTerms(CamelModel):
    """What is signed besides account, peer and session."""

    coordinator: Annotated[str, Field(max_length=300)]
    """The coordinator's public URL, as the volunteer knows it."""
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    issued_at: Seconds
    expires_at: Seconds


class Bond(BondTerms):
    """The terms, and the two signatures; account, peer and session stand in the registration."""

    signature: Annotated[str, Field(max_length=LONGEST_SIGNATURE)]
    """The wallet's, over `bond_text`: 0x and hexadecimal digits."""
    public_key: Annotated[str | None, Field(max_length=200)] = None
    """Aptos only."""
    peer_signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
    """The peer's Ed25519 signature over the same text."""


def bond_text(terms: BondTerms, *, account: Account, peer_id: str, session: str) -> str:
    """The statement, readable by who signs it."""
    return (
        f"Let a peer train for my account at {terms.coordinator}\n\n"
        "This allows the peer below to take part in the session below in my name. It moves no money.\n\n"
        f"Coordinator: {terms.coordinator}\n"
        f"Session: {session}\n"
        f"Peer: {peer_id}\n"
        f"Account: {account}\n"
        f"Nonce: {terms.nonce}\n"
        f"Issued At: {_rfc3339(terms.issued_at)}\n"
        f"Expiration Time: {_rfc3339(terms.expires_at)}"
    )


def new_terms(coordinator: str, *, now: float, lifetime_s: int) -> BondTerms:
    """Terms of a statement that is valid from `now` (Unix seconds) on."""
    issued_at = int(now)
    return BondTerms(
        coordinator=coordinator, nonce=secrets.token_hex(16), issued_at=issued_at, expires_at=issued_at + lifetime_s
    )


def make_bond(
    wallet: Signer, peer: PeerSigner, *, session: str, coordinator: str, now: float, lifetime_s: int = 30 * 24 * 3600
) -> Bond:
    """Sign a statement that is valid from now on."""
    terms = new_terms(coordinator, now=now, lifetime_s=lifetime_s)
    text = bond_text(terms, account=wallet.account, peer_id=peer.peer_id, session=session)
    return complete_bond(terms, text, peer, signature=wallet.sign(text))


def complete_bond(
    terms: BondTerms, text: str, peer: PeerSigner, *, signature: str, public_key: str | None = None
) -> Bond:
    """The bond of these terms, whose `text` the wallet has signed, with the peer's signature beside it."""
    return Bond(
        **terms.model_dump(), signature=signature, public_key=public_key,
        peer_signature=peer.sign(PEER_PURPOSE, text.encode()).hex(),
    )  # fmt: skip


def check_terms(terms: BondTerms, *, coordinator: str, now: float, place: str = "bond") -> None:
    """Raises MembershipError unless a statement of these terms would be taken here and now.

    `coordinator`: the checking coordinator's own public URL; `place`: where the terms stand in the request.
    """
    if terms.coordinator.rstrip("/") != coordinator.rstrip("/"):
        raise MembershipError(
            f"the statement is for the coordinator {terms.coordinator}, this is {coordinator}",
            field=f"{place}.coordinator",
        )
    if not now - CLOCK_TOLERANCE_S < terms.expires_at <= terms.issued_at + LONGEST_BOND_S:
        raise MembershipError(
            "the statement has expired, or holds for too long", field=f"{place}.expiresAt",
            hint=f"sign one for at most {LONGEST_BOND_S // 86400} days",
        )  # fmt: skip
    if terms.issued_at > now + CLOCK_TOLERANCE_S:
        raise MembershipError(
            "the statement is not valid yet", field=f"{place}.issuedAt", hint="is this machine's clock right?"
        )


def check_bond(bond: Bond, *, account: Account, peer_id: str, session: str, coordinator: str, now: float) -> str:
    """The text that the wallet must have signed; all else of the bond is checked. Raises MembershipError.

    `coordinator`: the checking coordinator's own public URL.
    """
    check_terms(bond, coordinator=coordinator, now=now)
    text = bond_text(bond, account=account, peer_id=peer_id, session=session)
    if not signed_by_peer(peer_id, PEER_PURPOSE, text.encode(), bytes.fromhex(bond.peer_signature)):
        raise MembershipError(
            "the peer itself has not signed the statement", field="bond.peerSignature",
            hint="only who holds a peer's key can register it",
        )  # fmt: skip
    return text


def _rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
