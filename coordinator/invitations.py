"""Private sessions: who sees one and what it made, who may join it, and the invitations by which its owner says so.

A session never changes from public to private or back. The database knows tokens by their hash only.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, Field
from sqlalchemy import delete, or_, select, true, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlalchemy.sql import ColumnElement

from coordinator.auth.tokens import new_token, token_sha256
from coordinator.config import AccountName
from coordinator.idempotency import Keep, keep_nothing
from coordinator.model_rows import ModelRow, ModelVersionRow
from coordinator.models import InvitationRow, ParticipantRow, SessionRow
from coordinator.sessions import Position, find_session, no_such_session
from coordinator.store import Store
from coordinator.views import iso_time, session_url
from cotrain.errors import ConflictError, ForbiddenError, InvalidRequestError, NotFoundError
from cotrain.request import CamelModel
from cotrain.status import now

_DEFAULT_LIFETIME_S = 7 * 86400.0
_LONGEST_LIFETIME_S = 366 * 86400.0
_MOST_REMEMBERED = 10_000


class InvitationRequest(CamelModel):
    """Whom the owner lets in: whoever brings the token, so many accounts and so long; or one wallet."""

    uses: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """How many accounts may join with the token; 1 if left out."""
    expires_at: AwareDatetime | None = None
    """Within a year; a week from now if left out."""
    wallet: AccountName | None = None
    """CAIP-10 account. There is no token then, and it does not expire."""


class InvitationView(CamelModel):
    """An invitation, without its token."""

    id: str
    wallet: str | None
    uses: int | None
    used: int | None
    """How many accounts have joined with it."""
    expires_at: str | None
    created_at: str


class NewInvitationView(InvitationView):
    """The same at the one moment when the token is at hand."""

    token: str | None = Field(repr=False)
    join_command: str = Field(repr=False)


class Invitations:
    """The invitations of one coordinator.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, store: Store, *, public_url: str, clock: Callable[[], float] = now):
        self._store = store
        self._public_url = public_url
        self._clock = clock
        self._known_public: set[str] = set()

    async def create(
        self, session: str, wanted: InvitationRequest, keep: Keep = keep_nothing
    ) -> NewInvitationView:  # fmt: skip
        """A new invitation; for a wallet that is invited already, the one that there is.

        Args:
            keep: is given the answer, in the transaction.

        Raises NotFoundError, InvalidRequestError, or ConflictError for a public session.
        """
        clock = self._clock()
        token = None if wanted.wallet else new_token()
        async with self._store.write() as transaction:
            if (await find_session(transaction.rows, session)).visibility == "public":
                raise ConflictError("everybody may join a public session", hint="an invitation is for a private one")
            row = await _of_wallet(transaction.rows, session, wanted.wallet) if wanted.wallet else None
            if row is None:
                row = _new_row(session, wanted, token, clock)
                transaction.rows.add(row)
                await transaction.rows.flush()
            url = session_url(session, self._public_url)
            command = f"cotrain node join '{url}#invitation={token}'" if token else f"cotrain node join {url}"
            view = NewInvitationView(**_view(row).model_dump(), token=token, join_command=command)
            await keep(transaction, view)
        return view

    async def oldest_first(
        self, session: str, after: Position | None, limit: int
    ) -> tuple[list[InvitationView], Position | None]:
        """At most `limit` of those made after `after`, and where the next page begins (None at the end)."""
        query = (
            select(InvitationRow).where(InvitationRow.session_id == session)
            .order_by(InvitationRow.created_at, InvitationRow.id).limit(limit + 1)
        )  # fmt: skip
        if after is not None:
            query = query.where(tuple_(InvitationRow.created_at, InvitationRow.id) > after)
        async with self._store.read() as rows:
            found = list(await rows.scalars(query))
        page = found[:limit]
        return [_view(row) for row in page], (page[-1].created_at, page[-1].id) if len(found) > limit else None

    async def end(self, session: str, invitation: str) -> None:
        """Let nobody in by it any more; who has joined stays. Raises NotFoundError."""
        gone = delete(InvitationRow).where(InvitationRow.id == invitation, InvitationRow.session_id == session)
        async with self._store.write() as transaction:
            ended = await transaction.rows.scalar(gone.returning(InvitationRow.id))
        if ended is None:
            raise NotFoundError("there is no such invitation", field="invitation", hint="GET …/invitations lists them")

    def is_known_public(self, session: str) -> bool:
        """Whether a look at the database is not needed. False says nothing."""
        return session in self._known_public

    async def may_see(self, session: str, account: str | None, *, operator: bool, tokens: tuple[str, ...]) -> bool:
        """Whether to answer about this session as about one that is there.

        Args:
            account: that has signed in, CAIP-10.
            operator: whether it is one of this coordinator.
            tokens: of a participant or of an invitation; all that the caller has brought.
        """
        async with self._store.read() as rows:
            found = await rows.get(SessionRow, session)
            if found is None:
                return True  # nothing to hide
            if found.visibility == "public":
                self._remember_public(session)
                return True
            seen = self._seen_with(account, operator=operator, tokens=tokens)
            return await rows.scalar(select(SessionRow.id).where(SessionRow.id == session, seen)) is not None

    def versions_seen(
        self, account: str | None, *, operator: bool, tokens: tuple[str, ...]
    ) -> ColumnElement[bool]:  # fmt: skip
        """Which versions of models are there for a caller: public ones, its own, those of sessions that it may see.

        Args: as those of `may_see`.
        """
        if operator:
            return true()
        sessions = select(SessionRow.id).where(self._seen_with(account, operator=operator, tokens=tokens))
        public = ModelVersionRow.visibility == "public"
        if account is None:
            return or_(public, ModelVersionRow.session_id.in_(sessions))
        model = aliased(ModelRow)  # the query around it may be about models, too
        own = select(model.id).where(model.owner == account)
        return or_(public, ModelVersionRow.model_id.in_(own), ModelVersionRow.session_id.in_(sessions))

    def _seen_with(self, account: str | None, *, operator: bool, tokens: tuple[str, ...]) -> ColumnElement[bool]:
        """Which sessions an account sees, or whoever brings a participant's token or an invitation's."""
        hashes = [token_sha256(token) for token in tokens]
        holders = select(ParticipantRow.session_id).where(ParticipantRow.token_sha256.in_(hashes))
        invited = select(InvitationRow.session_id).where(InvitationRow.token_sha256.in_(hashes), *_holds(self._clock()))
        return or_(visible_to(account, operator=operator), SessionRow.id.in_(holders), SessionRow.id.in_(invited))

    def _remember_public(self, session: str) -> None:
        if len(self._known_public) >= _MOST_REMEMBERED:
            self._known_public.clear()
        self._known_public.add(session)


def visible_to(account: str | None, *, operator: bool) -> ColumnElement[bool]:
    """Which sessions an account sees: public ones, its own, those it takes part in or is invited to by its wallet."""
    if operator:
        return true()
    public = SessionRow.visibility == "public"
    if account is None:
        return public
    mine = select(ParticipantRow.session_id).where(ParticipantRow.account == account)
    here, removed = mine.where(ParticipantRow.removed_at.is_(None)), mine.where(ParticipantRow.removed_at.is_not(None))
    invited = select(InvitationRow.session_id).where(InvitationRow.wallet == account)
    let_in = (SessionRow.id.in_(here) | SessionRow.id.in_(invited)) & SessionRow.id.not_in(removed)
    return or_(public, SessionRow.owner == account, let_in)


async def admission(
    rows: AsyncSession, row: SessionRow, account: str, token: str | None
) -> InvitationRow | None:  # fmt: skip
    """The invitation by whose token an account may join; None if it needs none.

    An account needs none for a public session, its own, one that its wallet is invited to, and one that it has joined
    before (if it was removed from there, it is told so elsewhere).

    Raises NotFoundError for a stranger, as if there were no such session.
    """
    if row.visibility == "public" or account == row.owner or await _of_wallet(rows, row.id, account):
        return None
    joined = select(ParticipantRow.id).where(ParticipantRow.session_id == row.id, ParticipantRow.account == account)
    if await rows.scalar(joined.limit(1)) is not None:
        return None
    known = InvitationRow.token_sha256 == token_sha256(token or "")
    invitation = await rows.scalar(select(InvitationRow).where(InvitationRow.session_id == row.id, known))
    if invitation is None:
        raise no_such_session()
    return invitation


async def redeem(rows: AsyncSession, invitation: InvitationRow | None) -> None:
    """Count an account that joins, in the transaction that lets it in. None: nothing to count.

    Raises ForbiddenError for an invitation that is used up or has expired.
    """
    if invitation is None:
        return
    use = update(InvitationRow).where(InvitationRow.id == invitation.id, *_holds(now()))
    if await rows.scalar(use.values(used=InvitationRow.used + 1).returning(InvitationRow.id)) is None:
        raise ForbiddenError(
            "this invitation is used up or has expired", field="invitation", hint="ask the session's owner for another"
        )


def _holds(clock: float) -> tuple[ColumnElement[bool], ...]:
    """Conditions of a token that still lets somebody in."""
    return InvitationRow.used < InvitationRow.uses, InvitationRow.expires_at > clock


async def _of_wallet(rows: AsyncSession, session: str, wallet: str) -> InvitationRow | None:
    found: InvitationRow | None = await rows.scalar(
        select(InvitationRow).where(InvitationRow.session_id == session, InvitationRow.wallet == wallet)
    )
    return found


def _new_row(session: str, wanted: InvitationRequest, token: str | None, clock: float) -> InvitationRow:
    """Raises InvalidRequestError."""
    row = InvitationRow(
        id=f"i-{secrets.token_hex(8)}", session_id=session, created_at=clock, uses=0, used=0, wallet=wanted.wallet
    )
    if token is None:
        if wanted.uses is not None or wanted.expires_at is not None:
            raise InvalidRequestError(
                "a wallet is invited without uses and expiresAt", field="wallet", hint="leave those two out"
            )
        return row
    row.token_sha256, row.uses = token_sha256(token), wanted.uses or 1
    row.expires_at = _expiry(wanted.expires_at, clock)
    return row


def _expiry(wanted: datetime | None, clock: float) -> float:
    """Unix seconds. Raises InvalidRequestError."""
    if wanted is None:
        return clock + _DEFAULT_LIFETIME_S
    expires_at = wanted.timestamp()
    if not clock < expires_at <= clock + _LONGEST_LIFETIME_S:
        raise InvalidRequestError(
            "is not within the next 366 days", field="expiresAt",
            hint=f"it is now {iso_time(clock)}; leave it out for a week",
        )  # fmt: skip
    return expires_at


def _view(row: InvitationRow) -> InvitationView:
    by_token = row.wallet is None
    return InvitationView(
        id=row.id, wallet=row.wallet, uses=row.uses if by_token else None, used=row.used if by_token else None,
        expires_at=None if row.expires_at is None else iso_time(row.expires_at), created_at=iso_time(row.created_at),
    )  # fmt: skip
