"""First rounds of fresh swarms: connections are not open, threads are new, and one may wait for a time-out."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.swarm_figures import Figure
from benchmarks.swarm_wire import STOCK, average_together, is_complete, wire_peers

PEERS = 4
NUMEL = 4_194_304
"""A whole part for each of four reducers."""
STALLED_S = 5.0
"""Far more than such a reduction takes, and less than a member's shortest time-out for another (10 s)."""


def first_round(kind: str, seed: int) -> list[dict[str, Any]]:
    """Of a swarm that is made for it; what each peer says."""
    with tempfile.TemporaryDirectory() as folder, wire_peers(kind, NUMEL, Path(folder) / kind, peers=PEERS) as handles:
        return average_together(handles, seed)


def is_stalled(answers: Sequence[dict[str, Any]]) -> bool:
    """Whether a peer waited for another until a time-out, or the round lacks somebody."""
    return max(peer["reducing_s"] for peer in answers) > STALLED_S or not is_complete(answers)


def first_rounds(seed: int, *, swarms: int = 28) -> list[Figure]:
    """Of this many swarms of four peers of each kind, in turns."""
    rounds: dict[str, list[list[dict[str, Any]]]] = {"int4": [], STOCK: []}
    for number in range(swarms):
        for kind, seen in rounds.items():
            seen.append(first_round(kind, seed + number))
    stalled = {kind: [n for n, answers in enumerate(seen) if is_stalled(answers)] for kind, seen in rounds.items()}
    slowest = {kind: [max(p["reducing_s"] for p in answers) for answers in seen] for kind, seen in rounds.items()}
    met = [max(peer["matchmaking_s"] for peer in answers) for answers in rounds["int4"]]
    details = {"stalled": stalled["int4"], "seconds matchmaking": _spread(met)}
    details |= {"seconds reducing": _spread(slowest["int4"]), "stock seconds reducing": _spread(slowest[STOCK])}
    return [
        Figure(
            f"first rounds that stalled, of {swarms} fresh swarms of {PEERS} peers", len(stalled["int4"]), 0,
            stock=len(stalled[STOCK]), details=details,
        )
    ]  # fmt: skip


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    return {"median": round(statistics.median(seconds), 3), "slowest": round(max(seconds), 3)}
