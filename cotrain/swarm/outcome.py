"""What came of a round: its outcome, or the reasons for which it was not closed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cotrain.errors import SwarmError
from cotrain.swarm.evidence import Evidence
from cotrain.train.diloco import RoundTotals


class OutdatedStateError(SwarmError):
    """This peer's outer state is not the one that the group's majority holds: it must download that first."""


class MinorityError(SwarmError):
    """Those that met are too few to close the round for the swarm, or none of them may reduce."""


@dataclass(frozen=True)
class RoundOutcome:
    """What a closed round was, for the log and the outer step. The average itself lies in the shared tensor.

    Attributes:
        members: peer ids, in the order in which contributions are summed.
        weights: of each member.
        totals: samples and positions of the round.
        zeroed_parts: parts that nobody held.
        suspects: members that failed to send or to reduce, and why.
        dropped: members that this peer left out of one of its parts, and why.
        matchmaking_s, reducing_s: seconds spent; the agreement counts as reducing.
        bytes_sent, bytes_received: messages of this peer in the round; an audit's are not among them.
        reducers: the members that reduced and voted.
        evidence: found in this round's votes, and by audits since the last outcome.
    """

    round: int
    members: tuple[str, ...]
    weights: tuple[float, ...]
    totals: RoundTotals
    zeroed_parts: int
    suspects: Mapping[str, str]
    dropped: Mapping[str, str]
    matchmaking_s: float
    reducing_s: float
    bytes_sent: int
    bytes_received: int
    reducers: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()

    def record(self) -> dict[str, str | int | float | bool | list[str] | None]:
        """The round as the training log has it. Rounds are counted from 1 there."""
        return {
            "round": self.round + 1,
            "members": list(self.members),
            "weights": [f"{weight:g}" for weight in self.weights],
            "samples": self.totals.samples,
            "zeroedParts": self.zeroed_parts,
            "suspects": list(self.suspects),
            "suspectedFor": _told(self.suspects),
            "dropped": _told(self.dropped),
            "evidence": [str(evidence) for evidence in self.evidence],
            "matchmakingSeconds": round(self.matchmaking_s, 3),
            "reducingSeconds": round(self.reducing_s, 3),
            "bytesSent": self.bytes_sent,
            "bytesReceived": self.bytes_received,
        }


def _told(reasons: Mapping[str, str]) -> list[str]:
    return [f"{member}: {why}" for member, why in reasons.items()]
