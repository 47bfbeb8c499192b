"""Registration of volunteers, their tokens, and whether they are there."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.auth.bonds import Bonds
from coordinator.auth.limits import Limits
from coordinator.auth.tokens import new_token, token_matches, token_sha256
from coordinator.certificates import Certificates
from coordinator.contributions import credits_of
from coordinator.credits import Credit
from coordinator.idempotency import Keep, keep_nothing
from coordinator.invitations import admission, redeem
from coordinator.joinable import check_joinable, check_memory
from coordinator.lifecycle import wish_of
from coordinator.models import ParticipantRow, RunRow, SessionRow
from coordinator.progress import ProgressPump
from coordinator.queue import queue_reasons
from coordinator.sessions import find_session, no_such_session
from coordinator.store import Store, Transaction
from coordinator.uplinks import Uplink, Uplinks
from coordinator.views import (
    ParticipantsPage,
    ParticipantView,
    participant_state,
    participant_view,
    peer_view,
)
from cotrain.errors import ConflictError, ForbiddenError, NotAuthorizedError, NotFoundError
from cotrain.identity.account import Account
from cotrain.protocol import (
    Asset,
    Hardware,
    RegisterAnswer,
    RegisterRequest,
    RenewAnswer,
    ResumeRequest,
    Welcome,
)
from cotrain.status import Status, now

Position = tuple[float, str]
"""Where a page of participants begins: creation time and id of the last one seen."""

_RUNS_IN_WELCOME = 32
_KNOWN_NODES = 256
REMOVED_BY_OWNER = "the session's owner has removed this account"


class Participants:
    """The volunteers of all sessions.

    Args:
        initial_peers: the checkpointer's present addresses, empty while it is not up.
    """

    def __init__(
        self, store: Store, uplinks: Uplinks, pump: ProgressPump, bonds: Bonds, certificates: Certificates,
        limits: Limits, initial_peers: Callable[[], list[str]],
    ):  # fmt: skip
        self._store = store
        self._uplinks = uplinks
        self._pump = pump
        self._bonds = bonds
        self._certificates = certificates
        self._limits = limits
        self._initial_peers = initial_peers

    async def register(
        self, session: str, request: RegisterRequest, account: Account, keep: Keep = keep_nothing
    ) -> RegisterAnswer:
        """Admit a peer of this account; one that is known gets a new token and its old one ends.

        Args:
            keep: is given the answer, in the transaction that admits; the bond has been redeemed in one before it.

        Raises NotFoundError (a stranger to a private session hears it, too), ConflictError (nothing to join, a node
        that is known to be too small, or another account's peer), UnreachableError (not yet), MembershipError or
        NotAuthorizedError (the bond), ForbiddenError (removed, or an invitation that is used up or has expired),
        RateLimitedError.
        """
        async with self._store.read() as rows:
            found = await find_session(rows, session)
            await admission(rows, found, str(account), request.invitation)
            queued = await queue_reasons(rows, [session])
        check_joinable(found, bool(self._initial_peers()), queued.get(session))
        check_memory(found, request.hardware)
        await self._bonds.redeem(request.bond, account=account, peer_id=request.peer_id, session=session)
        async with self._store.write() as transaction:
            row = await find_session(transaction.rows, session)
            await redeem(transaction.rows, await admission(transaction.rows, row, str(account), request.invitation))
            initial_peers = self._initial_peers()
            check_joinable(row, bool(initial_peers))
            participant = await self._admit(transaction, session, request, str(account))
            token = new_token()
            participant.token_sha256 = token_sha256(token)
            answer = await self._begin(transaction, row, participant, token, initial_peers)
            await keep(transaction, answer)
        return answer

    async def resume(
        self, session: str, participant: str, token: str, request: ResumeRequest
    ) -> RegisterAnswer:  # fmt: skip
        """What a participant begins with that comes back, or takes another role; its token stays.

        Raises ConflictError, UnreachableError, or NotAuthorizedError for a token that is not this participant's, and
        once the wallet's statement has expired.
        """
        async with self._store.write() as transaction:
            # here, and not before: whoever is put out meanwhile must not come back by this
            known = _own(await transaction.rows.get(ParticipantRow, participant), session, token)
            _check_statement(known)
            row, initial_peers = await find_session(transaction.rows, session), self._initial_peers()
            queued = await queue_reasons(transaction.rows, [session])
            check_joinable(row, bool(initial_peers), queued.get(session))
            check_memory(row, request.hardware)
            _describe(known, request)
            return await self._begin(transaction, row, known, token, initial_peers)

    async def _begin(
        self, transaction: Transaction, row: SessionRow, participant: ParticipantRow, token: str,
        initial_peers: list[str],
    ) -> RegisterAnswer:  # fmt: skip
        return RegisterAnswer(
            participant=participant.id, token=token, session=row.id, initial_peers=initial_peers, config=row.config,
            membership=await self._certificates.issue(transaction, participant),
            assets=[Asset.model_validate(asset) for asset in row.assets],
        )  # fmt: skip

    async def expected(self, session: str, peer_id: str, *, is_seen: bool) -> str:
        """The session's name, if there is sense in asking a wallet whether this peer may join it.

        Args:
            is_seen: whether the session is there for whoever asks; for a peer that has joined before it is.

        Raises NotFoundError, ConflictError, UnreachableError, or ForbiddenError for a peer that was removed.
        """
        of_peer = ParticipantRow.session_id == session, ParticipantRow.peer_id == peer_id
        async with self._store.read() as rows:
            row = await find_session(rows, session)
            known = await rows.scalar(select(ParticipantRow).where(*of_peer))
            if known is None and not is_seen:
                raise no_such_session()
            if known is not None and known.removed_at is not None:
                raise await self._put_out_before(rows, known)
            queued = await queue_reasons(rows, [session])
            check_joinable(row, bool(self._initial_peers()), queued.get(session))
            return row.name

    async def _admit(
        self, transaction: Transaction, session: str, request: RegisterRequest, account: str
    ) -> ParticipantRow:
        rows = transaction.rows
        here = ParticipantRow.session_id == session
        known = await rows.scalar(select(ParticipantRow).where(here, ParticipantRow.peer_id == request.peer_id))
        mine = list(await rows.scalars(select(ParticipantRow).where(here, ParticipantRow.account == account)))
        if removed := [row for row in mine if row.removed_at is not None]:
            raise await self._put_out_before(rows, removed[0])
        if known is None:
            self._limits.participants(len(mine))
            known = ParticipantRow(
                id=f"p-{secrets.token_hex(5)}", session_id=session, peer_id=request.peer_id, account=account,
                state="offline", created_at=now(),
            )  # fmt: skip
            rows.add(known)
        elif known.account not in (account, ""):  # "": from before there were accounts
            raise ConflictError(
                "this peer is registered by another account", field="peerId",
                hint="use that wallet, or move peer.key away to become a new peer",
            )  # fmt: skip
        known.account = account
        known.bond_expires_at = float(request.bond.expires_at)
        _describe(known, request)
        return known

    async def _put_out_before(self, rows: AsyncSession, removed: ParticipantRow) -> ForbiddenError:
        why = await self._certificates.why_revoked(rows, removed)
        return ForbiddenError(why or "this account was put out of the session", hint="join another session")

    async def renew(self, session: str, participant: str) -> RenewAnswer:
        """A new certificate for a participant that has been authenticated.

        Raises ConflictError once the session is over, NotAuthorizedError once the wallet's statement has expired.
        """
        async with self._store.write() as transaction:
            check_joinable(await find_session(transaction.rows, session), checkpointer_up=True)
            row = await find_participant(transaction.rows, session, participant)
            _check_statement(row)
            return RenewAnswer(membership=await self._certificates.issue(transaction, row))

    async def remove(self, session: str, participant: str) -> None:
        """What the session's owner may do to a participant: put it out for good. Raises NotFoundError."""
        async with self._store.write() as transaction:
            row = await find_participant(transaction.rows, session, participant)
            await self.put_out(transaction, row, REMOVED_BY_OWNER)
        await self.cut_off(row, "the session's owner has removed this participant")

    async def put_out(self, transaction: Transaction, row: ParticipantRow, why: str) -> None:
        """End a participant's token and certificates, and let its account not in again; `why` is what it is told.

        `cut_off` tells everybody, once this is committed.
        """
        row.token_sha256, row.removed_at = "", now()
        await self._certificates.revoke(transaction, row, why)

    async def cut_off(self, row: ParticipantRow, why: str) -> None:
        """Publish the revocation of one that was put out, and close its uplink; `why`: at most 120 bytes."""
        await self._certificates.publish(row.session_id)
        self._uplinks.drop(row.session_id, row.id, why)

    async def authenticate(self, session: str, participant: str, token: str) -> ParticipantRow:
        """The participant whose token this is. Raises NotAuthorizedError, always the same one."""
        async with self._store.read() as rows:
            row = await rows.get(ParticipantRow, participant)
        return _own(row, session, token)

    async def holder(self, session: str, token: str) -> str | None:
        """The id of the session's participant whose token this is, if it is one's."""
        query = select(ParticipantRow.id).where(
            ParticipantRow.session_id == session, ParticipantRow.token_sha256 == token_sha256(token)
        )
        async with self._store.read() as rows:
            found: str | None = await rows.scalar(query)
        return found

    async def find(self, session: str, participant: str) -> ParticipantRow:
        """Raises NotFoundError."""
        async with self._store.read() as rows:
            return await find_participant(rows, session, participant)

    async def leave(self, session: str, participant: str) -> None:
        """End the participant's token and its uplink; what it contributed stays on record."""
        async with self._store.write() as transaction:
            row = await transaction.rows.get(ParticipantRow, participant)
            if row is not None:
                row.token_sha256 = ""
        self._uplinks.drop(session, participant, "the participant left")

    async def connected(self, session: str, uplink: Uplink) -> Welcome:
        """An uplink has been opened; the answer to its Hello."""
        async with self._store.write() as transaction:
            row = await transaction.rows.get(ParticipantRow, uplink.participant)
            session_row = await find_session(transaction.rows, session)
            self._uplinks.connect(session, uplink)
            if row is not None:
                uplink.memory_bytes = Hardware.model_validate(row.hardware).memory_bytes
                row.last_seen_at = now()
                await announce(transaction, row, uplink.status, connected=True)
            acknowledged = await _applied_runs(transaction.rows, session, uplink.participant)
        self._pump.mark(session)
        return Welcome(
            acknowledged=acknowledged, wish=wish_of(session_row.state), issuer=self._certificates.newest_key()
        )

    async def disconnected(self, session: str, uplink: Uplink) -> None:
        """The uplink is closed; a no-op where a newer one has taken its place."""
        if not self._uplinks.disconnect(session, uplink):
            return
        async with self._store.write() as transaction:
            row = await transaction.rows.get(ParticipantRow, uplink.participant)
            if row is not None:
                await announce(transaction, row, uplink.status, connected=False)
        self._pump.mark(session)

    async def known_memory(self) -> list[int]:
        """Memory of the nodes that registered last, bytes; 0 for one that has reported none."""
        newest = select(ParticipantRow.hardware).order_by(ParticipantRow.created_at.desc()).limit(_KNOWN_NODES)
        async with self._store.read() as rows:
            return [Hardware.model_validate(hardware).memory_bytes for hardware in await rows.scalars(newest)]

    async def forget_connections(self) -> None:
        """At start: whoever was connected to the process before this one is not connected to this one."""
        async with self._store.write() as transaction:
            stale = await transaction.rows.scalars(select(ParticipantRow).where(ParticipantRow.state != "offline"))
            for row in stale.all():
                await announce(transaction, row, None, connected=False)

    async def oldest_first(
        self, session: str, after: Position | None, limit: int
    ) -> tuple[ParticipantsPage, Position | None]:
        """At most `limit` of those who registered after `after`, and where the next page begins (None at the end).

        Raises NotFoundError.
        """
        query = (
            select(ParticipantRow).where(ParticipantRow.session_id == session)
            .order_by(ParticipantRow.created_at, ParticipantRow.id).limit(limit + 1)
        )  # fmt: skip
        if after is not None:
            query = query.where(tuple_(ParticipantRow.created_at, ParticipantRow.id) > after)
        async with self._store.read() as rows:
            checkpointer = (await find_session(rows, session)).checkpointer_status
            found = list(await rows.scalars(query))
            listed = found[:limit]
            credits = await credits_of(rows, session, [row.id for row in listed])
        page = ParticipantsPage(
            items=[self._view(row, credits.get(row.id, Credit())) for row in listed],
            checkpointer=peer_view(Status.model_validate(checkpointer) if checkpointer else None),
        )
        return page, (listed[-1].created_at, listed[-1].id) if len(found) > limit else None

    def _view(self, row: ParticipantRow, credit: Credit) -> ParticipantView:
        connected = row.id in self._uplinks.connected(row.session_id)
        return participant_view(row, credit, connected=connected, clock=now())


async def find_participant(rows: AsyncSession, session: str, participant: str) -> ParticipantRow:
    """Raises NotFoundError."""
    row = await rows.get(ParticipantRow, participant)
    if row is None or row.session_id != session:
        raise NotFoundError("there is no such participant", field="participant", hint="…/participants lists them")
    return row


def _own(row: ParticipantRow | None, session: str, token: str) -> ParticipantRow:
    """The participant, if this token is its own. Raises NotAuthorizedError, always the same one."""
    if row is None or row.session_id != session or not token_matches(token, row.token_sha256):
        raise NotAuthorizedError(
            "this token is not known for this participant", field="Authorization",
            hint="join again: cotrain node join <url>",
        )  # fmt: skip
    return row


def _check_statement(row: ParticipantRow) -> None:
    """Raises NotAuthorizedError once the wallet's statement has expired, and for one that has left or was put out."""
    if not row.token_sha256 or row.bond_expires_at <= now():
        raise NotAuthorizedError(
            "the wallet's statement for this peer has expired", hint="register again with a new one"
        )


def _describe(row: ParticipantRow, request: ResumeRequest) -> None:
    """Note what a node says of itself."""
    row.role, row.name = request.role, request.name
    row.hardware = request.hardware.model_dump(by_alias=True)


async def announce(transaction: Transaction, row: ParticipantRow, status: Status | None, *, connected: bool) -> None:
    """Emit `participant.state` if it is another one than was announced last."""
    state = participant_state(status, row.last_seen_at, connected=connected, clock=now())
    if state == row.state:
        return
    row.state = state
    await transaction.emit(
        row.session_id, "participant.state",
        {
            "sessionId": row.session_id, "participant": row.id, "peerId": row.peer_id, "name": row.name,
            "state": state,
        },
    )  # fmt: skip


async def _applied_runs(rows: AsyncSession, session: str, source: str) -> dict[str, int]:
    """The highest applied number of the newest runs."""
    found = await rows.scalars(
        select(RunRow).where(RunRow.session_id == session, RunRow.source == source)
        .order_by(RunRow.updated_at.desc()).limit(_RUNS_IN_WELCOME)
    )  # fmt: skip
    return {row.run: row.applied_seq for row in found}
