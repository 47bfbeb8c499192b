"""What a round costs on the wire: bytes, seconds on loopback and on slow lines, and how it grows with the swarm."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.swarm_figures import Figure
from benchmarks.swarm_wire import STOCK, average_together, is_complete, wire_peers
from cotrain.config import RunConfig
from cotrain.train.codec import make_codec
from tests.integration.swarm_fixtures import ChildHandle, TestSwarm, running_swarm, swarm_config
from tests.netns import Host, Network, Traffic, network

MBIT_PER_S = 100
SMALL = 30_011
"""Parameters where only the messages count."""
IDLE_S = 5.0


def bytes_per_value(kind: str, numel: int) -> float:
    """Of an encoded vector."""
    return 2.0 if kind == STOCK else make_codec(kind).encoded_bytes(numel) / numel


def bound_s(kind: str, numel: int, peers: int) -> float:
    """Least seconds of an all-reduce in which each line carries every contribution and every average once."""
    return 2 * (peers - 1) / peers * numel * bytes_per_value(kind, numel) * 8 / (MBIT_PER_S * 1e6)


def sent_by(hosts: Sequence[Host]) -> Traffic:
    """What all of them have sent."""
    sent = [host.sent() for host in hosts]
    return Traffic(sum(one.bytes for one in sent), sum(one.packets for one in sent))


def bytes_per_round(seed: int, *, numel: int = 8_000_000, peers: int = 4, rounds: int = 3) -> list[Figure]:
    """Bytes that leave each peer's network interface, headers and all, per parameter and round."""
    got: dict[str, float] = {}
    for kind in ("int4", "int8", STOCK):
        with (
            tempfile.TemporaryDirectory() as folder,
            network(peers) as net,
            wire_peers(kind, numel, Path(folder) / kind, hosts=net.hosts) as handles,
        ):
            average_together(handles, seed)  # connections are open from here on
            before = sent_by(net.hosts)
            complete = [is_complete(average_together(handles, seed + turn)) for turn in range(1, rounds + 1)]
            got[kind] = sent_by(net.hosts).since(before).bytes / (peers * numel * rounds)
            if not all(complete):
                got[kind] = float("nan")
    details = {name: round(value, 4) for name, value in got.items()} | {"parameters": numel, "peers": peers}
    return [Figure("bytes sent per peer, parameter and round", got["int4"], 0.80, stock=got[STOCK], details=details)]


def _seconds(kind: str, numel: int, seed: int, rounds: int, **where: Any) -> dict[str, Any]:
    """Seconds that the slowest peer took to reduce, in each round."""
    with tempfile.TemporaryDirectory() as folder, wire_peers(kind, numel, Path(folder) / kind, **where) as handles:
        answers = [average_together(handles, seed + turn) for turn in range(rounds)]
    return {
        "seconds": [round(max(peer["reducing_s"] for peer in answer), 3) for answer in answers],
        "digests": [len({peer["digest"] for peer in answer}) for answer in answers],
        "complete": [is_complete(answer) for answer in answers],
    }


def on_loopback(seed: int, *, numel: int = 50_000_000, rounds: int = 5) -> list[Figure]:
    """Two peers on one machine: what is left is computing and copying."""
    took = {kind: _seconds(kind, numel, seed, rounds, peers=2) for kind in ("int4", "int8", STOCK)}
    medians = {kind: statistics.median(one["seconds"]) for kind, one in took.items()}
    return [
        Figure(
            f"all-reduce of {numel / 1e6:g} M parameters on loopback, 2 peers, {kind}, over stock fp16",
            medians[kind] / medians[STOCK], 0.35, stock=1.0,
            details={"seconds": took[kind]["seconds"], "stock seconds": took[STOCK]["seconds"],
                     "distinct averages": max(took[kind]["digests"])},
        )
        for kind in ("int4", "int8")
    ]  # fmt: skip


def on_slow_lines(seed: int, *, numel: int = 50_000_000, peers: int = 4, rounds: int = 3) -> list[Figure]:
    """Peers on lines of 100 Mbit/s each way: how near the all-reduce comes to what the lines allow."""
    figures, took = [], {}
    with network(peers, mbit_per_s=MBIT_PER_S) as net:
        for kind in ("int4", "int8", STOCK):
            took[kind] = _seconds(kind, numel, seed, rounds, hosts=net.hosts)
    stock = statistics.median(took[STOCK]["seconds"])
    for kind in ("int4", "int8"):
        median, bound = statistics.median(took[kind]["seconds"]), bound_s(kind, numel, peers)
        details = {"seconds": took[kind]["seconds"], "bound_s": round(bound, 3), "stock seconds": stock,
                   "distinct averages": max(took[kind]["digests"])}  # fmt: skip
        figures.append(
            Figure(
                f"all-reduce of {numel / 1e6:g} M parameters at {MBIT_PER_S} Mbit/s, {peers} peers, {kind}, over its "
                "bandwidth bound", median / bound, 1.2 if kind == "int4" else None,
                stock=stock / bound_s(STOCK, numel, peers), details=details,
            )
        )  # fmt: skip
    return figures


# ---------------------------------------------------------------------------------------------- larger swarms
def crowd_config(peers: int) -> RunConfig:
    """Time enough for many processes on few cores."""
    config = swarm_config(peers)
    swarm = config.swarm.model_copy(update={"matchmaking_s": max(3.0, peers), "record_ttl_s": max(6.0, 2.0 * peers)})
    return config.model_copy(update={"swarm": swarm})


def _rounds_of_crowd(swarm: TestSwarm, host: Host, peers: int, seed: int, rounds: int) -> dict[str, Any]:
    for begin in range(0, peers, 4):
        swarm.add_peers(min(4, peers - begin))
    handles = swarm.peers
    swarm.all(handles, "seen", peers)
    swarm.all(handles, "average", seed)  # connections are open from here on
    idle_from, idle_since = host.sent("lo"), time.monotonic()
    time.sleep(IDLE_S)  # what they say when nothing happens
    idle = host.sent("lo").since(idle_from).bytes / (time.monotonic() - idle_since)
    matchmaking, complete, before, started = [], 0, host.sent("lo"), time.monotonic()
    for turn in range(1, rounds + 1):
        outcomes = swarm.all(handles, "average", seed + turn)
        whole = all(outcome["closed"] and len(outcome["members"]) == peers for outcome in outcomes)
        complete += whole
        if whole:
            matchmaking.append(max(outcome["matchmakingSeconds"] for outcome in outcomes))
    wall_s, sent = time.monotonic() - started, host.sent("lo").since(before)
    return {
        "matchmaking_s": matchmaking, "complete": complete, "wall_s": wall_s,
        "bytes": (sent.bytes - idle * wall_s) / (peers * rounds), "packets": sent.packets / (peers * rounds),
        "idle_bytes_per_s": idle / peers,
    }  # fmt: skip


def _crowd(net: Network, peers: int, seed: int, rounds: int) -> dict[str, Any]:
    (host,) = net.hosts
    with (
        host.inside(),
        tempfile.TemporaryDirectory() as folder,
        running_swarm(Path(folder), crowd_config(peers)) as swarm,
    ):
        return _rounds_of_crowd(swarm, host, peers, seed, rounds)


def _stock_crowd(net: Network, peers: int, seed: int, rounds: int) -> dict[str, Any]:
    (host,) = net.hosts
    matchmaking_s = max(3.0, peers)
    with (
        host.inside(),
        tempfile.TemporaryDirectory() as folder,
        wire_peers(STOCK, SMALL, Path(folder) / "stock", peers=peers, matchmaking_s=matchmaking_s) as handles,
    ):
        return _rounds_of_stock(handles, host, seed, rounds)


def _rounds_of_stock(handles: list[ChildHandle], host: Host, seed: int, rounds: int) -> dict[str, Any]:
    average_together(handles, seed)
    before = host.sent("lo")
    answers = [average_together(handles, seed + turn) for turn in range(1, rounds + 1)]
    sent, times = host.sent("lo").since(before), len(handles) * rounds
    whole = [answer for answer in answers if is_complete(answer)]
    return {
        "matchmaking_s": [max(peer["matchmaking_s"] for peer in answer) for answer in whole], "complete": len(whole),
        "bytes": sent.bytes / times, "packets": sent.packets / times,
    }  # fmt: skip


def in_crowds(seed: int, *, few: int = 4, middle: int = 16, many: int = 32, rounds: int = 3) -> list[Figure]:
    """Matchmaking in a swarm of 16; bytes and messages per peer and round in one of 32 beside one of 4."""
    with network(1) as net:
        ours = {peers: _crowd(net, peers, seed, rounds) for peers in (few, middle, many)}
        stock = {peers: _stock_crowd(net, peers, seed, rounds) for peers in (few, middle, many)}
    figures = [
        Figure(
            f"matchmaking of {middle} peers, seconds (slowest peer, median of the complete rounds)",
            statistics.median(ours[middle]["matchmaking_s"] or [float("nan")]),
            stock=statistics.median(stock[middle]["matchmaking_s"] or [float("nan")]),
            details={"complete rounds": f"{ours[middle]['complete']} of {rounds}",
                     "seconds": [round(s, 2) for s in ours[middle]["matchmaking_s"]],
                     "wall seconds": round(ours[middle]["wall_s"], 1)},
        )
    ]  # fmt: skip
    for what in ("bytes", "packets"):
        figures.append(
            Figure(
                f"{what} per peer and round, {many} peers over {few}", ours[many][what] / ours[few][what], 2.0,
                stock=stock[many][what] / stock[few][what],
                details={str(peers): round(one[what], 1) for peers, one in ours.items()}
                | {f"stock {peers}": round(one[what], 1) for peers, one in stock.items()}
                | {"complete rounds": [one["complete"] for one in ours.values()],
                   "idle bytes per peer and second": [round(one["idle_bytes_per_s"]) for one in ours.values()]},
            )
        )  # fmt: skip
    return figures
