"""Who is left out of averages again and again, by what the other members' round records say. Pure.

Reducers leave out what is too long or points away from the rest, and now and then that strikes an honest peer: where
contributions have little in common, or by a liar among three or four. So once says nothing, and neither does one
member alone, whose record may be a lie. A peer is suspicious when at least two wallets left it out of the same round,
in at least three of five rounds in a row: a pattern that chance makes rarely, and that one liar cannot make. It is
told, never acted on: two accomplices could.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

WALLETS = 2
"""That must have left a peer out of a round for it to count."""
ROUNDS = 3
OF_ROUNDS = 5
TELL_AGAIN_ROUNDS = 50
ROUNDS_KEPT = 64
ROUNDS_AHEAD = 5
"""A round may be so far ahead of the checkpointer's: a record that says more is not believed."""


@dataclass(frozen=True)
class Suspect:
    """A peer that was left out repeatedly.

    Attributes:
        rounds: in which it was, the last ones.
        seen_by: wallets that left it out of those rounds.
        reasons: that they gave, each once.
    """

    peer: str
    rounds: tuple[int, ...]
    seen_by: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass
class DropCounter:
    """The last rounds of one session: who left out whom, and why."""

    _rounds: dict[int, dict[str, dict[str, str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )
    """round -> peer -> wallet -> reason"""
    _told: dict[str, int] = field(default_factory=dict)

    def note(self, round_: int, wallet: str, dropped: Mapping[str, str], *, reached: int) -> list[Suspect]:
        """A member's record of a round says whom it left out; who is to be told of now.

        `reached`: the round that the checkpointer has reached.
        """
        if not reached - ROUNDS_KEPT < round_ <= reached + ROUNDS_AHEAD:
            return []
        for peer, reason in dropped.items():
            self._rounds[round_][peer].setdefault(wallet, reason)
        for old in [number for number in self._rounds if number <= reached - ROUNDS_KEPT]:
            del self._rounds[old]
        found = [suspect for peer in dropped if (suspect := self._judge(peer, round_)) is not None]
        self._told |= {suspect.peer: suspect.rounds[-1] for suspect in found}
        return found

    def _judge(self, peer: str, round_: int) -> Suspect | None:
        if peer in self._told and round_ < self._told[peer] + TELL_AGAIN_ROUNDS:
            return None
        counted = sorted(n for n, seen in self._rounds.items() if len(seen.get(peer, ())) >= WALLETS)
        for rounds in zip(*(counted[start:] for start in range(ROUNDS)), strict=False):
            if rounds[-1] - rounds[0] < OF_ROUNDS and rounds[0] <= round_ <= rounds[-1]:
                return self._suspect(peer, rounds)
        return None

    def _suspect(self, peer: str, rounds: Sequence[int]) -> Suspect:
        seen = [pair for number in rounds for pair in self._rounds[number][peer].items()]
        wallets, reasons = (tuple(dict.fromkeys(column)) for column in zip(*seen, strict=True))
        return Suspect(peer, tuple(rounds), wallets, reasons)


def dropped_in(entries: object) -> dict[str, str]:
    """Peers and reasons from the `dropped` of a round's record; what is not of that form is passed over."""
    if not isinstance(entries, list):
        return {}
    pairs = (entry.partition(": ") for entry in entries if isinstance(entry, str))
    return {peer: reason for peer, colon, reason in pairs if colon}
