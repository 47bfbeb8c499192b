"""How fast files are sent: each receiver has a token bucket, which all its downloads share."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_PIECE_BYTES = 256 * 1024
_PIECES_PER_S = 10
_BURST_S = 1.0
_MOST_RECEIVERS = 20_000


@dataclass(frozen=True)
class Bucket:
    """What a receiver may be sent."""

    allowed_bytes: float
    """At `clock`; below zero, so many bytes have been promised ahead."""
    clock: float
    """Seconds."""


def spend(bucket: Bucket, size_bytes: int, *, bytes_per_s: float, clock: float) -> tuple[Bucket, float]:
    """The bucket once `size_bytes` are promised, and after how many seconds they may be sent. Pure.

    A bucket fills at `bytes_per_s`, up to a second's worth. Promises are kept in the order in which they were made, so
    that downloads beside each other share the rate, whatever their number.
    """
    filled = min(bytes_per_s * _BURST_S, bucket.allowed_bytes + (clock - bucket.clock) * bytes_per_s)
    left = filled - size_bytes
    return Bucket(left, clock), max(0.0, -left / bytes_per_s)


class AssetRates:
    """The buckets of one coordinator. In memory: a restart forgets them.

    Args:
        bytes_per_s: to each receiver.
        enforced: False where only this machine can reach the coordinator; then nobody waits.
        most_receivers: how many buckets are remembered; the one that was used longest ago is forgotten first.
        clock: seconds that only rise.
    """

    def __init__(
        self, bytes_per_s: int, *, enforced: bool, most_receivers: int = _MOST_RECEIVERS,
        clock: Callable[[], float] = time.monotonic,
    ):  # fmt: skip
        self._bytes_per_s = bytes_per_s
        self._enforced = enforced
        self._most_receivers = most_receivers
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    @property
    def piece_bytes(self) -> int:
        """How much is sent at once: so little of a slow rate that no download waits long for its turn."""
        if not self._enforced:
            return _PIECE_BYTES
        return max(1, min(_PIECE_BYTES, self._bytes_per_s // _PIECES_PER_S))

    def take(self, receiver: str, size_bytes: int) -> float:
        """Promise so many bytes to a receiver: after how many seconds they may be sent."""
        if not self._enforced:
            return 0.0
        clock = self._clock()
        known = self._buckets.pop(receiver, Bucket(self._bytes_per_s * _BURST_S, clock))
        self._buckets[receiver], wait_s = spend(known, size_bytes, bytes_per_s=self._bytes_per_s, clock=clock)
        if len(self._buckets) > self._most_receivers:
            self._buckets.popitem(last=False)
        return wait_s
