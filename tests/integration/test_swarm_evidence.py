"""Over libp2p: evidence reaches the checkpointer, which judges it by itself and reads nothing of strangers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil
from hivemind.p2p import P2P, PeerID
from hivemind.proto import dht_pb2
from hivemind.utils.multiaddr import Multiaddr

from cotrain.config import RunConfig
from cotrain.swarm.evidence import Evidence, FalsePart, verify
from cotrain.swarm.evidence_service import MOST_PER_ROUND, Answer, submit_evidence
from cotrain.swarm.judgement import Judgement
from tests.integration.swarm_fixtures import ChildHandle, ObserverChild, TestSwarm, running_swarm, swarm_config
from tests.integration.test_swarm import close_rounds
from tests.integration.test_swarm_audit import MOST_ROUNDS, AuditedPeer, LyingReducer, evidence_of, start
from tests.unit.test_swarm_evidence_service import proof
from tests.waiting import wait_for, wait_until

ARRIVES_WITHIN_S = 10.0
PINGED_WITHIN_S = 2.0
LIMIT_S = 60.0


class JudgingObserver(ObserverChild):
    """An observer that writes down what it has found to hold."""

    def __init__(self, config: RunConfig, folder: Path):
        self.kept: list[tuple[bytes, Judgement]] = []
        super().__init__(
            config, folder, keep_evidence=lambda content, judgement: self.kept.append((content, judgement))
        )

    def judged(self, count: int) -> list[tuple[bytes, Judgement]]:
        """Wait until it has kept so much evidence; what it has kept."""
        wait_for(lambda: len(self.kept) >= count, limit_s=ARRIVES_WITHIN_S)
        return self.kept


class Submitter(AuditedPeer):
    """Can be told to hand in any evidence."""

    def submit(self, text: str) -> Answer:
        async def hand_in() -> Answer:
            p2p = await self.peer._dht.replicate_p2p()
            observers = [peer for peer, record in self.peer._directory.view.peers.items() if record.role == "observe"]
            return await submit_evidence(p2p, observers[0], "test", Evidence.model_validate_json(text))

        return self.peer._loop.run(hand_in(), 60.0)

    def told(self, count: int) -> list[str]:
        """Wait until the volunteer has been told so much; what it was told."""
        wait_for(lambda: len(self.notices) >= count, limit_s=ARRIVES_WITHIN_S)
        return self.notices


@contextmanager
def judging_swarm(folder: Path) -> Iterator[TestSwarm]:
    with running_swarm(folder, swarm_config(3), observer=JudgingObserver) as swarm:
        yield swarm


def rounds_until_found(swarm: TestSwarm, peers: list[ChildHandle], folder: Path) -> Evidence:
    """Close rounds until a witness has found something."""
    for seed in range(MOST_ROUNDS):
        close_rounds(swarm, peers, seeds=[seed])
        if found := evidence_of(folder):
            return found[0]
    raise AssertionError("the liar was never audited")


def test_a_liar_is_found_out_and_its_evidence_arrives_and_holds(tmp_path: Path) -> None:
    with judging_swarm(tmp_path) as swarm:
        peers = start(swarm, [Submitter, LyingReducer, Submitter])
        liar = peers[1].call("identity")
        found = rounds_until_found(swarm, peers, tmp_path)
        close_rounds(swarm, peers, seeds=[100])  # what was found goes out with the next round
        ((content, judgement), *more) = swarm.observer.call("judged", 1)
        evidence = Evidence.model_validate_json(content)
        assert more == []
        assert isinstance(evidence.body, FalsePart)
        assert (verify(evidence), judgement.verdict) == ("proof", "proof")
        assert {evidence.accused, judgement.accused, found.accused} == {liar}
        assert "signed for an average of part" in judgement.what
        witness = next(peer for peer in (peers[0], peers[2]) if peer.call("identity") == judgement.witness)
        assert any("was brought to the checkpointer: proof" in line for line in witness.call("told", 1))

        # the other witness comes too late, and nobody can hand in what it has not found itself
        (other,) = [peer for peer in (peers[0], peers[2]) if peer is not witness]
        assert other.call("submit", evidence.model_dump_json()).result == "known"
        framed = evidence.model_copy(update={"accused": other.call("identity")}).model_dump_json()
        # the proof was the first of the round, which goes by the observer: nobody has told it to follow
        results = [witness.call("submit", framed).result for _ in range(MOST_PER_ROUND)]
        assert results == ["refused"] * (MOST_PER_ROUND - 1) + ["later"]
        assert len(swarm.observer.call("judged", 1)) == 1


@asynccontextmanager
async def stranger_at(address: str) -> AsyncIterator[tuple[P2P, PeerID]]:
    """Somebody outside the swarm who is connected to this address, and whom he meets there."""
    target = Multiaddr(address)
    p2p = await P2P.create(initial_peers=[target], dht_mode="client", host_maddrs=["/ip4/127.0.0.1/tcp/0"])
    try:
        yield p2p, PeerID.from_base58(target["p2p"])
    finally:
        await p2p.shutdown()


async def dht_answers(address: str) -> bool:
    """Whether the DHT's process there answers a ping at once."""
    async with stranger_at(address) as (p2p, peer):
        ping = p2p.call_protobuf_handler(peer, "DHTProtocol.rpc_ping", dht_pb2.PingRequest(), dht_pb2.PingResponse)
        try:
            await asyncio.wait_for(ping, PINGED_WITHIN_S)
        except TimeoutError:
            return False
        return True


@contextmanager
def standing_still(swarm: TestSwarm) -> Iterator[None]:
    """While entered, the observer's process is stopped; its DHT and p2pd, which the others' rounds go through, are not.

    Stopped after a request to its DHT's process, which fetches a descriptor from it before it does anything else, it
    stops that too: then it is let go on, and is stopped again.
    """
    process = psutil.Process(swarm.observer.process.pid)

    def stop() -> bool:
        process.suspend()
        if not (alone := asyncio.run(dht_answers(swarm.addresses[0]))):
            process.resume()
        return alone

    try:
        wait_until(stop, limit_s=LIMIT_S, what="the observer's process stands still, and its DHT does not")
        yield
    finally:
        process.resume()


def test_evidence_waits_for_a_checkpointer_that_is_away(tmp_path: Path) -> None:
    with judging_swarm(tmp_path) as swarm:
        peers = start(swarm, [Submitter, LyingReducer, Submitter])
        with standing_still(swarm):
            rounds_until_found(swarm, peers, tmp_path)
            close_rounds(swarm, peers, seeds=[100])
            assert [line for peer in (peers[0], peers[2]) for line in peer.call("told", 0)] == []
        for seed in range(200, 200 + MOST_ROUNDS):
            close_rounds(swarm, peers, seeds=[seed])
            if kept := swarm.observer.call("judged", 1):
                assert kept[0][1].accused == peers[1].call("identity")
                return
        raise AssertionError("the evidence was not delivered")


def test_a_strangers_evidence_is_not_read(tmp_path: Path) -> None:
    async def offer(address: str, evidence: Evidence) -> Any:
        async with stranger_at(address) as (p2p, observer):
            try:
                return await submit_evidence(p2p, observer.to_base58(), "test", evidence)
            except Exception as error:
                return error

    with judging_swarm(tmp_path) as swarm:
        error = asyncio.run(asyncio.wait_for(offer(swarm.addresses[0], proof()), 30.0))
        assert "did not take evidence" in str(error)
        assert swarm.observer.call("judged", 0) == []
