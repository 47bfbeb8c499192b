"""A login: one answer to one challenge. Whatever is wrong with it, the reason is for the log alone."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.auth.challenges import Challenges
from coordinator.auth.sign_ins import NewSignIn, SignIns
from coordinator.auth.signatures import SignatureRefusedError, Signatures
from cotrain.errors import CotrainError


class LoginRefusedError(CotrainError):
    """A login that failed. The message is the reason, for the log: the caller is never told which it was."""

    code = "login-refused"
    http_status = 401
    exit_code = 77


class Logins:
    """Turns answered challenges into sign-ins."""

    def __init__(self, challenges: Challenges, sign_ins: SignIns, signatures: Signatures):
        self._challenges = challenges
        self._sign_ins = sign_ins
        self._signatures = signatures

    async def log_in(
        self, nonce: str, signature: str, public_key: str | None, *, on_new_account: Callable[[], None]
    ) -> NewSignIn:
        """Use the challenge up, verify its signature, and give a token.

        Args:
            nonce: the challenge's.
            signature: over the challenge's exact text, 0x-hex.
            public_key: 0x-hex, where the chain's addresses need it.
            on_new_account: called before an account is made; what it raises is raised.

        Raises:
            LoginRefusedError: with the reason.
        """
        # before anything slow: a challenge that is being answered cannot be answered a second time
        challenge = await self._challenges.consume(nonce)
        if challenge is None:
            raise LoginRefusedError("the nonce is unknown, used, expired or not valid yet")
        account = challenge.account
        try:
            await self._signatures.check(
                account, challenge.message, signature, purpose="sign-in", public_key=public_key
            )
        except SignatureRefusedError as error:
            raise LoginRefusedError(error.message) from error
        return await self._sign_ins.open(account, on_new_account=on_new_account)
