"""What is there for whoever asks: private sessions, and what they made, are for those who were let in."""

from __future__ import annotations

from pathlib import Path

from aiohttp import hdrs, web
from sqlalchemy.sql import ColumnElement

from coordinator.api.callers import reader_of
from coordinator.auth.tokens import given_token
from coordinator.context import COORDINATOR

INVITATION_HEADER = "Cotrain-Invitation"


async def may_see_session(request: web.Request) -> bool:
    """Whether the session in the path is there for whoever asks."""
    invitations, session = request.app[COORDINATOR].invitations, request.match_info["id"]
    if invitations.is_known_public(session):
        return True
    reader = await reader_of(request)
    return await invitations.may_see(session, reader.account, operator=reader.operator, tokens=_brought(request))


async def versions_seen(request: web.Request) -> ColumnElement[bool]:
    """Which versions of models are there for whoever asks: a condition for queries."""
    reader = await reader_of(request)
    invitations = request.app[COORDINATOR].invitations
    return invitations.versions_seen(reader.account, operator=reader.operator, tokens=_brought(request))


async def hidden_folders(request: web.Request) -> frozenset[Path]:
    """Where the files and the data of those versions lie that are not there for whoever asks."""
    return await request.app[COORDINATOR].registry.hidden_folders(await versions_seen(request))


def _brought(request: web.Request) -> tuple[str, ...]:
    """Tokens of a participant or of an invitation, whatever they are worth."""
    brought = given_token(request.headers.get(hdrs.AUTHORIZATION)), request.headers.get(INVITATION_HEADER, "")
    return tuple(filter(None, brought))
