"""What a round costs on the wire: bytes, seconds on loopback and on slow lines."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.swarm_figures import Figure
from benchmarks.swarm_wire import STOCK, average_together, is_complete, wire_peers
from cotrain.train.codec import make_codec
from tests.netns import Host, Traffic, network

MBIT_PER_S = 100
TRIES = 3


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


def bytes_per_round(seed: int, *, numel: int = 50_000_000, peers: int = 4, rounds: int = 3) -> list[Figure]:
    """Bytes that leave each peer's network interface, headers and all, per parameter and round.

    An audit costs the inputs of one part, however many parts there are: the smaller the model, the more it weighs.
    """
    got = {kind: _bytes_sent(kind, seed, numel, peers, rounds) for kind in ("int4", "int8")}
    without = _bytes_sent("int4", seed, numel, peers, rounds, audits_per_round=0.0)
    got[STOCK] = _bytes_sent(STOCK, seed, numel, peers, rounds)
    details = {name: round(value, 4) for name, value in got.items()}
    details |= {"int4 without audits": round(without, 4), "parameters": numel, "peers": peers}
    return [Figure("bytes sent per peer, parameter and round", got["int4"], 0.80, stock=got[STOCK], details=details)]


def _bytes_sent(kind: str, seed: int, numel: int, peers: int, rounds: int, **options: Any) -> float:
    """NaN if no TRIES in a row were complete."""
    with (
        tempfile.TemporaryDirectory() as folder,
        network(peers) as net,
        wire_peers(kind, numel, Path(folder) / kind, hosts=net.hosts, **options) as handles,
    ):
        average_together(handles, seed)  # connections are open from here on
        for _ in range(TRIES):
            before = sent_by(net.hosts)
            if all(is_complete(average_together(handles, seed + turn)) for turn in range(1, rounds + 1)):
                return sent_by(net.hosts).since(before).bytes / (peers * numel * rounds)
    return float("nan")


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
    """Peers on lines of 100 Mbit/s each way: how near the all-reduce comes to what the lines allow.

    The audit of a round follows it, beside inner steps; here there are none, so it would run into the next round: it is
    left out. The details say what a round takes with it.
    """
    figures, took = [], {}
    with network(peers, mbit_per_s=MBIT_PER_S) as net:
        for kind in ("int4", "int8", STOCK):
            took[kind] = _seconds(kind, numel, seed, rounds, hosts=net.hosts, audits_per_round=0.0)
        audited = _seconds("int4", numel, seed, rounds, hosts=net.hosts)
    stock = statistics.median(took[STOCK]["seconds"])
    for kind in ("int4", "int8"):
        median, bound = statistics.median(took[kind]["seconds"]), bound_s(kind, numel, peers)
        details = {"seconds": took[kind]["seconds"], "bound_s": round(bound, 3), "stock seconds": stock,
                   "distinct averages": max(took[kind]["digests"])}  # fmt: skip
        if kind == "int4":
            details |= {"seconds beside the audit of the round before": audited["seconds"]}
        figures.append(
            Figure(
                f"all-reduce of {numel / 1e6:g} M parameters at {MBIT_PER_S} Mbit/s, {peers} peers, {kind}, over its "
                "bandwidth bound", median / bound, 1.2 if kind == "int4" else None,
                stock=stock / bound_s(STOCK, numel, peers), details=details,
            )
        )  # fmt: skip
    return figures
