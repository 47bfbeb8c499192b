"""Streams are opened before a round: to who answers, twice to who does not, and never to a contributor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.p2p import P2P, P2PContext, PeerID

from cotrain.membership.certificate import Role
from cotrain.membership.document import HeldMembership
from cotrain.peer_key import load_or_create_peer_key
from cotrain.swarm import connections as module
from cotrain.swarm.connections import FIRST_REDIAL_S, REDIAL_EVERY_S, Connections, RedialClock
from cotrain.swarm.gate import Gate
from tests.membership_fixtures import membership_of

SESSION = "test"
OPTIONS = {"check_if_identity_free": False, "auto_nat": False, "nat_port_map": False}


class Member:
    """A p2p that answers introductions."""

    def __init__(self, folder: Path, name: str, role: Role = "reduce"):
        self.key = folder / f"{name}.key"
        self.id = load_or_create_peer_key(self.key)
        self.held = HeldMembership(membership_of(folder / "keys", SESSION, self.id, role=role))
        self.gate = Gate(SESSION, self.held)

    async def start(self, others: list[Member] | None = None) -> Member:
        known = [address for other in others or [] for address in await other.p2p.get_visible_maddrs()]
        self.p2p = await P2P.create(identity_path=str(self.key), initial_peers=known, **OPTIONS)
        await self.gate.add_p2p_handlers(self.p2p, namespace=SESSION)
        return self

    @property
    def connections(self) -> Connections:
        return Connections(SESSION, self.gate, self.held)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Member, Member]]:
    one = await Member(tmp_path, "one").start()
    other = await Member(tmp_path, "other").start([one])
    yield one, other
    await other.p2p.shutdown()
    await one.p2p.shutdown()


async def test_a_stream_is_opened_and_each_side_knows_the_other(pair: tuple[Member, Member]) -> None:
    one, other = pair
    assert await asyncio.wait_for(other.connections.warm_up(other.p2p, [one.id])[one.id], 10.0)
    assert one.gate.member(other.id) is not None


async def test_who_has_gone_is_tried_twice_and_nobody_fails(
    pair: tuple[Member, Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    attempts = []
    introduce = Connections._introduce

    async def counted(self: Connections, p2p: P2P, peer: PeerID) -> None:
        attempts.append(peer)
        await introduce(self, p2p, peer)

    monkeypatch.setattr(Connections, "_introduce", counted)
    await one.p2p.shutdown()
    connections = other.connections
    assert not await asyncio.wait_for(connections.warm_up(other.p2p, [one.id])[one.id], 20.0)
    assert len(attempts) == module.ATTEMPTS
    assert connections.warm_up(other.p2p, []) == {}  # nothing is left of it


async def test_a_peer_that_is_silent_is_dialled_afresh(
    pair: tuple[Member, Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 1.0)
    calls = 0
    answer = Gate.rpc_introduce

    async def silent_once(self: Gate, request: BytesValue, context: P2PContext) -> BytesValue:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.sleep(5.0)
        return await answer(self, request, context)

    monkeypatch.setattr(Gate, "rpc_introduce", silent_once)
    monkeypatch.setattr(Gate, "_rpc_handlers", None, raising=False)
    await one.gate.remove_p2p_handlers(one.p2p, namespace=SESSION)
    await one.gate.add_p2p_handlers(one.p2p, namespace=SESSION)
    assert await asyncio.wait_for(other.connections.warm_up(other.p2p, [one.id])[one.id], 10.0)
    assert calls == 2


async def test_a_contributor_is_not_called(tmp_path: Path, pair: tuple[Member, Member]) -> None:
    one, other = pair
    contributor = Member(tmp_path, "contributor", role="contribute")
    other.gate.admit(contributor.id, contributor.held.current().credential.model_dump_json(by_alias=True).encode())
    assert set(other.connections.warm_up(other.p2p, [one.id, contributor.id])) == {one.id}


def test_a_relayed_peer_is_redialled_after_a_while_and_then_seldom() -> None:
    clock = RedialClock()
    assert not clock.is_due("a", 100.0)
    assert not clock.is_due("a", 100.0 + FIRST_REDIAL_S - 0.1)
    assert clock.is_due("a", 100.0 + FIRST_REDIAL_S)
    assert not clock.is_due("a", 101.0 + FIRST_REDIAL_S)
    assert clock.is_due("a", 100.0 + FIRST_REDIAL_S + REDIAL_EVERY_S)
    clock.forget("a")
    assert not clock.is_due("a", 2000.0)
