"""A member with a certificate that holds, and lies: the others close every round without it, identical, and name it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hivemind.dht.routing import DHTID
from hivemind.dht.validation import DHTRecord
from hivemind.p2p import P2P, PeerID
from hivemind.proto import dht_pb2
from hivemind.utils import MSGPackSerializer, get_dht_time
from hivemind.utils.multiaddr import Multiaddr

from cotrain.peer_key import PeerSigner, load_or_create_peer_key
from cotrain.swarm.all_reduce import Exchange
from cotrain.swarm.dht import PeerRecord
from cotrain.swarm.records import OwnedRecords
from cotrain.swarm.rounds import MOST_MEDIAN_WEIGHTS
from tests.integration.swarm_fixtures import ChildHandle, PeerChild, TestSwarm, _fork, running_swarm, swarm_config

HONEST = 3
SAMPLES = 8
PROMPT_S = 15.0
"""A member waits for another up to 10 s."""
NAN_BF16 = b"\xc0\x7f"
ATTACKS = ["nothing", "not finite", "cut short", "too long", "endless", "much too long"]
YEAR_S = 365 * 24 * 3600.0


class LyingPeer(PeerChild):
    """What it sends is honest until it is told to attack."""

    def __init__(self, *arguments: Any):
        self._attack = _fork.Value("i", 0)  # shared with the averaging process, which sends
        honest = Exchange._encode_contribution

        def lie(exchange: Exchange, index: int) -> bytes:
            attack = ATTACKS[self._attack.value]
            if attack in ("too long", "much too long"):
                exchange.vector.mul_(-1e4 if attack == "too long" else 1e30)
            encoded = honest(exchange, index)
            signature = exchange.notary.contribution_overhead if exchange.notary is not None else 0
            body = len(encoded) - signature
            if attack == "not finite":
                assert exchange.notary is not None
                return exchange.notary.sign(index, NAN_BF16 + encoded[2:body])
            if attack == "cut short":
                return encoded[: body // 2]
            return encoded * 50 if attack == "endless" else encoded

        Exchange._encode_contribution = lie  # type: ignore[method-assign]  # in this process and those it forks
        super().__init__(*arguments)

    def attack(self, name: str) -> None:
        self._attack.value = ATTACKS.index(name)


def start_liar(swarm: TestSwarm) -> tuple[list[ChildHandle], ChildHandle]:
    """Three honest peers and a liar."""
    honest = swarm.add_peers(HONEST)
    liar = ChildHandle(lambda: LyingPeer(swarm.config, swarm.folder, swarm.addresses, HONEST)).ready()
    swarm.peers.append(liar)
    liar.call("join")
    swarm.meet(swarm.peers)
    return honest, liar


def close_with(
    swarm: TestSwarm, honest: Sequence[ChildHandle], liar: ChildHandle, seed: int, claimed: int = SAMPLES
) -> list[dict[str, Any]]:
    """A round of all four; what came of it at the honest, who must agree."""
    liar.send("average", seed, claimed)
    outcomes = swarm.all(list(honest), "average", seed, SAMPLES)
    assert [outcome.get("reason") for outcome in outcomes] == [None] * HONEST
    assert {len(outcome["members"]) for outcome in outcomes} == {HONEST + 1}
    assert len({(outcome["round"], outcome["digest"]) for outcome in outcomes}) == 1
    answer = liar.result()
    assert not answer["closed"] or answer["digest"] == outcomes[0]["digest"]
    return outcomes


def named(outcome: dict[str, Any]) -> set[str]:
    """Whom a peer suspects or has left out."""
    return {*outcome["suspects"], *(entry.partition(":")[0] for entry in outcome["dropped"])}


@pytest.mark.parametrize("attack", ATTACKS[1:])
def test_a_member_that_sends_what_cannot_be_averaged_is_left_out_and_named(attack: str, tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(HONEST + 1)) as swarm:
        honest, liar = start_liar(swarm)
        close_with(swarm, honest, liar, seed=0)
        identity = liar.call("identity")
        liar.call("attack", attack)

        started = time.monotonic()
        outcomes = close_with(swarm, honest, liar, seed=1)
        assert time.monotonic() - started < PROMPT_S + swarm.config.swarm.matchmaking_s
        assert [named(outcome) for outcome in outcomes] == [{identity}] * HONEST
        for brought, average in swarm.all(honest, "brought_and_averaged"):
            assert torch.linalg.vector_norm(torch.tensor(average)) <= torch.linalg.vector_norm(torch.tensor(brought))


def test_a_member_counts_for_four_times_the_median_however_much_it_claims(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(HONEST + 1)) as swarm:
        honest, liar = start_liar(swarm)
        outcome = close_with(swarm, honest, liar, seed=0, claimed=2**40)[0]
        most = MOST_MEDIAN_WEIGHTS * SAMPLES
        assert sorted(map(float, outcome["weights"])) == [SAMPLES] * HONEST + [most]
        assert outcome["committed"] == HONEST * SAMPLES + most


# ---------------------------------------------------------------------------------------------- the DHT
async def store_for(address: str, key: Path, lasts_s: Sequence[float]) -> list[bool]:
    """A member stores its own record, signed as it must be, to last so long; whether it was taken."""
    target, signer = Multiaddr(address), PeerSigner(key)
    place, subkey = DHTID.generate("test.peers").to_bytes(), MSGPackSerializer.dumps(signer.peer_id)
    text = PeerRecord(round=99, digest="f" * 64, sent_at=get_dht_time()).model_dump_json()
    expirations = [get_dht_time() + seconds for seconds in lasts_s]
    records = [DHTRecord(place, subkey, MSGPackSerializer.dumps(text), expires) for expires in expirations]
    validator = OwnedRecords(signer)
    p2p = await P2P.create(initial_peers=[target], host_maddrs=["/ip4/127.0.0.1/tcp/0"])
    try:
        request = dht_pb2.StoreRequest(
            keys=[place] * len(records), subkeys=[subkey] * len(records),
            values=[validator.sign_value(record) for record in records], expiration_time=expirations,
            in_cache=[False] * len(records),
        )  # fmt: skip
        peer = PeerID.from_base58(target["p2p"])
        call = p2p.call_protobuf_handler(peer, "DHTProtocol.rpc_store", request, dht_pb2.StoreResponse)
        return list((await asyncio.wait_for(call, 10.0)).store_ok)
    finally:
        await p2p.shutdown()


def test_a_member_cannot_have_its_record_kept_for_long(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(2)) as swarm:
        key = tmp_path / "member.key"
        load_or_create_peer_key(key)
        forever = [1000 * YEAR_S, float("inf"), float("nan"), 3600.0]
        assert asyncio.run(store_for(swarm.addresses[0], key, forever)) == [False] * len(forever)
        assert asyncio.run(store_for(swarm.addresses[0], key, [60.0])) == [True]
