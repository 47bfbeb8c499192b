"""Challenges: the texts that wallets are asked to sign. Each is answered once at most, and not for long."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy import delete, update

from coordinator.models import ChallengeRow
from coordinator.store import Store
from cotrain.errors import InvalidRequestError
from cotrain.identity.account import Account
from cotrain.identity.text import sign_in_text
from cotrain.status import now

_NONCE_BYTES = 16
_NONCE = re.compile(r"[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True)
class Challenge:
    """A text to sign."""

    nonce: str
    account: Account
    message: str
    expires_at: float
    """Unix seconds."""


class Challenges:
    """The challenges of one coordinator.

    Args:
        public_url: gives the domain and the URI in the text. What a request says of its host has no part in it.
        chains: the CAIP-2 chains whose wallets may sign in.
        lifetime_s: how long a challenge can be answered.
        clock: Unix seconds.
    """

    def __init__(
        self, store: Store, *, public_url: str, chains: Collection[str], lifetime_s: float,
        clock: Callable[[], float] = now,
    ):  # fmt: skip
        self._store = store
        self._public_url = public_url
        self._chains = chains
        self._lifetime_s = lifetime_s
        self._clock = clock

    async def issue(self, chain: str, address: str) -> Challenge:
        """A new text for this wallet, kept until it expires. Raises InvalidRequestError that names the field."""
        check_chain(chain, self._chains)
        account = Account.of(chain, address)
        nonce, issued_at = secrets.token_hex(_NONCE_BYTES), self._clock()
        expires_at = issued_at + self._lifetime_s
        message = sign_in_text(
            account, domain=urlsplit(self._public_url).netloc, uri=self._public_url, nonce=nonce,
            issued_at=issued_at, expires_at=expires_at,
        )  # fmt: skip
        async with self._store.write() as transaction:
            await transaction.rows.execute(delete(ChallengeRow).where(ChallengeRow.expires_at <= issued_at))
            transaction.rows.add(
                ChallengeRow(
                    nonce=nonce, account=str(account), message=message, created_at=issued_at, expires_at=expires_at
                )
            )
        return Challenge(nonce, account, message, expires_at)

    async def consume(self, nonce: str) -> Challenge | None:
        """Use a challenge up; None if it is unknown, used, expired, or from a time that has not come.

        Of two calls at once exactly one gets it: the condition and the mark are one statement.
        """
        if _NONCE.fullmatch(nonce) is None:
            return None
        clock = self._clock()
        mark = (
            update(ChallengeRow)
            .where(
                ChallengeRow.nonce == nonce, ChallengeRow.used_at.is_(None),
                ChallengeRow.expires_at > clock, ChallengeRow.created_at <= clock,
            )
            .values(used_at=clock)
            .returning(ChallengeRow.account, ChallengeRow.message, ChallengeRow.expires_at)
        )  # fmt: skip
        async with self._store.write() as transaction:
            found = (await transaction.rows.execute(mark)).one_or_none()
        return None if found is None else Challenge(nonce, Account.parse(found[0]), found[1], found[2])


def check_chain(chain: str, allowed: Collection[str]) -> None:
    """Raises InvalidRequestError that names the chains whose wallets may sign in."""
    if chain not in allowed:
        listed = list(allowed)
        raise InvalidRequestError(
            "wallets of this chain cannot sign in here", field="chain", hint=f"allowed: {', '.join(listed)}",
            details={"allowed": listed},
        )  # fmt: skip
