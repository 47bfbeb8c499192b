"""Real peers over libp2p: equal bits, right averages, late joiners, repair, killed processes, lying donors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hivemind.dht.protocol import DHTProtocol
from hivemind.dht.routing import DHTID
from hivemind.p2p import P2P, PeerID
from hivemind.proto import dht_pb2
from hivemind.utils import get_dht_time
from hivemind.utils.multiaddr import Multiaddr
from torch import Tensor

from cotrain.peer_key import load_or_create_peer_key
from tests.integration.swarm_fixtures import (
    NUMEL,
    ChildHandle,
    TestSwarm,
    initial_state,
    running_swarm,
    swarm_config,
)
from tests.system import daemons_among
from tests.unit.test_swarm_hardening import nested_tuples

LEVELS = {"int4": 7, "int8": 127}


def close_rounds(swarm: TestSwarm, peers: Sequence[ChildHandle], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Let these peers close a round for each seed, together; the last one's outcomes, equal at all of them."""
    outcomes: list[dict[str, Any]] = []
    for seed in seeds:
        swarm.meet(peers)
        outcomes = swarm.all(list(peers), "average", seed)
        assert [outcome.get("reason") for outcome in outcomes] == [None] * len(peers)
        assert {len(outcome["members"]) for outcome in outcomes} == {len(peers)}
        assert len({(outcome["round"], outcome["digest"]) for outcome in outcomes}) == 1
    return outcomes


def weighted_mean_of(brought: Sequence[list[float]], weights: Sequence[float]) -> Tensor:
    rows, column = torch.tensor(brought, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64)
    return (rows * column[:, None]).sum(0) / column.sum()


def largest_codec_error(codec: str, brought: Sequence[list[float]]) -> float:
    """Half a level lost by a contribution, half a level by the average; nothing was carried over yet."""
    peak = max(max(map(abs, values)) for values in brought)
    return 1e-6 if codec == "fp32" else peak / LEVELS[codec] * (1 + 1 / 32)


@pytest.mark.parametrize("codec", ["int4", "int8", "fp32"])
def test_all_members_and_the_observer_hold_the_same_bits_and_the_right_average(codec: str, tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(3, codec=codec)) as swarm:
        first, second = swarm.add_peers(2)
        swarm.meet([first, second])
        first.send("average", 0, 8)
        second.send("average", 0, 24)
        outcomes = [first.result(), second.result()]
        assert outcomes[0]["digest"] == outcomes[1]["digest"] != initial_state().digest()
        assert outcomes[0]["committed"] == 32
        identities = swarm.all([first, second], "identity")
        samples = dict(zip(identities, (8, 24), strict=True))
        weights = dict(zip(outcomes[0]["members"], map(float, outcomes[0]["weights"]), strict=True))
        assert weights == samples

        given = swarm.all([first, second], "brought_and_averaged")
        brought = [values for values, _ in given]
        assert given[0][1] == given[1][1]
        expected = weighted_mean_of(brought, [8, 24])
        error = float((torch.tensor(given[0][1], dtype=torch.float64) - expected).abs().max())
        assert error <= largest_codec_error(codec, brought)

        assert swarm.observer.call("follow", 1) == (1, outcomes[0]["digest"])
        assert swarm.observer.call("credits") == samples  # what the decision bears out

        (third,) = swarm.add_peers(1)  # late: it takes over what the others have
        last = close_rounds(swarm, [first, second, third], seeds=[1, 2])[0]
        assert swarm.observer.call("follow", 3) == (3, last["digest"])
        assert last["zeroedParts"] == 0
        assert last["suspects"] == []


def test_fragments_are_averaged_in_turn_with_the_same_bits_everywhere(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(3, fragments=2)) as swarm:
        peers = swarm.add_peers(2)
        digests, sent = set(), []
        for seed in range(5):
            outcome = close_rounds(swarm, peers, seeds=[seed])[0]
            digests.add(outcome["digest"])
            sent.append(outcome["sent"])
        assert len(digests) == 5
        assert max(sent) < 0.4 * NUMEL + 8192  # half of the vector, 4 bits a value, and the votes
        assert swarm.observer.call("follow", 5) == (5, outcome["digest"])
        received = swarm.observer.call("received")
        close_rounds(swarm, peers, seeds=[5])
        assert swarm.observer.call("follow", 6)[0] == 6
        assert swarm.observer.call("received") - received < 0.3 * NUMEL  # half of the vector, 4 bits a value
        peers += swarm.add_peers(1)  # late
        last = close_rounds(swarm, peers, seeds=[6, 7])[0]
        assert swarm.observer.call("follow", 8) == (8, last["digest"])


def test_a_corrupted_peer_is_outvoted_and_takes_the_majoritys_state_over(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(3)) as swarm:
        peers = swarm.add_peers(3)
        agreed = close_rounds(swarm, peers, seeds=[0])[0]
        assert peers[1].call("corrupt") != agreed["digest"]
        outcomes = swarm.all(peers, "average", 1)
        assert [outcome["closed"] for outcome in outcomes] == [True, False, True]
        assert "the group holds round 1" in outcomes[1]["reason"]
        assert outcomes[0]["digest"] == outcomes[2]["digest"]
        assert peers[1].call("sees_round", 2)
        assert peers[1].call("resync") == (2, outcomes[0]["digest"])
        close_rounds(swarm, peers, seeds=[2])


def test_two_survive_a_third_that_is_killed_in_a_round_and_let_it_in_again(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(3)) as swarm:
        peers = swarm.add_peers(3)
        close_rounds(swarm, peers, seeds=[0])
        victim, survivors = peers[2], peers[:2]
        identity, left_behind = victim.call("identity"), victim.descendants()
        assert daemons_among(left_behind)

        for peer in peers:
            peer.send("average", 1)
        victim.kill()
        outcomes = [peer.result() for peer in survivors]
        _, alive = psutil.wait_procs(left_behind, timeout=5.0)
        assert alive == []
        # whether the round of the kill was closed depends on how far it was; the next ones are, by the survivors
        outcomes = average_until_closed(swarm, survivors, outcomes)
        assert outcomes[0]["digest"] == outcomes[1]["digest"]
        assert outcomes[0]["round"] >= 2

        (again,) = swarm.start_peers([2])
        assert again.call("identity") == identity
        close_rounds(swarm, [*survivors, again], seeds=[20])


def average_until_closed(
    swarm: TestSwarm, peers: Sequence[ChildHandle], outcomes: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Repeat a round that could not be closed, as the trainer does; the outcomes that all members agree on."""
    for seed in range(10, 15):
        if all(outcome["closed"] for outcome in outcomes):
            return outcomes
        stale = max(outcome["round"] for outcome in outcomes)
        for peer, outcome in zip(peers, outcomes, strict=True):
            if outcome["round"] < stale:
                assert peer.call("sees_round", stale)
                peer.call("resync")
        outcomes = swarm.all(list(peers), "average", seed)
    raise AssertionError(f"no round was closed: {outcomes}")


def test_the_last_peer_goes_on_alone_and_the_observer_outlives_everybody(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(2)) as swarm:
        survivor, victim = swarm.add_peers(2)
        close_rounds(swarm, [survivor, victim], seeds=[0])
        victim.kill()
        outcome = average_until_closed(swarm, [survivor], [survivor.call("average", 1)])[0]
        assert len(outcome["members"]) == 1
        assert outcome["round"] == 2
        assert swarm.observer.call("follow", 2) == (2, outcome["digest"])
        survivor.end()

        (newcomer,) = swarm.start_peers([7])
        after = newcomer.call("average", 3)
        assert (after["closed"], after["round"], after["committed"]) == (True, 3, outcome["committed"] + 8)
        assert swarm.observer.call("follow", 3) == (3, after["digest"])


def test_a_donor_that_lies_about_its_state_is_not_believed(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(2)) as swarm:
        liar, victim = swarm.add_peers(2)
        round_, lie = liar.call("serve_with_wrong_digest")
        liar_id, honest_id = liar.call("identity"), swarm.observer.call("identity")
        with pytest.raises(RuntimeError, match="does not have its digest"):
            victim.call("download", [(liar_id, round_, lie)], 1.0)
        truth = initial_state().digest()
        assert victim.call("download", [(liar_id, round_, lie), (honest_id, 0, truth)], 10.0) == truth
        # nor is one whose state is whole, but not the one that it announced in the DHT
        with pytest.raises(RuntimeError, match="does not serve the state it announced"):
            victim.call("download", [(honest_id, 0, lie)], 1.0)


async def _store_nested(address: str, levels: int) -> None:
    """Send a DHT record nested this deep, as a stranger does who speaks libp2p but runs none of our code."""
    target = Multiaddr(address)
    stranger = await P2P.create(initial_peers=[target], dht_mode="client", host_maddrs=["/ip4/127.0.0.1/tcp/0"])
    try:
        request = dht_pb2.StoreRequest(
            keys=[DHTID.generate(b"anything").to_bytes()], subkeys=[DHTProtocol.IS_DICTIONARY],
            values=[nested_tuples(levels)], expiration_time=[get_dht_time() + 60], in_cache=[False],
        )  # fmt: skip
        call = stranger.call_protobuf_handler(
            PeerID.from_base58(target["p2p"]), "DHTProtocol.rpc_store", request, dht_pb2.StoreResponse
        )
        await asyncio.wait_for(call, 10.0)
    finally:
        await stranger.shutdown()


def test_the_dht_survives_a_strangers_deeply_nested_record_and_has_the_identity_of_its_key(tmp_path: Path) -> None:
    with running_swarm(tmp_path, swarm_config(1)) as swarm:
        assert swarm.observer.call("identity") == load_or_create_peer_key(tmp_path / "observer.key")
        with pytest.raises(Exception, match="nested deeper"):
            asyncio.run(_store_nested(swarm.addresses[0], levels=300))
        assert swarm.observer.call("ping")
