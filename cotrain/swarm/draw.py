"""Whose part is audited by whom after a round: drawn, so that nobody can choose. Pure.

The draw hangs on the decided manifest and on the signatures of all voters but the reducer in question. A reducer has to
publish its average before it can see what the others sign, so it cannot try averages until a draw suits it. It could if
it were the only reducer, or with the leader of the ballot as its accomplice.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from cotrain.swarm.terms import GroupTerms
from cotrain.swarm.votes import Decision, manifest_hash, signatures_without

AUDITS_PER_ROUND = 1.0
"""Reducers that are audited in a round, on average; each costs its reducer the bytes of one part's inputs."""


@dataclass(frozen=True)
class Audit:
    """Who repeats which part, and who made it."""

    part: int
    reducer: str
    witness: str


def draw_audits(terms: GroupTerms, decision: Decision, per_round: float = AUDITS_PER_ROUND) -> list[Audit]:
    """The audits of a decided round, the same for everybody who holds this decision. Pure.

    Each reducer is drawn with the same probability, then one of its parts, and a member other than itself.
    """
    audits: list[Audit] = []
    made: dict[str, list[int]] = {}
    for index, digest in enumerate(decision.manifest):
        if digest is not None:
            made.setdefault(terms.parts[index].reducer, []).append(index)
    for reducer in terms.reducers:
        others = [member for member in terms.members if member != reducer]
        if reducer not in made or not others:
            continue
        chance, part, witness = _numbers(terms, decision, reducer)
        if chance * len(made) < per_round * 2**64:
            audits.append(Audit(made[reducer][part % len(made[reducer])], reducer, others[witness % len(others)]))
    return audits


def _numbers(terms: GroupTerms, decision: Decision, reducer: str) -> tuple[int, int, int]:
    """Three numbers below 2**64 that the reducer could not choose."""
    signatures = signatures_without(decision, reducer)
    text = json.dumps([terms.digest, manifest_hash(decision.manifest), reducer, signatures])
    drawn = hashlib.sha256(b"cotrain audit\x00" + text.encode()).digest()
    first, second, third = (int.from_bytes(drawn[start : start + 8], "big") for start in (0, 8, 16))
    return first, second, third
