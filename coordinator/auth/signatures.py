"""Whether a wallet signed a text: by its own key, or, for a wallet that is a contract, by the contract's word."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from coordinator.auth.contract_wallets import ContractWalletError, ContractWallets
from cotrain.errors import CotrainError
from cotrain.identity.account import Account

if TYPE_CHECKING:
    from cotrain.identity.signature import Purpose


class SignatureRefusedError(CotrainError):
    """A text that the wallet has not signed. The message is the reason, for the log: callers are not told which."""

    code = "signature-refused"
    http_status = 401
    exit_code = 77


class Signatures:
    """Checks signatures of all kinds of wallets."""

    def __init__(self, contract_wallets: ContractWallets):
        self._contract_wallets = contract_wallets

    async def check(
        self, account: Account, text: str, signature: str, *, purpose: Purpose, public_key: str | None, nonce: str = ""
    ) -> None:
        """The account's own key first; a contract is asked only where that fails.

        Args:
            text: exactly what must have been signed.
            signature: 0x-hex.
            purpose, public_key, nonce: see `cotrain.identity.signature.verify_signature`.

        Raises SignatureRefusedError with the reason.
        """
        # in a thread: the first call loads eth-account, and each costs some milliseconds of arithmetic
        reason = await asyncio.to_thread(_refusal, account, text, signature, purpose, public_key, nonce)
        if not reason:
            return
        if not self._contract_wallets.can_ask(account):
            raise SignatureRefusedError(f"{account}: {reason}")
        try:
            await self._contract_wallets.verify(account, text, signature)
        except ContractWalletError as error:
            raise SignatureRefusedError(f"{account}: {reason}; as a contract wallet: {error}") from error


def _refusal(account: Account, text: str, signature: str, purpose: Purpose, public_key: str | None, nonce: str) -> str:
    """Why this is not the account's own signature; empty if it is."""
    # imported here because loading it takes most of a second, which the coordinator's start need not wait for
    from cotrain.identity.signature import SignatureError, verify_signature

    try:
        verify_signature(account, text, signature, purpose=purpose, public_key=public_key, nonce=nonce)
    except SignatureError as error:
        return error.message
    return ""
