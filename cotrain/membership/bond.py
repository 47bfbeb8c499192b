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


class Bond(CamelModel):
    """What is signed besides account, peer and session, which the registration names, and the two signatures."""

    coordinator: Annotated[str, Field(max_length=300)]
    """The coordinator's public URL, as the volunteer knows it."""
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    issued_at: Seconds
    expires_at: Seconds
    signature: Annotated[str, Field(max_length=LONGEST_SIGNATURE)]
    """The wallet's, over `bond_text`: 0x and hexadecimal digits."""
    public_key: Annotated[str | None, Field(max_length=200)] = None
    """Aptos only."""
    peer_signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
    """The peer's Ed25519 signature over the same text."""


def bond_text(
    *, account: Account, peer_id: str, session: str, coordinator: str, nonce: str, issued_at: int, expires_at: int
) -> str:
    """The statement, readable by who signs it. Times are Unix seconds."""
    return (
        f"Let a peer train for my account at {coordinator}\n\n"
        "This allows the peer below to take part in the session below in my name. It moves no money.\n\n"
        f"Coordinator: {coordinator}\n"
        f"Session: {session}\n"
        f"Peer: {peer_id}\n"
        f"Account: {account}\n"
        f"Nonce: {nonce}\n"
        f"Issued At: {_rfc3339(issued_at)}\n"
        f"Expiration Time: {_rfc3339(expires_at)}"
    )


def make_bond(
    wallet: Signer, peer: PeerSigner, *, session: str, coordinator: str, now: float, lifetime_s: int = 30 * 24 * 3600
) -> Bond:
    """Sign a statement that is valid from now on."""
    nonce, issued_at = secrets.token_hex(16), int(now)
    expires_at = issued_at + lifetime_s
    text = bond_text(
        account=wallet.account, peer_id=peer.peer_id, session=session, coordinator=coordinator, nonce=nonce,
        issued_at=issued_at, expires_at=expires_at,
    )  # fmt: skip
    return Bond(
        coordinator=coordinator, nonce=nonce, issued_at=issued_at, expires_at=expires_at, signature=wallet.sign(text),
        peer_signature=peer.sign(PEER_PURPOSE, text.encode()).hex(),
    )  # fmt: skip


def check_bond(bond: Bond, *, account: Account, peer_id: str, session: str, coordinator: str, now: float) -> str:
    """The text that the wallet must have signed; all else of the bond is checked. Raises MembershipError.

    `coordinator`: the checking coordinator's own public URL.
    """
    if bond.coordinator.rstrip("/") != coordinator.rstrip("/"):
        raise MembershipError(
            f"the statement is for the coordinator {bond.coordinator}, this is {coordinator}", field="bond.coordinator"
        )
    if not now - CLOCK_TOLERANCE_S < bond.expires_at <= bond.issued_at + LONGEST_BOND_S:
        raise MembershipError(
            "the statement has expired, or holds for too long", field="bond.expiresAt",
            hint=f"sign one for at most {LONGEST_BOND_S // 86400} days",
        )  # fmt: skip
    if bond.issued_at > now + CLOCK_TOLERANCE_S:
        raise MembershipError(
            "the statement is not valid yet", field="bond.issuedAt", hint="is this machine's clock right?"
        )
    text = bond_text(
        account=account, peer_id=peer_id, session=session, coordinator=bond.coordinator, nonce=bond.nonce,
        issued_at=bond.issued_at, expires_at=bond.expires_at,
    )  # fmt: skip
    if not signed_by_peer(peer_id, PEER_PURPOSE, text.encode(), bytes.fromhex(bond.peer_signature)):
        raise MembershipError(
            "the peer itself has not signed the statement", field="bond.peerSignature",
            hint="only who holds a peer's key can register it",
        )  # fmt: skip
    return text


def _rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
