"""Sign-ins: which account a token stands for. The database knows tokens by their hash only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.sql import ColumnElement

from coordinator.auth.tokens import new_token, token_sha256
from coordinator.models import AccountRow, SignInRow
from coordinator.store import Store, Transaction
from cotrain.identity.account import Account
from cotrain.status import now


@dataclass(frozen=True)
class SignIn:
    """What an account holds after it has signed in."""

    account: str
    """CAIP-10."""
    expires_at: float
    """Unix seconds."""


@dataclass(frozen=True)
class NewSignIn(SignIn):
    """The same at the one moment when the token itself is at hand."""

    token: str

    def __repr__(self) -> str:
        return f"NewSignIn(account={self.account!r}, expires_at={self.expires_at!r})"


class SignIns:
    """The sign-ins of one coordinator.

    Args:
        lifetime_s: how long a token is good for.
        clock: Unix seconds.
    """

    def __init__(self, store: Store, *, lifetime_s: float, clock: Callable[[], float] = now):
        self._store = store
        self._lifetime_s = lifetime_s
        self._clock = clock

    async def open(self, account: Account, *, on_new_account: Callable[[], None]) -> NewSignIn:
        """A token for an account whose signature has been verified.

        Args:
            on_new_account: called before the account is made if it has never been here; what it raises is raised, and
                nothing is stored.
        """
        async with self._store.write() as transaction:
            await self._prune(transaction)
            await self._note(transaction, account, on_new_account)
            return self._add(transaction, str(account))

    async def note(self, account: Account, *, on_new_account: Callable[[], None]) -> None:
        """Remember an account whose signature has been verified, which gets no token. As `open` otherwise."""
        async with self._store.write() as transaction:
            await self._note(transaction, account, on_new_account)

    async def find(self, token: str) -> SignIn | None:
        """Whose token this is; None if it is unknown, expired or ended."""
        query = select(SignInRow.account, SignInRow.expires_at).where(*self._is_alive(token))
        async with self._store.read() as rows:
            found = (await rows.execute(query)).one_or_none()
        return None if found is None else SignIn(found[0], found[1])

    async def revoke(self, token: str) -> bool:
        """End a token; False if it was not alive."""
        async with self._store.write() as transaction:
            return await self._end(transaction, token) is not None

    async def rotate(self, token: str) -> NewSignIn | None:
        """A new token in the place of this one, which ends; None if it has ended already."""
        async with self._store.write() as transaction:
            account = await self._end(transaction, token)
            return None if account is None else self._add(transaction, account)

    async def _note(self, transaction: Transaction, account: Account, on_new_account: Callable[[], None]) -> None:
        clock, name = self._clock(), str(account)
        row = await transaction.rows.get(AccountRow, name)
        if row is None:
            on_new_account()
            row = AccountRow(id=name, created_at=clock)
            transaction.rows.add(row)
        row.last_seen_at = clock
        await transaction.rows.flush()

    def _is_alive(self, token: str) -> tuple[ColumnElement[bool], ...]:
        return (
            SignInRow.token_sha256 == token_sha256(token), SignInRow.revoked_at.is_(None),
            SignInRow.expires_at > self._clock(),
        )  # fmt: skip

    async def _end(self, transaction: Transaction, token: str) -> str | None:
        """Mark the token as ended; returns its account if it was alive. Of two calls at once one gets it."""
        mark = (
            update(SignInRow).where(*self._is_alive(token)).values(revoked_at=self._clock())
            .returning(SignInRow.account)
        )  # fmt: skip
        return (await transaction.rows.execute(mark)).scalar_one_or_none()

    def _add(self, transaction: Transaction, account: str) -> NewSignIn:
        clock, token = self._clock(), new_token()
        expires_at = clock + self._lifetime_s
        transaction.rows.add(
            SignInRow(token_sha256=token_sha256(token), account=account, created_at=clock, expires_at=expires_at)
        )
        return NewSignIn(account, expires_at, token)

    async def _prune(self, transaction: Transaction) -> None:
        await transaction.rows.execute(delete(SignInRow).where(SignInRow.expires_at <= self._clock()))
