"""What rounds owe to their peers, as the checkpointer records it, and the accounting of it. Pure.

What a credit stands for, and what nobody can know, is said in `cotrain/swarm/credit.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from cotrain.sections import LARGEST_INTEGER
from cotrain.status import Record

_KEY = "credits"


@dataclass(frozen=True)
class Credit:
    """What somebody has given.

    Attributes:
        samples: that its contributions counted for.
        rounds: that it gave something to.
    """

    samples: int = 0
    rounds: int = 0

    def __add__(self, other: Credit) -> Credit:
        return Credit(self.samples + other.samples, self.rounds + other.rounds)


def credit_data(credits: Mapping[str, int] | None) -> dict[str, list[str]]:
    """For the data of a round's record: samples by peer; nothing where they are not known."""
    return {} if credits is None else {_KEY: [f"{peer} {samples}" for peer, samples in credits.items()]}


def credits_in(record: Record) -> tuple[int, dict[str, int]] | None:
    """The round that a record credits, and samples by peer; None if it credits none, or cannot be read."""
    round_, said = record.data.get("round"), record.data.get(_KEY)
    if record.kind != "round" or not isinstance(round_, int) or isinstance(round_, bool) or not isinstance(said, list):
        return None
    found: dict[str, int] = {}
    for one in said:
        peer, _, samples = one.partition(" ")
        if not (samples.isascii() and samples.isdecimal()) or peer in found:
            return None
        found[peer] = int(samples)
    return (round_, found) if sum(found.values()) <= LARGEST_INTEGER else None


def account(records: Iterable[Record], counted: Set[int]) -> tuple[dict[str, Credit], set[int]]:
    """Credit by peer for the rounds that were not `counted` before, and these rounds.

    A round counts once, whoever records it how often and in whichever order: a checkpointer that goes on from an older
    checkpoint records rounds again. Where a swarm that was lost has to repeat rounds, their first time counts.
    """
    found: dict[str, Credit] = {}
    fresh: set[int] = set()
    for record in records:
        told = credits_in(record)
        if told is None or told[0] in counted or told[0] in fresh:
            continue
        fresh.add(told[0])
        for peer, samples in told[1].items():
            found[peer] = found.get(peer, Credit()) + Credit(samples, 1)
    return found, fresh
