"""What a run's snapshots tell together: its share of the swarm's work, its last rounds, the time that is left. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cotrain.request import CamelModel
from cotrain.status import Record, Status

KEPT_ROUNDS = 32
_KEPT_TIMES = 240


class Figures(CamelModel):
    """What is known now; None: not yet.

    Of the last rounds means of those that this peer was in, at most 32.
    """

    rounds: int = 0
    """How many rounds these figures are of."""
    work_share: float | None = None
    """This peer's part of the last rounds' work, 0 to 1, as the swarm weighted it."""
    last_sync_at: float | None = None
    """When the last of them was closed, Unix seconds."""
    round_bytes_sent: int | None = None
    """In one of the last rounds, on average."""
    round_bytes_received: int | None = None
    remaining_seconds: float | None = None
    """Until the session has its samples, at the pace so far."""


@dataclass(frozen=True)
class _Round:
    closed_at: float
    share: float | None
    samples: int
    sent_bytes: int
    received_bytes: int


class RunFigures:
    """Takes the snapshots of one peer as they come; a new run begins its rounds anew."""

    def __init__(self) -> None:
        self._run = ""
        self._last_record = 0
        self._rounds: deque[_Round] = deque(maxlen=KEPT_ROUNDS)
        self._samples: deque[tuple[float, int]] = deque(maxlen=_KEPT_TIMES)

    def take(self, status: Status) -> Figures:
        """The figures with this snapshot."""
        if status.run != self._run:
            self._run, self._last_record = status.run, 0
            self._rounds.clear()
        for record in status.records:
            if record.number > self._last_record:
                self._last_record = record.number
                if record.kind == "round":
                    self._rounds.append(_round_of(record, status.peer))
        if not self._samples or status.samples_committed != self._samples[-1][1]:
            self._samples.append((status.updated_at, status.samples_committed))
        return _figures(self._rounds, remaining_s(self._samples, status.samples_wanted))


def figures_of(status: Status) -> Figures:
    """What a single snapshot tells."""
    return RunFigures().take(status)


def remaining_s(samples: Sequence[tuple[float, int]], wanted: int) -> float | None:
    """Seconds until `wanted` samples at the pace of `(time, committed)` so far; None if unknown."""
    if len(samples) < 2:
        return None
    (began, first), (ended, last) = samples[0], samples[-1]
    if last <= first or ended <= began:
        return None
    return max(0, wanted - last) * (ended - began) / (last - first)


def _figures(rounds: Sequence[_Round], left_s: float | None) -> Figures:
    if not rounds:
        return Figures(remaining_seconds=left_s)
    shared = [(found.share, found.samples) for found in rounds if found.share is not None]
    samples = sum(count for _, count in shared)
    return Figures(
        rounds=len(rounds),
        work_share=sum(share * count for share, count in shared) / samples if samples else None,
        last_sync_at=rounds[-1].closed_at,
        round_bytes_sent=round(sum(found.sent_bytes for found in rounds) / len(rounds)),
        round_bytes_received=round(sum(found.received_bytes for found in rounds) / len(rounds)),
        remaining_seconds=left_s,
    )


def _round_of(record: Record, peer: str) -> _Round:
    """The record as `RoundOutcome.record` and the loop have written it; what is not in it counts as nothing."""
    return _Round(
        closed_at=record.time, share=_share(record.data, peer), samples=_count(record.data, "samples"),
        sent_bytes=_count(record.data, "bytesSent"), received_bytes=_count(record.data, "bytesReceived"),
    )  # fmt: skip


def _share(data: Mapping[str, Any], peer: str) -> float | None:
    members, weights = data.get("members"), data.get("weights")
    if not isinstance(members, list) or not isinstance(weights, list) or len(members) != len(weights):
        return None
    try:
        by_member = dict(zip(members, map(float, weights), strict=True))
    except ValueError:
        return None
    whole = sum(by_member.values())
    return by_member[peer] / whole if peer in by_member and 0 < whole < math.inf else None


def _count(data: Mapping[str, Any], key: str) -> int:
    value = data.get(key)
    return value if isinstance(value, int) else 0
