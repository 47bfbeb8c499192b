"""Finds a session for a node whose volunteer has named a coordinator only: asks for the open ones, and tries them.

What is chosen and what is told of it is in `node/offers.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cotrain.errors import ConflictError, CotrainError, ForbiddenError, NotFoundError
from cotrain.protocol import Hardware
from node.hardware import detect_hardware
from node.offers import MOST_OFFERS, Offer, choice_lines, nothing_open, read_offers
from node.sessions.api import SessionsApi

REFUSALS = (ConflictError, NotFoundError, ForbiddenError)
"""What a coordinator answers to a registration when the session does not take this node (or no more)."""


class TurnedAwayError(Exception):
    """A session did not take this node, for this `reason`: another one may."""

    def __init__(self, reason: CotrainError):
        super().__init__(str(reason))
        self.reason = reason


async def ask_offers(base_url: str, notice: Callable[[str], None]) -> tuple[Hardware, list[Offer]]:
    """This machine, and the public sessions that it can join, the best first.

    Raises UnreachableError after 5 tries, ProtocolError, and what else the coordinator answers.
    """
    hardware = await asyncio.to_thread(detect_hardware)
    async with SessionsApi(base_url, on_wait=notice) as api:
        return hardware, read_offers(await api.open_to(hardware, most=MOST_OFFERS))


async def take_part_in_best(
    base_url: str, take_part: Callable[[str], Awaitable[int]], notice: Callable[[str], None]
) -> int:
    """What `take_part` returns for the best open session that takes this node.

    Args:
        take_part: given a session's id; raises TurnedAwayError if that does not take this node.

    Raises NothingOpenError if there is none, and as `ask_offers` and `take_part` do.
    """
    hardware, offers = await ask_offers(base_url, notice)
    refusals: dict[str, str] = {}
    for place, offer in enumerate(offers):
        for line in choice_lines(offer, offers[place + 1 :]):
            notice(line)
        try:
            return await take_part(offer.session)
        except TurnedAwayError as error:
            refusals[offer.session] = error.reason.message
            notice(f"session {offer.session} does not take this node: {error.reason.message}")
    raise nothing_open(base_url, hardware, refusals)
