"""How a round grows with the swarm: seconds of matchmaking, bytes and messages of swarms on one machine."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.swarm_figures import Figure
from benchmarks.swarm_wire import STOCK, average_together, is_complete, wire_peers
from cotrain.config import RunConfig
from tests.integration.swarm_fixtures import ChildHandle, TestSwarm, running_swarm, swarm_config
from tests.netns import Host, Network, Traffic, network

SMALL = 30_011
"""Parameters where only the messages count."""
SETTLE_S = 10.0
"""After the first round: audits follow it, and connections are still opened."""
IDLE_S = 10.0


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
    idle = _idle_per_s(host)
    matchmaking, complete, before, started = [], 0, host.sent("lo"), time.monotonic()
    for turn in range(1, rounds + 1):
        outcomes = swarm.all(handles, "average", seed + turn)
        whole = all(outcome["closed"] and len(outcome["members"]) == peers for outcome in outcomes)
        complete += whole
        if whole:
            matchmaking.append(max(outcome["matchmakingSeconds"] for outcome in outcomes))
    wall_s, sent = time.monotonic() - started, host.sent("lo").since(before)
    return {"matchmaking_s": matchmaking, "complete": complete} | _per_round(sent, idle, wall_s, peers, rounds)


def _idle_per_s(host: Host) -> tuple[float, float]:
    """Bytes and packets a second that all peers together send while nothing happens."""
    time.sleep(SETTLE_S)
    before, since = host.sent("lo"), time.monotonic()
    time.sleep(IDLE_S)
    sent, took_s = host.sent("lo").since(before), time.monotonic() - since
    return sent.bytes / took_s, sent.packets / took_s


def _per_round(sent: Traffic, idle: tuple[float, float], wall_s: float, peers: int, rounds: int) -> dict[str, float]:
    """What each peer sent for a round: without what it would have sent in that time anyway, which is told, too."""
    return {
        "bytes": (sent.bytes - idle[0] * wall_s) / (peers * rounds),
        "packets": (sent.packets - idle[1] * wall_s) / (peers * rounds),
        "idle_bytes_per_s": idle[0] / peers, "wall_s": wall_s,
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
    idle, before, started = _idle_per_s(host), host.sent("lo"), time.monotonic()
    answers = [average_together(handles, seed + turn) for turn in range(1, rounds + 1)]
    sent, wall_s = host.sent("lo").since(before), time.monotonic() - started
    whole = [answer for answer in answers if is_complete(answer)]
    return {
        "matchmaking_s": [max(peer["matchmaking_s"] for peer in answer) for answer in whole], "complete": len(whole),
    } | _per_round(sent, idle, wall_s, len(handles), rounds)  # fmt: skip


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
                   "of stock": [one["complete"] for one in stock.values()],
                   "wall seconds": [round(one["wall_s"], 1) for one in ours.values()],
                   "idle bytes per peer and second": [round(one["idle_bytes_per_s"]) for one in ours.values()]},
            )
        )  # fmt: skip
    return figures
