"""An observer that offers a service, and a peer that is connected to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from hivemind.p2p import P2P, ServicerBase

from cotrain.membership.certificate import Role
from cotrain.membership.document import HeldMembership
from cotrain.peer_key import load_or_create_peer_key
from cotrain.swarm.gate import Gate
from tests.membership_fixtures import membership_of

SESSION = "test"


@asynccontextmanager
async def observer_and_peer(
    folder: Path, service: Callable[[Gate], ServicerBase], *, certified: bool = True
) -> AsyncIterator[tuple[P2P, str]]:
    """The peer's p2p and the observer's id. Not `certified`: the peer's certificate is of another coordinator."""
    keys = {name: load_or_create_peer_key(folder / f"{name}.key") for name in ("observer", "peer")}
    options = {"check_if_identity_free": False, "auto_nat": False, "nat_port_map": False}
    observer = await P2P.create(identity_path=str(folder / "observer.key"), **options)
    peer = await P2P.create(
        identity_path=str(folder / "peer.key"), initial_peers=await observer.get_visible_maddrs(), **options
    )
    roles: dict[str, Role] = {"observer": "observe", "peer": "reduce"}
    try:
        for p2p, name in ((observer, "observer"), (peer, "peer")):
            issuer = "keys" if certified or name == "observer" else "other-keys"
            document = membership_of(folder / issuer, SESSION, keys[name], role=roles[name])
            gate = Gate(SESSION, HeldMembership(document))
            await gate.add_p2p_handlers(p2p, namespace=SESSION)
            if name == "observer":
                await service(gate).add_p2p_handlers(p2p, namespace=SESSION)
        yield peer, keys["observer"]
    finally:
        await peer.shutdown()
        await observer.shutdown()
