"""Tokens for operators and scripts: made, listed and ended by whoever has the coordinator's database."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.sql import ColumnElement

from coordinator.auth.sign_ins import NewSignIn, SignIns
from coordinator.models import SignInRow
from coordinator.store import open_store
from cotrain.errors import InvalidRequestError, NotFoundError
from cotrain.identity.account import Account
from cotrain.status import now

_ID_LENGTH = 12
_ID = re.compile(r"[0-9a-f]{12,64}", re.ASCII)


@dataclass(frozen=True)
class IssuedToken:
    """A token that is alive, as it can be known without having it."""

    id: str
    """The first digits of its SHA-256."""
    account: str
    """CAIP-10."""
    created_at: float
    """Unix seconds, as `expires_at`."""
    expires_at: float


async def issue_token(database_url: str, account: Account, lifetime_s: float) -> NewSignIn:
    """A token that acts for the account, as if its wallet had signed in. Raises DatabaseError, ConfigError."""
    async with open_store(database_url) as store:
        return await SignIns(store, lifetime_s=lifetime_s).open(account, on_new_account=lambda: None)


async def issued_tokens(database_url: str, account: Account | None) -> list[IssuedToken]:
    """The tokens that are alive, the newest first: of all accounts, or of one."""
    query = select(SignInRow).where(*_alive(account)).order_by(SignInRow.created_at.desc(), SignInRow.token_sha256)
    async with open_store(database_url) as store, store.read() as rows:
        return [
            IssuedToken(row.token_sha256[:_ID_LENGTH], row.account, row.created_at, row.expires_at)
            for row in await rows.scalars(query)
        ]


async def revoke_token(database_url: str, token_id: str) -> str:
    """End the token with this id; returns whose it was. It is refused from the next request on.

    Raises InvalidRequestError for what is no id, NotFoundError where no such token is alive.
    """
    if _ID.fullmatch(token_id) is None:
        raise InvalidRequestError(
            f"is no id of a token: {_ID_LENGTH} hexadecimal digits", field="ID",
            hint="cotrain coordinator token list shows them",
        )  # fmt: skip
    ended = await _revoke(database_url, *_alive(None), SignInRow.token_sha256.startswith(token_id))
    if not ended:
        raise NotFoundError(
            "there is no such token that is alive", field=token_id, hint="cotrain coordinator token list shows them"
        )
    return ended[0]


async def revoke_tokens_of(database_url: str, account: Account) -> int:
    """End all tokens of an account; returns how many there were."""
    return len(await _revoke(database_url, *_alive(account)))


async def _revoke(database_url: str, *which: ColumnElement[bool]) -> list[str]:
    mark = update(SignInRow).where(*which).values(revoked_at=now()).returning(SignInRow.account)
    async with open_store(database_url) as store, store.write() as transaction:
        return list(await transaction.rows.scalars(mark))


def _alive(account: Account | None) -> tuple[ColumnElement[bool], ...]:
    alive = (SignInRow.revoked_at.is_(None), SignInRow.expires_at > now())
    return alive if account is None else (*alive, SignInRow.account == str(account))
