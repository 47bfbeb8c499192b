"""Redeeming a bond: the wallet's statement that a peer acts for it. Each is redeemed once."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError

from coordinator.auth.signatures import SignatureRefusedError, Signatures
from coordinator.models import BondRow
from coordinator.store import Store
from cotrain.errors import NotAuthorizedError
from cotrain.identity.account import Account
from cotrain.membership.bond import Bond, check_bond
from cotrain.status import now

_logger = logging.getLogger(__name__)


class Bonds:
    """The statements that wallets have signed for their peers.

    Args:
        public_url: which coordinator a statement must be for.
        clock: Unix seconds.
    """

    def __init__(self, store: Store, signatures: Signatures, *, public_url: str, clock: Callable[[], float] = now):
        self._store = store
        self._signatures = signatures
        self._public_url = public_url
        self._clock = clock

    async def redeem(self, bond: Bond, *, account: Account, peer_id: str, session: str) -> None:
        """Use a bond up.

        Raises MembershipError where it is for something else or has not the peer's own signature, NotAuthorizedError
        where it was used before or the wallet has not signed it: always the same one, the reason is in the log.
        """
        text = check_bond(
            bond, account=account, peer_id=peer_id, session=session, coordinator=self._public_url, now=self._clock()
        )
        # before anything slow: a statement that is being checked cannot be used a second time
        fresh = await self._claim(bond)
        try:
            if not fresh:
                raise SignatureRefusedError("its nonce has been used")
            await self._signatures.check(
                account, text, bond.signature, purpose="statement", public_key=bond.public_key, nonce=bond.nonce
            )
        except SignatureRefusedError as error:
            _logger.warning("a statement for peer %s by %s is refused: %s", peer_id, account, error.message)
            raise NotAuthorizedError(
                "this statement of the wallet is refused", field="bond",
                hint="sign a new one with the wallet that is signed in",
            ) from None  # fmt: skip

    async def _claim(self, bond: Bond) -> bool:
        """Remember the nonce for as long as the statement would hold; False if it is known already."""
        try:
            async with self._store.write() as transaction:
                await transaction.rows.execute(delete(BondRow).where(BondRow.expires_at <= self._clock()))
                transaction.rows.add(BondRow(nonce=bond.nonce, expires_at=float(bond.expires_at)))
        except IntegrityError:
            return False
        return True
