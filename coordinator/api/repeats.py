"""Requests that may come again: those with an `Idempotency-Key` are done once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel

from coordinator.api.callers import token_of
from coordinator.context import COORDINATOR
from coordinator.idempotency import HEADER, Keep, claim_for, keep_nothing

ModelT = TypeVar("ModelT", bound=BaseModel)


async def once(
    request: web.Request, account: str, model: type[ModelT], work: Callable[[Keep], Awaitable[ModelT]], *,
    secret: bool = False,
) -> ModelT:  # fmt: skip
    """The answer of `work`, or the one that was kept for this key of the account.

    Args:
        account: whose request it is; what it may do has been checked.
        secret: whether the answer holds a secret. It is then kept sealed with the token that the request brings.

    Raises:
        InvalidRequestError, ConflictError: as `Idempotency.once`, and what `work` raises.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return await work(keep_nothing)
    claim = claim_for(
        key, account=account, method=request.method, path=request.path, body=await request.read(),
        secret=token_of(request) if secret else None,
    )  # fmt: skip
    return await request.app[COORDINATOR].idempotency.once(claim, model, work)
