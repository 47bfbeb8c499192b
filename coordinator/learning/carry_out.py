"""Carries out one cycle in this process: opens what it needs, and sees that it is the only one."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from coordinator.auth.sign_ins import NewSignIn, SignIns
from coordinator.chat_log import ChatLog
from coordinator.learning.api import OwnApi
from coordinator.learning.learner import Learner, TooFewChats
from coordinator.learning.place import Place
from coordinator.learning.rows import Trigger
from coordinator.learning.student import find_student
from coordinator.learning.views import CycleView
from coordinator.store import Store, open_store
from cotrain.errors import ConflictError
from cotrain.identity.account import Account
from cotrain.paths import SharedPaths
from cotrain.status import now

_TOKEN_LIFETIME_S = 3600.0
_RENEWED_BEFORE_S = 1800.0


async def carry_out(place: Place, trigger: Trigger, say: Callable[[str], None]) -> CycleView | TooFewChats:
    """One cycle, or the rest of the one that was begun. Raises CotrainError; ConflictError if one runs already."""
    with _only_one(place.shared):
        async with open_store(place.database_url) as store:
            student = await find_student(store, place.config.learning.model)
            chats = ChatLog(store, kept=place.config.chat.kept)
            async with _token_for(store, student.owner) as token, OwnApi(place.url, token, say) as api:
                learner = Learner(place.config.learning, place.shared, store, chats, api, student, say)
                return await learner.run(trigger)


@contextlib.contextmanager
def _only_one(shared: SharedPaths) -> Iterator[None]:
    shared.create()
    with shared.learning_lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go of it, however the process ends
        except BlockingIOError:
            raise ConflictError(
                "another process carries out a cycle", field=str(shared.learning_lock),
                hint="wait for it: cotrain learn status",
            ) from None  # fmt: skip
        yield


@contextlib.asynccontextmanager
async def _token_for(store: Store, account: str) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """Gives tokens that act for an account; each is short, and the last one ends with the block."""
    sign_ins = SignIns(store, lifetime_s=_TOKEN_LIFETIME_S)
    held: NewSignIn | None = None

    async def token() -> str:
        nonlocal held
        if held is None or held.expires_at < now() + _RENEWED_BEFORE_S:
            held = await sign_ins.open(Account.parse(account), on_new_account=lambda: None)
        return held.token

    try:
        yield token
    finally:
        if held is not None:
            await sign_ins.revoke(held.token)
