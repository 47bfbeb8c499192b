"""What a peer has in hand to prove its membership and to check that of others, as the coordinator gave it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field

from cotrain.membership.certificate import Certificate, Endorsement, RevocationList
from cotrain.membership.sealed import MembershipError, keys_by_id
from cotrain.request import CamelModel
from cotrain.status import replace_file

_LOOK_AGAIN_S = 1.0
MAX_DOCUMENT_BYTES = 256 * 1024
Sealed = Annotated[str, Field(max_length=8192)]


class Credential(CamelModel):
    """What a peer shows to others."""

    certificate: Sealed
    endorsements: Annotated[list[Sealed], Field(max_length=16)] = Field(default_factory=list)
    """Older keys of the coordinator for newer ones, oldest first: for peers that know only an older one."""


class MembershipDocument(CamelModel):
    """A peer's credential, and the keys and lists to check the others' with."""

    credential: Credential
    issuers: Annotated[list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]], Field(max_length=16)]
    """The coordinator's public keys that hold now."""
    revocations: Annotated[list[Sealed], Field(max_length=200)] = Field(default_factory=list)
    coordinator_seen_at: float = 0.0
    """Unix time at which this machine last heard from the coordinator."""


def certificate_of(document: MembershipDocument) -> Certificate:
    """A peer's own certificate. Raises MembershipError if the document is not whole."""
    return Certificate.unseal("certificate", document.credential.certificate, keys_by_id(document.issuers))


class Trust:
    """The coordinator's keys and the revoked certificates, as far as they have become known here."""

    def __init__(self, issuers: Sequence[str], *, revoked: Iterable[str] = ()):
        """`revoked`: serials that are known already. Raises MembershipError for what is no key."""
        self._keys = keys_by_id(issuers)
        self.revoked = set(revoked)

    def learn_revocations(self, sealed: str, session: str) -> RevocationList:
        """Take a signed list into account. Raises MembershipError if it is not one of this session's coordinator."""
        revocations = RevocationList.unseal("revocations", sealed, self._keys)
        if revocations.session != session:
            raise MembershipError(f"the revocations are those of session {revocations.session!r}")
        self.revoked.update(revocations.serials)
        return revocations

    def check(
        self, credential: Credential, *, peer_id: str, session: str, now: float, coordinator_seen_at: float
    ) -> Certificate:
        """The certificate that makes `peer_id` a member now. Raises MembershipError that says why it does not."""
        keys = dict(self._keys)
        for sealed in credential.endorsements:
            try:
                keys |= keys_by_id([Endorsement.unseal("endorsement", sealed, keys).key])
            except MembershipError:
                continue  # of a key that is older than what is known here
        certificate = Certificate.unseal("certificate", credential.certificate, keys)
        certificate.check(peer_id=peer_id, session=session, now=now, coordinator_seen_at=coordinator_seen_at)
        if self.is_revoked(certificate):
            raise MembershipError("its certificate has been revoked", field=peer_id)
        return certificate

    def is_revoked(self, certificate: Certificate) -> bool:
        return certificate.serial in self.revoked


class MembershipSource(Protocol):
    """Where the newest document of this peer is."""

    def current(self) -> MembershipDocument:
        """The same object until there is a newer one. Raises MembershipError if there is none."""
        ...


class HeldMembership:
    """A document in memory; replaced by whoever hears from the coordinator."""

    def __init__(self, document: MembershipDocument):
        self._document = document

    def current(self) -> MembershipDocument:
        return self._document

    def replace(self, document: MembershipDocument) -> None:
        """Use a newer one."""
        self._document = document


class MembershipFile:
    """A document in a file that another process replaces; looked at again at most once a second."""

    def __init__(self, path: Path):
        self._path = path
        self._document: MembershipDocument | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._looked_at = -_LOOK_AGAIN_S

    def current(self) -> MembershipDocument:
        if self._document is None or time.monotonic() - self._looked_at >= _LOOK_AGAIN_S:
            self._looked_at = time.monotonic()
            self._look()
        assert self._document is not None
        return self._document

    def _look(self) -> None:
        try:
            facts = os.stat(self._path)
            stamp = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
            if stamp != self._stamp:
                self._document, self._stamp = read_membership(self._path), stamp
        except (OSError, MembershipError) as error:
            if self._document is None:  # else the one in hand serves until a whole one is there
                raise MembershipError(
                    f"the membership certificate cannot be read: {error}", field=str(self._path),
                    hint="join again: cotrain node join <url>",
                ) from error  # fmt: skip


def read_membership(path: Path) -> MembershipDocument:
    """Raises OSError, or MembershipError for what is not such a document."""
    with path.open("rb") as file:
        content = file.read(MAX_DOCUMENT_BYTES + 1)
    try:
        if len(content) > MAX_DOCUMENT_BYTES:
            raise ValueError("it is too large")
        return MembershipDocument.model_validate_json(content)
    except ValueError as error:
        raise MembershipError("is not a membership document", field=str(path)) from error


def write_membership(path: Path, document: MembershipDocument) -> None:
    """Replace the file at once."""
    replace_file(path, document.model_dump_json(by_alias=True).encode())
