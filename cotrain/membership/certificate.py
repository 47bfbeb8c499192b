"""Membership certificates: the coordinator's word that a peer may take part in a session's swarm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cotrain.membership.sealed import IssuerKey, Kind, MembershipError, open_sealed
from cotrain.peer_key import PeerIdText
from cotrain.sections import SessionId

Role = Literal["reduce", "contribute", "observe"]
"""reduce: averages parts and votes. contribute: only brings its own (no one can call it). observe: the checkpointer."""

LIFETIME_S = 7 * 24 * 3600
GRACE_S = 24 * 3600
"""How long an expired certificate still holds for a peer that cannot reach the coordinator."""
UNREACHABLE_AFTER_S = 900.0
"""Seconds without a word of the coordinator after which it counts as unreachable."""
CLOCK_TOLERANCE_S = 60.0
SERIALS_IN_LIST = 120

Serial = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Seconds = Annotated[int, Field(ge=0, le=2**40)]
"""Unix time."""
SignedT = TypeVar("SignedT", bound="Signed")


class Signed(BaseModel):
    """Base of what is signed: checked strictly, written in one canonical form."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def seal(self, kind: Kind, key: IssuerKey) -> str:
        return key.seal(kind, self.model_dump_json().encode())

    @classmethod
    def unseal(cls: type[SignedT], kind: Kind, text: str, keys: dict[str, str]) -> SignedT:
        """Raises MembershipError."""
        payload = open_sealed(kind, text, keys)
        try:
            return cls.model_validate_json(payload)
        except ValidationError as error:
            raise MembershipError(f"the {kind} is signed but cannot be read: upgrade this peer") from error


class Certificate(Signed):
    """Binds a peer to a wallet, a session and a role, for a time."""

    serial: Serial
    session: SessionId
    peer_id: PeerIdText
    account: Annotated[str, Field(max_length=128)]
    """CAIP-10; of the checkpointer: `coordinator`."""
    role: Role
    issued_at: Seconds
    expires_at: Seconds

    def check(self, *, peer_id: str, session: str, now: float, coordinator_seen_at: float) -> None:
        """Raises MembershipError unless it makes `peer_id` a member of `session` at `now` (Unix seconds).

        `coordinator_seen_at`: when this machine last heard from the coordinator; long ago, there is a grace.
        """
        if self.peer_id != peer_id:
            raise MembershipError(f"shows the certificate of another peer, {self.peer_id}", field=peer_id)
        if self.session != session:
            raise MembershipError(
                f"its certificate is for session {self.session!r}, this is {session!r}", field=peer_id
            )
        if now < self.issued_at - CLOCK_TOLERANCE_S:
            raise MembershipError("its certificate is not valid yet", field=peer_id, hint="are all clocks right?")
        unreachable = now - coordinator_seen_at > UNREACHABLE_AFTER_S
        if now >= self.expires_at + (GRACE_S if unreachable else 0):
            raise MembershipError("its certificate has expired", field=peer_id, hint="its agent must renew it")


class Endorsement(Signed):
    """A coordinator's key vouches for the one that follows it."""

    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    issued_at: Seconds


class RevocationList(Signed):
    """Certificates that hold no more, though they have not expired. Lists add up: an old one takes nothing back."""

    session: SessionId
    serials: Annotated[list[Serial], Field(max_length=SERIALS_IN_LIST)]
    issued_at: Seconds
    expires_at: Seconds
    """Until when the DHT may carry this list; what it says holds on."""


def split_serials(serials: Sequence[str]) -> list[Sequence[str]]:
    """Serials in pieces that fit, signed, into one record of the DHT; one empty piece if there are none."""
    return [serials[start : start + SERIALS_IN_LIST] for start in range(0, max(1, len(serials)), SERIALS_IN_LIST)]
