"""Over libp2p: a lying reducer is convicted in its round, honest ones never; contributors get what reducers decide."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.dht import DHT
from hivemind.p2p import P2P, PeerID
from hivemind.utils.multiaddr import Multiaddr

from cotrain.config import RunConfig
from cotrain.swarm import daemon
from cotrain.swarm import peer as peer_module
from cotrain.swarm.audit_service import AuditService
from cotrain.swarm.averager import RoundAverager
from cotrain.swarm.evidence import Evidence, FalsePart, verify
from cotrain.swarm.outcome import RoundOutcome
from tests.integration.swarm_fixtures import ChildHandle, PeerChild, TestSwarm, running_swarm, swarm_config
from tests.integration.test_swarm import close_rounds, largest_codec_error, weighted_mean_of
from tests.lies import lie_in_each_average
from tests.waiting import wait_for

EVERY_REDUCER = 100.0
FOUND_WITHIN_S = 2.0
MOST_ROUNDS = 15


class AuditedPeer(PeerChild):
    """A peer of a swarm in which every reducer is audited in every round; it writes down the evidence that it finds."""

    def __init__(self, config: RunConfig, folder: Path, initial_peers: list[str], number: int):
        found = folder / f"evidence{number}.jsonl"

        def write_down(evidence: Evidence) -> None:
            with found.open("a") as file:
                file.write(evidence.model_dump_json() + "\n")

        peer_module.RoundAverager = partial(  # type: ignore[misc, assignment]
            RoundAverager, audits_per_round=EVERY_REDUCER, on_evidence=write_down
        )
        RoundOutcome.record = _full_record  # type: ignore[method-assign]
        super().__init__(config, folder, initial_peers, number)


def _full_record(outcome: RoundOutcome) -> dict[str, Any]:
    return {
        "members": list(outcome.members), "weights": list(outcome.weights), "reducers": list(outcome.reducers),
        "zeroedParts": outcome.zeroed_parts, "suspects": list(outcome.suspects),
        "evidence": [evidence.model_dump_json() for evidence in outcome.evidence],
    }  # fmt: skip


class LyingReducer(AuditedPeer):
    """Adds a little noise to each average that it makes, and signs for it as if it were right."""

    def __init__(self, *arguments: Any):
        lie_in_each_average()
        super().__init__(*arguments)


class Contributor(AuditedPeer):
    """Its certificate lets it bring its own, no more."""

    role = "contribute"


class DhtWithoutPort(DHT):
    """Listens nowhere."""

    def __init__(self, *, host_maddrs: list[str], client_mode: bool, **options: Any):
        super().__init__(no_listen=True, client_mode=True, **options)


class BehindARouter(Contributor):
    """Nobody can open a connection to it."""

    def __init__(self, *arguments: Any):
        daemon.DHT = DhtWithoutPort  # type: ignore[misc]
        super().__init__(*arguments)


def start(swarm: TestSwarm, kinds: Iterable[type[PeerChild]]) -> list[ChildHandle]:
    """Start a peer of each kind and let it join."""
    first = len(swarm.peers)
    added = [
        ChildHandle(lambda n=number, k=kind: k(swarm.config, swarm.folder, swarm.addresses, n))
        for number, kind in enumerate(kinds, first)
    ]
    swarm.peers += added
    for handle in added:
        handle.ready()
    swarm.all(added, "join")
    return added


def evidence_of(folder: Path) -> list[Evidence]:
    """What all peers have written down."""
    lines = [line for file in sorted(folder.glob("evidence*.jsonl")) for line in file.read_text().splitlines()]
    return [Evidence.model_validate_json(line) for line in lines]


def found_in_time(folder: Path) -> bool:
    """Whether a witness finds something before a next round could be closed."""
    return bool(wait_for(lambda: evidence_of(folder), limit_s=FOUND_WITHIN_S))


def test_a_lying_reducer_is_convicted_in_its_round_by_a_witness(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(3)) as swarm:
        peers = start(swarm, [AuditedPeer, LyingReducer, AuditedPeer])
        liar = peers[1].call("identity")
        # a witness that is drawn for two reducers takes one of them: the other's turn comes
        round_ = 0
        close_rounds(swarm, peers, seeds=[round_])
        while not found_in_time(tmp_path):
            round_ += 1
            assert round_ < MOST_ROUNDS, "the liar was never audited"
            close_rounds(swarm, peers, seeds=[round_])
        (evidence,) = evidence_of(tmp_path)
        assert evidence.accused == liar
        assert evidence.witness != liar
        assert isinstance(evidence.body, FalsePart)
        assert (evidence.body.fault, evidence.body.material.part.terms.round) == ("wrong average", round_)
        assert verify(evidence) == "proof"
        # the training process gets it with the next round's outcome
        outcomes = swarm.all(peers, "average", 100)
        told = [Evidence.model_validate_json(text) for outcome in outcomes for text in outcome["evidence"]]
        assert told == [evidence]


def test_ten_rounds_of_three_honest_peers_make_no_evidence(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(3, codec="int4")) as swarm:
        peers = start(swarm, [AuditedPeer] * 3)
        for seed in range(10):
            outcome = close_rounds(swarm, peers, seeds=[seed])[0]
            assert (outcome["zeroedParts"], outcome["suspects"], outcome["evidence"]) == (0, [], [])
        assert swarm.observer.call("follow", 10) == (10, outcome["digest"])
        # peers come and go: what they start anew must not look like a lie
        peers += start(swarm, [AuditedPeer])
        close_rounds(swarm, peers, seeds=[10, 11])
        assert evidence_of(tmp_path) == []


@pytest.mark.parametrize("kind", [Contributor, BehindARouter], ids=["reachable", "behind a router"])
def test_a_contributor_is_counted_and_gets_the_bits_of_the_reducers(kind: type[PeerChild], tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(3)) as swarm:
        peers = start(swarm, [AuditedPeer, AuditedPeer, kind])
        reducers = set(swarm.all(peers[:2], "identity"))
        outcomes = close_rounds(swarm, peers, seeds=[0])
        given = swarm.all(peers, "brought_and_averaged")
        brought = [values for values, _ in given]
        assert given[0][1] == given[1][1] == given[2][1]
        error = (torch.tensor(given[0][1], dtype=torch.float64) - weighted_mean_of(brought, [8, 8, 8])).abs().max()
        assert float(error) <= largest_codec_error("int4", brought)
        for outcome in (*outcomes, *close_rounds(swarm, peers, seeds=[1, 2])):
            assert set(outcome["reducers"]) == reducers
            assert len(outcome["members"]) == 3
            assert (outcome["zeroedParts"], outcome["suspects"]) == (0, [])
        assert evidence_of(tmp_path) == []


def test_without_a_reducer_no_round_is_closed(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(2)) as swarm:
        alone, *others = start(swarm, [Contributor, AuditedPeer])
        close_rounds(swarm, [alone, *others], seeds=[0])
        others[0].end()
        assert alone.call("seen_at_most", 1) == 1
        outcome = alone.call("average", 1)
        assert (outcome["closed"], outcome["round"]) == (False, 1)
        assert "none of the 1 peers that met may reduce" in outcome["reason"]


def test_a_stranger_is_handed_no_inputs(tmp_path: Path) -> None:
    async def ask(address: str) -> Any:
        target = Multiaddr(address)
        p2p = await P2P.create(initial_peers=[target], host_maddrs=["/ip4/127.0.0.1/tcp/0"])
        try:
            stub = AuditService.get_stub(p2p, PeerID.from_base58(target["p2p"]), namespace="test")
            async for message in await stub.rpc_fetch_inputs(BytesValue(value=b"{}")):
                return message
            return None
        finally:
            await p2p.shutdown()

    with running_swarm(tmp_path, swarm_config(2)) as swarm:
        peers = start(swarm, [AuditedPeer] * 2)
        close_rounds(swarm, peers, seeds=[0])
        assert asyncio.run(asyncio.wait_for(ask(peers[0].call("addresses")[0]), 15.0)) is None
