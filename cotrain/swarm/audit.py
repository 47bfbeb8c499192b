"""Reducers are audited: a witness repeats one part's reduction after a round, beside everything else."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable

from hivemind.utils import get_logger

from cotrain.errors import SwarmError
from cotrain.swarm.claims import Claim, is_claim_of_reducer, unseal
from cotrain.swarm.draw import AUDITS_PER_ROUND, Audit, draw_audits
from cotrain.swarm.evidence import (
    Body,
    Complaint,
    DecidedPart,
    Evidence,
    FalsePart,
    Fault,
    FollowingClaim,
    Material,
    Testimony,
    TwoAverages,
    accuse,
    find_fault,
    has_forged_input,
)
from cotrain.swarm.groups import DecidedRound
from cotrain.swarm.notary import PartInputs
from cotrain.swarm.terms import GroupTerms
from cotrain.swarm.votes import Decision, Signer

logger = get_logger(__name__)

FetchInputs = Callable[[GroupTerms, Claim, Decision], Awaitable[PartInputs]]


class Witness:
    """Looks at decided rounds and signs what it finds."""

    def __init__(
        self, signer: Signer, fetch: FetchInputs, *, per_round: float = AUDITS_PER_ROUND, timeout_s: float = 60.0
    ) -> None:
        """`timeout_s`: for all inputs of a part to arrive."""
        self._signer, self._fetch, self._per_round, self._timeout_s = signer, fetch, per_round, timeout_s
        self._audited: dict[int, Material] = {}

    async def look_at(self, round_: DecidedRound, before: DecidedRound | None) -> list[Evidence]:
        """What is wrong with a round; `before` is the last one of the same fragment that this peer was in, if any."""
        bodies: list[Body] = list(two_averages(round_))
        fragment = round_.terms.round % round_.terms.fragments
        last = self._audited.pop(fragment, None)
        if last is not None and (material := with_following(last, round_)) is not None:
            fault = await _fault_of(material)
            bodies += [] if fault is None else [FalsePart(fault=fault, material=material)]
        me = self._signer.peer_id
        drawn = [a for a in draw_audits(round_.terms, round_.decision, self._per_round) if a.witness == me]
        if drawn:  # one part a round is enough; which of several, nobody can foresee
            bodies += await self._audit(secrets.choice(drawn), round_, before)
        return [accuse(body, self._signer, now=time.time()) for body in bodies]

    async def _audit(self, audit: Audit, round_: DecidedRound, before: DecidedRound | None) -> list[Body]:
        part = decided_part(round_, audit.part)
        if part is None:
            return []
        if has_forged_input(part.terms, part.claim):
            return [FalsePart(fault="forged input", material=Material(part=part))]
        try:
            async with asyncio.timeout(self._timeout_s):
                inputs = await self._fetch(part.terms, part.claim, round_.decision)
        except Exception as error:
            logger.warning(f"{audit.reducer} hands out no inputs of part {audit.part}: {error!r}")
            return [_complain(part, "no inputs")]
        previous = None if before is None else same_part_before(part, before)
        material = Material(
            part=part, contributions=dict(inputs.contributions), residual=inputs.residual, previous=previous
        )  # fmt: skip
        try:
            fault = await _fault_of(material)
        except SwarmError as error:
            logger.warning(f"{audit.reducer} hands out other inputs of part {audit.part}: {error}")
            return [_complain(part, "wrong inputs")]
        if fault is not None:
            return [FalsePart(fault=fault, material=material)]
        if part.claim.residual is not None and previous is None and before is not None:
            return [_complain(part, "unfounded residual")] if before.terms.is_followed_by(part.terms) else []
        self._audited[part.terms.round % part.terms.fragments] = material
        logger.info(f"part {audit.part} of {audit.reducer} is what it must be")
        return []


def two_averages(round_: DecidedRound) -> list[TwoAverages]:
    """Parts of which a reducer has sent out two averages, both signed."""
    found = []
    for index, other in round_.ledger.displaced.items():
        held = round_.ledger.encoded(index)
        if held is None:
            continue
        claims = (unseal(round_.terms, index, held)[1], unseal(round_.terms, index, other)[1])
        if all(is_claim_of_reducer(round_.terms, claim) for claim in claims):
            found.append(TwoAverages(terms=round_.terms, claims=claims))
    return found


def with_following(last: Material, round_: DecidedRound) -> Material | None:
    """What was audited last, with what its reducer signed for the same part in the next round of it, if it did."""
    terms, reducer = round_.terms, last.part.terms.parts[last.part.claim.part]
    if not last.part.terms.is_followed_by(terms) or reducer not in terms.parts:
        return None
    part = decided_part(round_, terms.parts.index(reducer))
    if part is None:
        return None
    return last.model_copy(update={"following": FollowingClaim(terms=terms, claim=part.claim)})


def decided_part(round_: DecidedRound, index: int) -> DecidedPart | None:
    """A part of a decided round with its reducer's claim; None if it counts as zero."""
    sealed = round_.sealed(index)
    if sealed is None:
        return None
    encoded, claim = unseal(round_.terms, index, sealed)
    return DecidedPart(terms=round_.terms, claim=claim, average=encoded, decision=round_.decision)


def same_part_before(part: DecidedPart, before: DecidedRound) -> DecidedPart | None:
    """The same part by the same reducer in the round before, if that was the last one of the fragment."""
    bounds = part.terms.parts[part.claim.part]
    if not before.terms.is_followed_by(part.terms) or bounds not in before.terms.parts:
        return None
    return decided_part(before, before.terms.parts.index(bounds))


def _complain(part: DecidedPart, complaint: Complaint) -> Testimony:
    return Testimony(terms=part.terms, claim=part.claim, complaint=complaint)


async def _fault_of(material: Material) -> Fault | None:
    return await asyncio.get_running_loop().run_in_executor(None, find_fault, material)
