"""Membership certificates: issued to participants and to the checkpointer, renewed, revoked."""

from __future__ import annotations

import asyncio

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.lifecycle import FOLLOWED_STATES
from coordinator.models import CertificateRow, ParticipantRow, SessionRow
from coordinator.store import Store, Transaction
from cotrain.membership.certificate import GRACE_S, LIFETIME_S, split_serials
from cotrain.membership.document import Credential, MembershipDocument, write_membership
from cotrain.membership.issuer import REVOCATIONS_HOLD_S, Issuer
from cotrain.paths import CHECKPOINTER_KEY, MEMBERSHIP_FILE, SharedPaths
from cotrain.peer_key import load_or_create_peer_key
from cotrain.status import now

CHECKPOINTER = "checkpointer"
COORDINATOR_ACCOUNT = "coordinator"

_REFRESH_S = REVOCATIONS_HOLD_S / 2


class Certificates:
    """What makes peers members of this coordinator's sessions."""

    def __init__(self, store: Store, shared: SharedPaths):
        self._store = store
        self._shared = shared
        self._opened: Issuer | None = None

    @property
    def _issuer(self) -> Issuer:
        if self._opened is None:  # the data folder is there only once the coordinator runs
            self._opened = Issuer(self._shared.issuer_keys, now=now())
        return self._opened

    def newest_key(self) -> str:
        """The public key that signs now."""
        return self._issuer.public_keys(now())[-1]

    async def issue(self, transaction: Transaction, participant: ParticipantRow) -> MembershipDocument:
        """A certificate for the next days, at most as long as the wallet's statement holds."""
        certificate, credential = self._issuer.issue(
            session=participant.session_id, peer_id=participant.peer_id, account=participant.account,
            role=participant.role, now=now(), until=participant.bond_expires_at,
        )  # fmt: skip
        transaction.rows.add(
            CertificateRow(
                serial=certificate.serial, session_id=certificate.session, participant_id=participant.id,
                issued_at=certificate.issued_at, expires_at=certificate.expires_at, reason="",
            )
        )  # fmt: skip
        return await self._document(transaction.rows, participant.session_id, credential)

    async def revoke(self, transaction: Transaction, participant: ParticipantRow, reason: str) -> None:
        """End all certificates of a participant; `publish` tells the swarm, once this is committed."""
        await transaction.rows.execute(
            update(CertificateRow)
            .where(CertificateRow.participant_id == participant.id, CertificateRow.revoked_at.is_(None))
            .values(revoked_at=now(), reason=reason)
        )

    async def why_revoked(self, rows: AsyncSession, participant: ParticipantRow) -> str:
        """The reason that was given; empty once the certificates have been forgotten."""
        own = CertificateRow.participant_id == participant.id
        query = select(CertificateRow.reason).where(own, CertificateRow.revoked_at.is_not(None))
        return await rows.scalar(query.order_by(CertificateRow.revoked_at.desc()).limit(1)) or ""

    async def publish(self, session: str) -> None:
        """Give the checkpointer a fresh certificate, and the lists of revoked ones that it puts into the DHT."""
        peer = load_or_create_peer_key(self._shared.root / CHECKPOINTER_KEY)
        _, credential = self._issuer.issue(
            session=session, peer_id=peer, account=COORDINATOR_ACCOUNT, role="observe", now=now(),
            until=now() + LIFETIME_S,
        )  # fmt: skip
        async with self._store.read() as rows:
            document = await self._document(rows, session, credential)
        folder = self._shared.run_dir(session, CHECKPOINTER)
        folder.mkdir(parents=True, exist_ok=True)
        write_membership(folder / MEMBERSHIP_FILE, document)

    async def refresh_forever(self) -> None:
        """Keep what the checkpointer has fresh, and forget certificates that nobody would accept any more."""
        while True:
            async with self._store.write() as transaction:
                gone = CertificateRow.expires_at < now() - GRACE_S
                await transaction.rows.execute(delete(CertificateRow).where(gone))
                followed = select(SessionRow.id).where(SessionRow.state.in_(FOLLOWED_STATES))
                sessions = list(await transaction.rows.scalars(followed))
            for session in sessions:
                await self.publish(session)
            await asyncio.sleep(_REFRESH_S)

    async def _document(self, rows: AsyncSession, session: str, credential: Credential) -> MembershipDocument:
        revoked = await rows.scalars(
            select(CertificateRow.serial)
            .where(CertificateRow.session_id == session, CertificateRow.revoked_at.is_not(None))
            .order_by(CertificateRow.revoked_at, CertificateRow.serial)
        )
        lists = [self._issuer.revoke(session, list(page), now=now()) for page in split_serials(list(revoked))]
        return MembershipDocument(
            credential=credential, issuers=self._issuer.public_keys(now()), revocations=lists,
            coordinator_seen_at=now(),
        )  # fmt: skip
