"""Who gets in, over real libp2p: members are asked once; strangers, copies, the expired and the revoked stay out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.averaging.averager import DecentralizedAverager
from hivemind.dht.protocol import DHTProtocol
from hivemind.dht.routing import DHTID
from hivemind.p2p import P2P, PeerID
from hivemind.proto import averaging_pb2, dht_pb2
from hivemind.utils import MSGPackSerializer, get_dht_time
from hivemind.utils.multiaddr import Multiaddr

from cotrain.membership.certificate import Certificate
from cotrain.membership.document import Credential, HeldMembership, MembershipDocument, MembershipSource
from cotrain.membership.issuer import Issuer
from cotrain.membership.sealed import MembershipError
from cotrain.peer_key import load_or_create_peer_key
from cotrain.swarm import gate as gate_module
from cotrain.swarm.averager import RoundAverager
from cotrain.swarm.dht import PeerRecord
from cotrain.swarm.gate import Gate
from cotrain.swarm.results import RoundService
from cotrain.swarm.state import StateService
from tests.integration.swarm_fixtures import ChildHandle, PeerChild, running_swarm, swarm_config
from tests.integration.test_swarm import close_rounds
from tests.membership_fixtures import membership_of

SESSION = "test"
HOUR_S = 3600.0


# ---------------------------------------------------------------------------------------------- a gate, its callers
class Node:
    """A libp2p daemon with an identity of its own, and a gate that answers there."""

    def __init__(self, p2p: P2P, peer: str, source: HeldMembership, gate: Gate):
        self.p2p, self.peer, self.source, self.gate = p2p, peer, source, gate
        self.shown: list[str] = []
        """Who has shown a credential here."""
        admit = gate.admit

        def count(peer: str, shown: bytes) -> Certificate:
            self.shown.append(peer)
            return admit(peer, shown)

        gate.admit = count  # type: ignore[method-assign]

    async def require(self, other: Node) -> str:
        return (await self.gate.require(PeerID.from_base58(other.peer))).peer_id


@asynccontextmanager
async def nodes(folder: Path, *makers: Callable[[str], MembershipDocument]) -> AsyncIterator[list[Node]]:
    """Nodes that are connected to the first; each maker gives a node its document by its peer id."""
    made: list[Node] = []
    try:
        for number, maker in enumerate(makers):
            key = folder / f"node{number}.key"
            peer = load_or_create_peer_key(key)
            source = HeldMembership(maker(peer))
            known = await made[0].p2p.get_visible_maddrs() if made else []
            p2p = await P2P.create(
                initial_peers=known, identity_path=str(key), host_maddrs=["/ip4/127.0.0.1/tcp/0"],
                check_if_identity_free=False, auto_nat=False, nat_port_map=False,
            )  # fmt: skip
            gate = Gate(SESSION, source)
            await gate.add_p2p_handlers(p2p, namespace=SESSION)
            made.append(Node(p2p, peer, source, gate))
        yield made
    finally:
        for node in made:
            await node.p2p.shutdown()


def member(folder: Path, **facts: Any) -> Callable[[str], MembershipDocument]:
    return lambda peer: membership_of(folder / "keys", SESSION, peer, **facts)


async def test_an_unknown_member_is_asked_once_and_known_to_both(tmp_path: Path) -> None:
    async with nodes(tmp_path, member(tmp_path), member(tmp_path)) as (first, second):
        assert first.gate.member(second.peer) is None
        found = await asyncio.gather(*(first.require(second) for _ in range(8)))
        assert found == [second.peer] * 8
        assert second.shown == [first.peer]
        assert first.gate.member(second.peer) is not None
        # in asking, the first has introduced itself
        assert second.gate.member(first.peer) is not None
        await second.require(first)
        assert first.shown == [second.peer]


def copied(folder: Path) -> Callable[[str], MembershipDocument]:
    victim = "12D3KooWQYV9dGMFoRzNStwpXztXaBUjtPqi6aU76ZgUriHhKust"
    return lambda peer: membership_of(folder / "keys", SESSION, victim)


def forged(folder: Path) -> Callable[[str], MembershipDocument]:
    return lambda peer: membership_of(folder / "other-keys", SESSION, peer)


def garbage(text: str) -> Callable[[str], MembershipDocument]:
    return lambda peer: MembershipDocument(credential=Credential(certificate=text), issuers=[])


@pytest.mark.parametrize(
    ("maker", "reason"),
    [
        (lambda folder: copied(folder), "certificate of another peer"),
        (lambda folder: forged(folder), "not the coordinator's"),
        (lambda folder: member(folder, now=time.time() - 2 * HOUR_S), "expired"),
        (lambda folder: member(folder, now=time.time() + HOUR_S), "not valid yet"),
        (lambda folder: lambda peer: membership_of(folder / "keys", "another", peer), "is for session 'another'"),
        (lambda folder: garbage("x"), "is not a signed certificate"),
    ],
    ids=["copied", "forged", "expired", "not yet valid", "other session", "garbage"],
)
async def test_a_certificate_that_does_not_hold_lets_nobody_in(
    tmp_path: Path, maker: Callable[[Path], Callable[[str], MembershipDocument]], reason: str
) -> None:
    async with nodes(tmp_path, member(tmp_path), maker(tmp_path)) as (honest, other):
        with pytest.raises(MembershipError, match=reason):
            await honest.require(other)
        assert other.shown == [honest.peer]
        with pytest.raises(MembershipError, match="has shown no certificate that holds"):
            await honest.require(other)  # so soon it is not asked again
        assert other.shown == [honest.peer]
        assert honest.gate.has_refused(other.peer)


async def test_a_peer_that_renews_its_certificate_is_let_in_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "ASK_AGAIN_S", 0.0)
    expired = member(tmp_path, now=time.time() - 2 * HOUR_S)
    async with nodes(tmp_path, member(tmp_path), expired) as (honest, other):
        with pytest.raises(MembershipError, match="expired"):
            await honest.require(other)
        other.source.replace(member(tmp_path)(other.peer))
        assert await honest.require(other) == other.peer
        assert not honest.gate.has_refused(other.peer)


async def test_a_member_whose_certificate_expires_is_asked_for_the_next_one(tmp_path: Path) -> None:
    soon = member(tmp_path, now=time.time() - HOUR_S + 4.0)  # an hour long: 3 to 4 s are left of it
    async with nodes(tmp_path, member(tmp_path), soon) as (honest, other):
        await honest.require(other)
        deadline = time.monotonic() + 10
        while honest.gate.member(other.peer) is not None:
            assert time.monotonic() < deadline, "the certificate did not expire"
            await asyncio.sleep(0.05)
        other.source.replace(member(tmp_path)(other.peer))
        assert await honest.require(other) == other.peer


async def test_a_revoked_member_is_out_at_once_and_its_new_certificate_counts(tmp_path: Path) -> None:
    async with nodes(tmp_path, member(tmp_path), member(tmp_path)) as (honest, other):
        certificate = await honest.gate.require(PeerID.from_base58(other.peer))
        issuer = Issuer(tmp_path / "keys", now=time.time())
        assert honest.gate.learn_revocations("no list") is None
        assert honest.gate.learn_revocations(issuer.revoke(SESSION, [certificate.serial], now=time.time())) is not None
        assert honest.gate.member(other.peer) is None
        with pytest.raises(MembershipError, match="revoked"):
            await honest.require(other)


async def test_a_new_key_of_the_coordinator_is_followed_and_an_untrusted_one_forgets_its_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "ASK_AGAIN_S", 0.0)
    async with nodes(tmp_path, member(tmp_path), member(tmp_path), member(tmp_path)) as (first, second, third):
        await first.require(second)
        issuer = Issuer(tmp_path / "keys", now=time.time())
        issuer.rotate(now=time.time())
        third.source.replace(member(tmp_path)(third.peer))  # certified by the new key, which the first does not know
        assert await first.require(third) == third.peer
        issuer.rotate(now=time.time() + 2, stolen=True)
        first.source.replace(member(tmp_path)(first.peer))
        assert first.gate.member(second.peer) is None
        with pytest.raises(MembershipError, match="not the coordinator's"):
            await first.require(second)


async def test_a_peer_that_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    async with nodes(tmp_path, member(tmp_path)) as (honest,):
        absent = load_or_create_peer_key(tmp_path / "absent.key")
        with pytest.raises(MembershipError, match="could not be asked"):
            await honest.gate.require(PeerID.from_base58(absent))
        with pytest.raises(MembershipError, match="shows what is no certificate"):
            honest.gate.admit(absent, b"x" * 100_000)


async def test_strangers_cannot_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "MOST_KNOWN", 3)
    peers = [load_or_create_peer_key(tmp_path / f"{number}.key") for number in range(8)]
    gate = Gate(SESSION, HeldMembership(membership_of(tmp_path / "keys", SESSION, peers[0])))
    for peer in peers:
        shown = membership_of(tmp_path / "keys", SESSION, peer).credential
        gate.admit(peer, shown.model_dump_json(by_alias=True).encode())
    assert [gate.member(peer) is not None for peer in peers] == [False] * 5 + [True] * 3


# ---------------------------------------------------------------------------------------------- a whole swarm
@asynccontextmanager
async def stranger(address: str) -> AsyncIterator[tuple[P2P, PeerID]]:
    """Somebody who speaks libp2p and our protocol, and has no certificate."""
    target = Multiaddr(address)
    p2p = await P2P.create(initial_peers=[target], host_maddrs=["/ip4/127.0.0.1/tcp/0"])
    try:
        yield p2p, PeerID.from_base58(target["p2p"])
    finally:
        await p2p.shutdown()


async def _first(stream: Any) -> Any:
    async for message in await stream:
        return message
    return None


def test_a_stranger_with_a_raw_stub_gets_nothing_from_anybody(tmp_path: Path) -> None:
    async def try_everything(address: str, *, trains: bool) -> dict[str, str]:
        said = {}
        async with stranger(address) as (p2p, peer):
            state = StateService.get_stub(p2p, peer, namespace=SESSION)
            calls: dict[str, Any] = {"state": lambda: _first(state.rpc_fetch_state(BytesValue(value=b"{}")))}
            if trains:
                rounds = RoundService.get_stub(p2p, peer, namespace=SESSION)
                averager = RoundAverager.get_stub(p2p, peer, namespace=SESSION)
                vote = b'{"group": "ab", "op": "report", "ballot": 0, "manifest": []}'
                calls |= {
                    "round": lambda: _first(rounds.rpc_fetch_round(BytesValue(value=b"0"))),
                    "vote": lambda: averager.rpc_vote(BytesValue(value=vote)),
                    "parts": lambda: _first(averager.rpc_fetch_parts(BytesValue(value=b'{"group":"ab","indices":[]}'))),
                    "join": lambda: _first(averager.rpc_join_group(averaging_pb2.JoinRequest(schema_hash=b"x"))),
                    "aggregate": lambda: _first(averager.rpc_aggregate_part(_one_part())),
                    "download": lambda: _first(averager.rpc_download_state(averaging_pb2.DownloadRequest())),
                }
            for name, call in calls.items():
                try:
                    said[name] = _said(await asyncio.wait_for(call(), 15.0))
                except ConnectionError:  # refused before all was sent
                    said[name] = "PROTOCOL_VIOLATION"
        return said

    with running_swarm(tmp_path, swarm_config(2)) as swarm:
        peers = swarm.add_peers(2)
        close_rounds(swarm, peers, seeds=[0])
        from_observer = asyncio.run(try_everything(swarm.addresses[0], trains=False))
        assert from_observer == {"state": "None"}
        from_peer = asyncio.run(try_everything(peers[0].call("addresses")[0], trains=True))
        for refused in ("join", "aggregate"):  # told so, unless p2pd ends the stream before the word has arrived
            assert from_peer.pop(refused) in ("PROTOCOL_VIOLATION", "None")
        assert from_peer == {"state": "None", "round": "None", "vote": "None", "parts": "None", "download": "None"}
        close_rounds(swarm, peers, seeds=[1])


def _said(message: Any) -> str:
    """The refusal in an answer, None where it holds nothing."""
    if message is None or isinstance(message, BytesValue):
        return repr(message.value if message and message.value else None)
    return str(averaging_pb2.MessageCode.Name(message.code))


async def _one_part() -> AsyncIterator[averaging_pb2.AveragingData]:
    yield averaging_pb2.AveragingData(code=averaging_pb2.PART_FOR_AVERAGING, group_id=b"\xab")


class CertifiedByNobody(PeerChild):
    """A peer with the whole of our code and a certificate of another coordinator."""

    def membership(self, folder: Path, config: Any, peer_id: str) -> MembershipSource:
        theirs = membership_of(folder / "other-keys", config.session.id, peer_id)
        real = membership_of(folder / "keys", config.session.id, peer_id)
        return HeldMembership(real.model_copy(update={"credential": theirs.credential}))


def test_a_peer_without_a_certificate_is_averaged_with_by_nobody_and_downloads_nothing(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(2)) as swarm:
        peers = swarm.add_peers(2)
        outcome = close_rounds(swarm, peers, seeds=[0])[0]
        intruder = ChildHandle(lambda: CertifiedByNobody(swarm.config, tmp_path, swarm.addresses, 9)).ready()
        swarm.peers.append(intruder)
        donors = [(peers[0].call("identity"), 1, outcome["digest"])]
        with pytest.raises(RuntimeError, match="could not be downloaded"):
            intruder.call("download", donors, 3.0)
        # it announces a state all the same, as an attacker would; nobody counts it, and rounds close without it
        intruder.call("pretend", 1, outcome["digest"])
        for peer in peers:
            assert "certificate" in peer.call("why_refused", intruder.call("identity"))
        intruder.send("average", 5)
        close_rounds(swarm, peers, seeds=[1, 2])
        assert intruder.result()["closed"] is False


def test_a_removed_peer_is_out_of_the_swarm_within_seconds(tmp_path: Path) -> None:
    """The coordinator's list travels by the observer and the DHT."""
    with running_swarm(tmp_path, swarm_config(3)) as swarm:
        peers = swarm.add_peers(3)
        close_rounds(swarm, peers, seeds=[0])
        removed, rest = peers[2], peers[:2]
        serial = rest[0].call("serial_of", removed.call("identity"))
        swarm.observer.call("revoke", [serial])
        assert swarm.all(rest, "seen_at_most", 2) == [2, 2]
        removed.send("average", 7)
        close_rounds(swarm, rest, seeds=[1, 2])
        assert removed.result()["closed"] is False


def test_a_dht_record_can_be_written_by_its_owner_only(tmp_path: Path) -> None:
    async def forge(address: str, victim: str) -> list[bool]:
        record = PeerRecord(round=99, digest="f" * 64, sent_at=get_dht_time()).model_dump_json()
        key, expires = DHTID.generate(f"{SESSION}.peers").to_bytes(), get_dht_time() + 60
        subkeys = [victim, f"{victim}#1", "nobody", 7]
        async with stranger(address) as (p2p, peer):
            request = dht_pb2.StoreRequest(
                keys=[key] * 5, subkeys=[*map(MSGPackSerializer.dumps, subkeys), DHTProtocol.IS_REGULAR_VALUE],
                values=[MSGPackSerializer.dumps(record) + bytes(64)] * 5, expiration_time=[expires] * 5,
                in_cache=[False] * 5,
            )  # fmt: skip
            call = p2p.call_protobuf_handler(peer, "DHTProtocol.rpc_store", request, dht_pb2.StoreResponse)
            return list((await asyncio.wait_for(call, 10.0)).store_ok)

    with running_swarm(tmp_path, swarm_config(2)) as swarm:
        peers = swarm.add_peers(2)
        victim = peers[0].call("identity")
        assert asyncio.run(forge(swarm.addresses[0], victim)) == [False] * 5
        assert close_rounds(swarm, peers, seeds=[0])[0]["round"] == 1


def test_what_the_test_of_strangers_calls_are_all_rpcs_there_are() -> None:
    """A new RPC must be thought of above."""
    RoundAverager.get_stub(None, None)  # type: ignore[arg-type]  # fills the tables
    assert RoundAverager is not DecentralizedAverager
    names = {handler.method_name for handler in RoundAverager._rpc_handlers}  # type: ignore[union-attr]
    assert names == {
        "rpc_join_group", "rpc_aggregate_part", "rpc_vote", "rpc_fetch_parts", "rpc_download_state",
    }  # fmt: skip
