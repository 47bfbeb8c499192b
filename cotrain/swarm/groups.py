"""The groups that this peer is or was a member of, for the RPCs that are about them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from cotrain.errors import SwarmError
from cotrain.swarm.all_reduce import Exchange
from cotrain.swarm.claims import encoded_of
from cotrain.swarm.commit import Agreement
from cotrain.swarm.inquiry import Inquiry
from cotrain.swarm.notary import Notary
from cotrain.swarm.parts import Manifest, PartLedger
from cotrain.swarm.terms import GroupTerms
from cotrain.swarm.votes import Decision

GROUP_WAIT_S = 2.0
"""How long a message may arrive before its group is known here."""
GROUPS_KEPT = 2
"""A group's averages and inputs are held until the group after the next one forms."""


@dataclass(frozen=True)
class DecidedRound:
    """What a group decided on, with its bytes."""

    terms: GroupTerms
    decision: Decision
    ledger: PartLedger

    @property
    def manifest(self) -> Manifest:
        return tuple(self.decision.manifest)

    def averages(self) -> list[bytes | None]:
        """The encoded average of each part; None where it counts as zero."""
        sealed = [self.sealed(index) for index in range(len(self.terms.parts))]
        return [None if one is None else encoded_of(self.terms, one) for one in sealed]

    def sealed(self, part: int) -> bytes | None:
        """The decided average of a part, as it travels; None if it counts as zero."""
        return None if self.decision.manifest[part] is None else self.ledger.encoded(part)


@dataclass(frozen=True)
class Group:
    """A member's side of one group."""

    terms: GroupTerms
    exchange: Exchange
    notary: Notary
    agreement: Agreement | Inquiry


class GroupTable:
    """The last groups by their ids. Belongs to the event loop that it is made in."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        self._opened = asyncio.Event()

    def register(self, group: Group) -> list[Group]:
        """Let messages about a group find it; the groups that they find no more."""
        self._groups[group.terms.group] = group
        old = [self._groups.pop(name) for name in list(self._groups)[:-GROUPS_KEPT]]
        self._opened.set()  # wakes all that wait; those who come later wait for the next one
        self._opened = asyncio.Event()
        return old

    async def of(self, group: str, caller: str) -> Group:
        """The group that a message is about; raises SwarmError for one that this peer and the caller are not in."""
        try:
            async with asyncio.timeout(GROUP_WAIT_S):
                while group not in self._groups:
                    await self._opened.wait()
        except TimeoutError:
            raise SwarmError(f"not a member of group {group[:12]}") from None
        if caller not in self._groups[group].terms.members:
            raise SwarmError(f"is not a member of group {group[:12]}", field=caller)
        return self._groups[group]
