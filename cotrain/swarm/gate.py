"""Who may come in: a peer is a member of a session's swarm if it shows a certificate that holds.

libp2p has authenticated every caller, so its id can be believed; the certificate ties the id to the session. It is
checked offline. A peer that calls and is not known yet is asked for its certificate before it is refused.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.p2p import P2P, P2PContext, PeerID, ServicerBase
from hivemind.utils import get_logger
from pydantic import ValidationError

from cotrain.membership.certificate import Certificate, RevocationList
from cotrain.membership.document import Credential, MembershipDocument, MembershipSource, Trust
from cotrain.membership.sealed import MembershipError

logger = get_logger(__name__)

ASK_TIMEOUT_S = 5.0
ASK_AGAIN_S = 2.0
"""After a peer could not show a certificate: before it is asked again."""
MAX_CREDENTIAL_BYTES = 64 * 1024
MOST_KNOWN = 4096
"""Peers remembered, refused ones included."""


class Gate(ServicerBase):
    """One process's knowledge of who is a member of one session. Asks, answers and remembers."""

    def __init__(self, session: str, source: MembershipSource):
        """`source`: this peer's own credential, and the keys to check others' with. Raises MembershipError."""
        self._session, self._source = session, source
        self._document = source.current()
        self._trust = Trust(self._document.issuers)
        self._members: dict[str, Certificate] = {}
        self._refused_at: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[Certificate]] = {}
        self._p2p: P2P | None = None
        self._learn(self._document)

    async def add_p2p_handlers(self, p2p: P2P, *args: Any, **kwargs: Any) -> None:
        """Answer from now on, and ask through this libp2p."""
        self._p2p = p2p
        await super().add_p2p_handlers(p2p, *args, **kwargs)

    # ------------------------------------------------------------------------------------------ what is known
    def member(self, peer: str) -> Certificate | None:
        """The certificate of a peer that is known to be a member now."""
        document = self._refresh()
        certificate = self._members.get(peer)
        if certificate is None or self._trust.is_revoked(certificate):
            return None
        try:
            certificate.check(
                peer_id=peer, session=self._session, now=time.time(),
                coordinator_seen_at=document.coordinator_seen_at,
            )  # fmt: skip
        except MembershipError:
            del self._members[peer]  # it may have a newer one: it will be asked
            return None
        return certificate

    def has_refused(self, peer: str) -> bool:
        """Whether the peer was asked, and could not show a certificate that holds."""
        return peer in self._refused_at

    def admit(self, peer: str, shown: bytes) -> Certificate:
        """Take the credential that a peer shows. Raises MembershipError."""
        document = self._refresh()
        try:
            if len(shown) > MAX_CREDENTIAL_BYTES:
                raise ValueError("it is too large")
            credential = Credential.model_validate_json(shown)
        except (ValueError, ValidationError) as error:
            raise MembershipError("shows what is no certificate", field=peer) from error
        certificate = self._trust.check(
            credential, peer_id=peer, session=self._session, now=time.time(),
            coordinator_seen_at=document.coordinator_seen_at,
        )  # fmt: skip
        _bound(self._members)
        self._members[peer] = certificate
        self._refused_at.pop(peer, None)
        return certificate

    def learn_revocations(self, sealed: str) -> RevocationList | None:
        """Take a signed list into account; None for one that is not of this session's coordinator."""
        try:
            return self._trust.learn_revocations(sealed, self._session)
        except MembershipError as error:
            logger.info(f"a list of revocations is left out: {error}")
            return None

    @property
    def revocations(self) -> list[str]:
        """The coordinator's newest lists, as this process got them from it."""
        return self._refresh().revocations

    def _refresh(self) -> MembershipDocument:
        document = self._source.current()
        if document is not self._document:
            if document.issuers != self._document.issuers:
                self._trust = Trust(document.issuers, revoked=self._trust.revoked)
                self._members.clear()
            self._document = document
            self._learn(document)
        return document

    def _learn(self, document: MembershipDocument) -> None:
        for sealed in document.revocations:
            self.learn_revocations(sealed)

    # ------------------------------------------------------------------------------------------ asking
    async def require(self, peer: PeerID, p2p: P2P | None = None) -> Certificate:
        """The certificate of a peer, which is asked for it if it is not known. Raises MembershipError.

        `p2p`: to ask through, in a process where this gate answers nobody.
        """
        name = peer.to_base58()
        if (certificate := self.member(name)) is not None:
            return certificate
        if time.monotonic() - self._refused_at.get(name, -ASK_AGAIN_S) < ASK_AGAIN_S:
            raise MembershipError("has shown no certificate that holds", field=name)
        if name not in self._asking:
            through = p2p or self._p2p
            assert through is not None, "there is no libp2p to ask through"
            self._asking[name] = asyncio.create_task(self._ask(through, peer))
            self._asking[name].add_done_callback(lambda _: self._asking.pop(name, None))
        return await asyncio.shield(self._asking[name])

    async def admits(self, peer: PeerID) -> bool:
        """Whether a caller is a member. For handlers: one that raises would let strangers fill the log with traces."""
        try:
            await self.require(peer)
        except MembershipError as error:
            logger.info(f"{error}")
            return False
        return True

    async def _ask(self, p2p: P2P, peer: PeerID) -> Certificate:
        name = peer.to_base58()
        mine = BytesValue(value=self._credential())
        try:
            stub = Gate.get_stub(p2p, peer, namespace=self._session)
            answer = await stub.rpc_introduce(mine, timeout=ASK_TIMEOUT_S)
            return self.admit(name, answer.value)
        except Exception as error:
            _bound(self._refused_at)
            self._refused_at[name] = time.monotonic()
            if isinstance(error, MembershipError):
                raise
            raise MembershipError(f"could not be asked for its certificate: {error!r}", field=name) from error

    def _credential(self) -> bytes:
        return self._refresh().credential.model_dump_json(by_alias=True).encode()

    # ------------------------------------------------------------------------------------------ answering
    async def rpc_introduce(self, request: BytesValue, context: P2PContext) -> BytesValue:
        """A peer shows its credential and gets this peer's. It is not secret: who shows a bad one gets it as well."""
        peer = context.remote_id.to_base58()
        try:
            self.admit(peer, request.value)
        except MembershipError as error:
            logger.info(f"{peer} is not let in: {error}")
        return BytesValue(value=self._credential())


def _bound(known: dict[str, object] | dict[str, Certificate] | dict[str, float]) -> None:
    """Forget the oldest entries of a table that strangers can fill."""
    while len(known) >= MOST_KNOWN:
        del known[next(iter(known))]
