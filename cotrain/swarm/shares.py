"""How much of a round's vector each reducer averages, by the uplinks that members announce. Pure, in integers.

With n members, a reducer of the share s of the vector sends (1 - s) of it to the others as its own contribution, and
s to each of the n - 1 others as the average: 1 + s (n - 2) in all. Shares are chosen so that this takes all reducers
equally long; who would need a negative one reduces nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from cotrain.swarm.rounds import lower_median

MOST_MEDIAN_UPLINKS = 4
"""An uplink counts up to this many times the lower median: nobody reduces nearly all by claiming much."""


def reducer_shares(uplinks: Sequence[int], reduces: Sequence[bool]) -> list[int]:
    """Relative share of the vector of each member of a group.

    Args:
        uplinks: of each member, in any unit; 0 where it is not known: that one counts as the lower median.
        reduces: whether the member may reduce; at least one.

    Returns:
        Integers, the same at every member; 0 for those that reduce nothing.
    """
    members = len(uplinks)
    active = [number for number, may in enumerate(reduces) if may]
    counted = _counted([uplinks[number] for number in active])
    speed = dict(zip(active, counted, strict=True))
    if members <= 2 or len(set(counted)) == 1:  # of two, each sends as much whatever the shares are
        return [int(may) for may in reduces]
    while True:
        total = sum(speed[number] for number in active)
        shares = {number: (members - 2 + len(active)) * speed[number] - total for number in active}
        if min(shares.values()) > 0:
            return [shares.get(number, 0) for number in range(members)]
        active = [number for number in active if shares[number] > 0]


def _counted(uplinks: Sequence[int]) -> list[int]:
    known = [uplink for uplink in uplinks if uplink > 0]
    ordinary = lower_median(known) if known else 1
    return [min(uplink, MOST_MEDIAN_UPLINKS * ordinary) if uplink > 0 else ordinary for uplink in uplinks]
