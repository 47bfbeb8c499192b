"""When a round closes, and what the group that forms agrees on. Pure: clock and records come in as arguments.

A round is proposed closed when the lower median of the active peers has done its inner steps and nobody else is about
to; faster peers go on until then, slower ones bring what they have. What each member announced when the group formed
decides everything else: which outer state is averaged, the weights, and how far samples and data order advance.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cotrain.train.diloco import MOST_ROUND_LENGTHS, RoundTotals

MOST_MEDIAN_WEIGHTS = 4
"""A member's samples count up to this many times the group's lower median."""
MOST_MEDIAN_RANKS = 2
"""A member's number of shares counts up to this many times the lower median: nobody leaps over the data."""
MOST_CREDENTIAL_CHARACTERS = 32_768


@dataclass(frozen=True)
class PeerProgress:
    """How far another peer was in its round when it last said so.

    Attributes:
        steps: inner steps since the round began.
        steps_per_s: its pace.
        seen_at: when it said so, seconds on the clock of `now`.
        closing: it proposes to close the round.
    """

    round: int
    steps: int
    steps_per_s: float
    seen_at: float
    closing: bool

    def estimated_steps(self, now: float, inner_steps: int) -> int:
        """Its steps by now. Never beyond the round's end: that it got there it must say itself."""
        ahead = int(max(0.0, now - self.seen_at) * self.steps_per_s)
        return max(self.steps, min(self.steps + ahead, inner_steps))

    def seconds_left(self, now: float, inner_steps: int) -> float:
        """Until it has done its inner steps, if it goes on as it said; infinite if it stands still."""
        if self.steps >= inner_steps:
            return 0.0
        if self.steps_per_s <= 0:
            return math.inf
        return max(0.0, self.seen_at + (inner_steps - self.steps) / self.steps_per_s - now)


@dataclass(frozen=True)
class RoundLimits:
    """When a round ends although not all is done, or goes on although it might end.

    Attributes:
        longest_s: seconds after which it is proposed closed with what there is.
        grace: share of the time that it has lasted by which it may go on, for peers that are about to finish; the
            others train meanwhile.
    """

    longest_s: float = math.inf
    grace: float = 0.0


def seconds_to_close(
    my_round: int, my_left_s: float, others: Iterable[PeerProgress], inner_steps: int, now: float
) -> float:
    """Until the first active peer has done its inner steps, if all go on as they said.

    Nobody proposes to close the round before that, unless it lasts too long.
    """
    same_round = [peer for peer in others if peer.round == my_round]
    if any(peer.closing for peer in same_round):
        return 0.0
    return min([my_left_s, *(peer.seconds_left(now, inner_steps) for peer in same_round)])


def should_close(
    my_round: int, my_steps: int, others: Iterable[PeerProgress], inner_steps: int, now: float, *,
    lasted_s: float = 0.0, limits: RoundLimits = RoundLimits(),
) -> bool:  # fmt: skip
    """Whether this peer proposes to close its round, which it began `lasted_s` seconds ago, now."""
    if my_steps == 0:
        return False
    same_round = [peer for peer in others if peer.round == my_round]
    if my_steps >= MOST_ROUND_LENGTHS * inner_steps or lasted_s >= limits.longest_s:
        return True
    if any(peer.closing for peer in same_round):
        return True
    steps = [my_steps, *(peer.estimated_steps(now, inner_steps) for peer in same_round)]
    if lower_median(steps) < inner_steps:
        return False
    grace_s = limits.grace * lasted_s
    mine_left_s = lasted_s * max(0, inner_steps - my_steps) / my_steps
    left_s = [mine_left_s, *(peer.seconds_left(now, inner_steps) for peer in same_round)]
    return not any(0 < seconds <= grace_s for seconds in left_s)


class Announcement(BaseModel):
    """What a peer brings to the group: sent when it asks to join, seen by all members alike."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    round: Annotated[int, Field(ge=0, le=2**40)]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Digest of the outer state that its pseudo-gradient starts from."""
    committed: Annotated[int, Field(ge=0, le=2**60)]
    """Samples committed in that outer state."""
    steps: Annotated[int, Field(ge=0, le=2**40)]
    samples: Annotated[int, Field(ge=0, le=2**40)]
    """Samples trained on since then."""
    ranks: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Number of shares it divided the data order into."""
    warm: bool = True
    """False in a late joiner's first round, which carries no weight: its inner optimizer is cold."""
    alive: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Trainers that it believes to be in the swarm, itself included."""
    uplink: Annotated[int, Field(ge=0, le=2**40)] = 0
    """What it can send, kB/s; 0: not known. Decides how much of the vector it reduces."""
    credential: Annotated[str, Field(max_length=MOST_CREDENTIAL_CHARACTERS)] = ""
    """Its membership credential, as JSON: what it may do in the group is what the coordinator signed."""


@dataclass(frozen=True)
class Quorate:
    """The members of a group that hold the same outer state, in the order of their ids."""

    members: tuple[str, ...]
    round: int
    digest: str


def quorate_members(announcements: Mapping[str, Announcement]) -> Quorate:
    """The part of a group that averages together: the most members with the same (round, digest).

    Ties go to the state with more committed samples, then to the larger digest (invariant 2).
    """
    holders: dict[tuple[int, str, int], list[str]] = defaultdict(list)
    for peer, said in announcements.items():
        holders[(said.round, said.digest, said.committed)].append(peer)
    # the round last: a digest covers it, so it decides only between states of which one is a lie
    round_, digest, committed = max(holders, key=lambda state: (len(holders[state]), state[2], state[1], state[0]))
    return Quorate(tuple(sorted(holders[(round_, digest, committed)])), round_, digest)


def missing_for_majority(announcements: Sequence[Announcement], min_peers: int) -> int:
    """How many members a group lacks to close a round; 0 if it may.

    It takes more than half of the trainers that the (lower) median member believes to be alive, or two parts of a swarm
    would close the same round apart from each other; and `min_peers` at least.
    """
    alive = lower_median([said.alive for said in announcements])
    return max(0, alive // 2 + 1 - len(announcements), min_peers - len(announcements))


def counted_samples(announcements: Sequence[Announcement]) -> list[int]:
    """Samples of each member as they count: at most four times the lower median of those that brought any."""
    brought = [said.samples for said in announcements if said.samples > 0]
    most = MOST_MEDIAN_WEIGHTS * lower_median(brought) if brought else 0
    return [min(said.samples, most) for said in announcements]


def averaging_weights(announcements: Sequence[Announcement]) -> list[float]:
    """Weight of each member: its counted samples, nothing for a cold joiner (unless all members are cold)."""
    counted = counted_samples(announcements)
    weights = [float(samples) if said.warm else 0.0 for samples, said in zip(counted, announcements, strict=True)]
    return weights if any(weights) else [float(samples) for samples in counted]


def round_totals(announcements: Sequence[Announcement]) -> RoundTotals:
    """How far the round advances samples and data order; samples of a member lost in flight are counted too."""
    counted = counted_samples(announcements)
    most_ranks = MOST_MEDIAN_RANKS * lower_median([said.ranks for said in announcements])
    positions = max(samples * min(said.ranks, most_ranks) for samples, said in zip(counted, announcements, strict=True))
    return RoundTotals(samples=sum(counted), positions=positions)


def lower_median(values: Sequence[int]) -> int:
    """The middle value, the smaller of the two for an even number of values."""
    return sorted(values)[(len(values) - 1) // 2]
