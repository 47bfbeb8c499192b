"""`Idempotency-Key`: a request that comes again is answered as the first time, and is done once.

An answer is kept in the transaction of what it answers, so that there is never one without the other. Errors are not
kept: they changed nothing, and the same key may be tried again.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar
from weakref import WeakValueDictionary

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError

from coordinator.models import IdempotencyRow
from coordinator.store import Store, Transaction
from cotrain.errors import ConflictError, InvalidRequestError
from cotrain.status import now

HEADER = "Idempotency-Key"
KEPT_S = 86400.0
"""How long an answer is kept."""

ModelT = TypeVar("ModelT", bound=BaseModel)
Keep = Callable[[Transaction, BaseModel], Awaitable[None]]
"""Keeps an answer, if the transaction is committed."""

_KEY = re.compile(r"[!-~]{1,200}", re.ASCII)


@dataclass(frozen=True)
class Claim:
    """A request that brings a key. Keys are an account's own."""

    account: str
    key: str
    request_sha256: str
    secret: str | None = field(default=None, repr=False)
    """Seals the answer; only who has it can be given the answer again."""


def claim_for(
    key: str, *, account: str, method: str, path: str, body: bytes, secret: str | None = None
) -> Claim:  # fmt: skip
    """A claim for a request, which is known again by its bytes. Raises InvalidRequestError that names the header."""
    if _KEY.fullmatch(key) is None:
        raise InvalidRequestError(
            "is not 1 to 200 printable ASCII characters", field=HEADER, hint="a random UUID will do"
        )
    request = b"\n".join((method.encode(), path.encode(), body))
    return Claim(account, key, hashlib.sha256(request).hexdigest(), secret)


async def keep_nothing(_transaction: Transaction, _answer: BaseModel) -> None:
    """For requests that bring no key."""


class Idempotency:
    """The answers that are kept.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = now):
        self._store = store
        self._clock = clock
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def once(self, claim: Claim, model: type[ModelT], work: Callable[[Keep], Awaitable[ModelT]]) -> ModelT:
        """Do the work, or give the answer that was kept when it was done. Of two at once one waits for the other.

        Args:
            work: must keep its answer in the transaction that has its effect.

        Raises:
            InvalidRequestError: the key was used for another request.
            ConflictError: the answer is sealed, for another secret.
        """
        turn = self._turns.setdefault((claim.account, claim.key), asyncio.Lock())
        async with turn:
            if (kept := await self._find(claim, model)) is not None:
                return kept
            try:
                return await work(partial(self._keep, claim))
            except (IntegrityError, ConflictError):
                # another program on this database may have been faster; what was done here has been undone
                if (kept := await self._find(claim, model)) is not None:
                    return kept
                raise

    async def _find(self, claim: Claim, model: type[ModelT]) -> ModelT | None:
        async with self._store.read() as rows:
            row = await rows.get(IdempotencyRow, (claim.account, claim.key))
        if row is None or row.created_at <= self._clock() - KEPT_S:
            return None
        if row.request_sha256 != claim.request_sha256:
            raise InvalidRequestError(
                "this key was used for another request", field=HEADER, hint="each request has a key of its own"
            )
        return model.model_validate_json(_opened(row.answer, claim.secret))

    async def _keep(self, claim: Claim, transaction: Transaction, answer: BaseModel) -> None:
        clock, rows = self._clock(), transaction.rows
        await rows.execute(delete(IdempotencyRow).where(IdempotencyRow.created_at <= clock - KEPT_S))
        rows.add(
            IdempotencyRow(
                account=claim.account, key=claim.key, request_sha256=claim.request_sha256, created_at=clock,
                answer=_sealed(answer.model_dump_json(by_alias=True), claim.secret),
            )
        )  # fmt: skip
        await rows.flush()


def _sealed(text: str, secret: str | None) -> str:
    return text if secret is None else _fernet(secret).encrypt(text.encode()).decode()


def _opened(text: str, secret: str | None) -> str:
    if secret is None:
        return text
    try:
        return _fernet(secret).decrypt(text.encode()).decode()
    except InvalidToken:
        raise ConflictError(
            "this was answered to another sign-in of the account, and holds a secret", field=HEADER,
            hint="send the request again with a new key",
        ) from None  # fmt: skip


def _fernet(secret: str) -> Fernet:
    # the secret is random already; the derivation keeps this key apart from the hash that the database has of it
    derived = HKDF(SHA256(), 32, salt=None, info=b"cotrain idempotency").derive(secret.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
