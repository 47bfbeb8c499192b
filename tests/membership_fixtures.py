"""A coordinator's signing key for tests, and what it gives to peers."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cotrain.membership.certificate import Role
from cotrain.membership.document import HeldMembership, MembershipDocument
from cotrain.membership.issuer import Issuer
from cotrain.peer_key import load_or_create_peer_key

ACCOUNT = "eip155:1:0x8ba1f109551bD432803012645Ac136ddd64DBA72"


def membership_of(
    keys: Path, session: str, peer_id: str, *, role: Role = "reduce", now: float | None = None
) -> MembershipDocument:
    """A credential for an hour from `now` on, signed by the key in the folder `keys`."""
    now = time.time() if now is None else now
    issuer = Issuer(keys, now=now)
    _, credential = issuer.issue(
        session=session, peer_id=peer_id, account=ACCOUNT, role=role, now=now, until=now + 3600
    )
    return MembershipDocument(credential=credential, issuers=issuer.public_keys(now), coordinator_seen_at=now)


def gate_and_caller(folder: Path, session: str = "test") -> tuple[Any, Any]:
    """A gate that has admitted one peer, and the context of a call by that peer."""
    from hivemind.p2p import PeerID

    from cotrain.swarm.gate import Gate

    mine, caller = (load_or_create_peer_key(folder / f"{name}.key") for name in ("mine", "caller"))
    gate = Gate(session, HeldMembership(membership_of(folder / "keys", session, mine)))
    shown = membership_of(folder / "keys", session, caller).credential.model_dump_json(by_alias=True).encode()
    gate.admit(caller, shown)
    return gate, SimpleNamespace(remote_id=PeerID.from_base58(caller))
