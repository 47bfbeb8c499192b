"""What the API tells of records: how far they are, and the proofs of who gave how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.chain.entries import count_by_state, entry_of
from coordinator.chain.machine import EntryState
from coordinator.chain.rows import ChainEntryRow
from coordinator.models import SessionRow
from coordinator.sessions import no_such_session
from coordinator.store import Store
from cotrain.chain.document import ShareItem, find_share
from cotrain.chain.merkle import EMPTY_ROOT, ShareError, ShareTree
from cotrain.errors import NotFoundError
from cotrain.request import CamelModel

RecordStatus = Literal["off", "waiting", "opened", "closing", "closed", "failed"]


class RecordView(CamelModel):
    """What is recorded of a session on a chain. Hashes and addresses are 0x-hex; null is what is not known, or is not.

    `off`: nothing is recorded. `waiting`: its opening is on the way. `opened`; `closing`: its end is on the way;
    `closed`. `failed`: one of the two can never be recorded.
    """

    session_id: str
    status: RecordStatus
    chain: str | None = None
    """CAIP-2."""
    contract: str | None = None
    """Of the registry."""
    opener: str | None = None
    """Account that records, and alone can."""
    open_tx: str | None = None
    close_tx: str | None = None
    config_hash: str | None = None
    final_digest: str | None = None
    """Of the last outer state; zero if there was none. This and the next two are there once the session has ended."""
    contributions_root: str | None = None
    total_samples: int | None = None
    message: str = ""
    """Why it waits, or has failed."""


class SharesView(CamelModel):
    """What each wallet gave, as the root is made of it."""

    items: list[ShareItem]


class ShareProofView(CamelModel):
    """What one wallet gave, and the proof that it is under the root: 0x-hex hashes of 32 bytes."""

    account: str
    samples: int
    contributions_root: str
    proof: list[str]


class Records:
    """The records of one coordinator's sessions, for those who read them."""

    def __init__(self, store: Store):
        self._store = store

    async def record(self, session: str) -> RecordView:
        """What is recorded of a session, which may be deleted by now. Raises NotFoundError."""
        async with self._store.read() as rows:
            opening, end = await _visible(rows, session)
        return record_view(session, opening, end)

    async def shares(self, session: str) -> SharesView:
        """What each wallet gave, in the order of their names; none before the end. Raises NotFoundError."""
        async with self._store.read() as rows:
            _, end = await _visible(rows, session)
        return SharesView(items=[] if end is None else [ShareItem.model_validate(one) for one in end.shares])

    async def share(self, session: str, wallet: str) -> ShareProofView:
        """One wallet's share. Raises NotFoundError where there is none, or not yet."""
        shares = [one.share() for one in (await self.shares(session)).items]
        try:
            found = find_share(shares, wallet)
        except ShareError as error:
            raise NotFoundError(error.message, field="account", hint="GET …/record/shares lists them") from None
        tree = ShareTree(shares)
        return ShareProofView(
            account=found.account, samples=found.samples, contributions_root="0x" + tree.root.hex(),
            proof=["0x" + one.hex() for one in tree.proof(found.account)],
        )  # fmt: skip

    async def by_state(self) -> dict[EntryState, int]:
        """How many entries are in each state."""
        async with self._store.read() as rows:
            return await count_by_state(rows)


def record_view(session: str, opening: ChainEntryRow | None, end: ChainEntryRow | None) -> RecordView:
    """What the two entries of a session say together. Pure."""
    if opening is None:
        return RecordView(session_id=session, status="off")
    view = RecordView(
        session_id=session, status=status_of([one.state for one in (opening, end) if one is not None]),
        chain=opening.chain, contract=opening.contract, opener=opening.opener, open_tx=opening.tx_hash or None,
        config_hash=_hash(opening.config_hash), message=opening.message,
    )  # fmt: skip
    if end is None:
        return view
    ended = {
        "close_tx": end.tx_hash or None, "final_digest": _hash(end.final_digest),
        "contributions_root": _hash(end.contributions_root), "total_samples": end.total_samples,
        "message": opening.message or end.message,
    }  # fmt: skip
    return view.model_copy(update=ended)


def status_of(states: Sequence[EntryState]) -> RecordStatus:
    """Of the states of the opening and, if the session has ended, of the end. Pure."""
    if "failed" in states:
        return "failed"
    if states[0] != "confirmed":
        return "waiting"
    if len(states) == 1:
        return "opened"
    return "closed" if states[1] == "confirmed" else "closing"


async def _visible(rows: AsyncSession, session: str) -> tuple[ChainEntryRow | None, ChainEntryRow | None]:
    """The entries of a session that is there, or was public. Raises NotFoundError."""
    opening = await entry_of(rows, session, "open")
    gone = await rows.get(SessionRow, session) is None
    if gone and (opening is None or opening.visibility != "public"):
        raise no_such_session()
    return opening, await entry_of(rows, session, "close")


def _hash(digits: str) -> str:
    return "0x" + (digits or EMPTY_ROOT.hex())
