"""How a node is let into a session: it signs in, binds its peer to its wallet, registers, and signs out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cotrain.errors import CotrainError, ProtocolError
from cotrain.identity.challenge import Signer
from cotrain.membership.bond import Bond, make_bond
from cotrain.membership.certificate import Role
from cotrain.peer_key import PeerSigner
from cotrain.protocol import RegisterAnswer, RegisterRequest
from cotrain.status import now
from node.client import CoordinatorClient
from node.hardware import detect_hardware


@dataclass(frozen=True)
class Applicant:
    """Who wants to take part.

    Attributes:
        role: what the peer asks to be.
        name: what others see of it.
        invitation: token for a private session.
    """

    peer: PeerSigner
    role: Role
    name: str = ""
    invitation: str | None = field(default=None, repr=False)

    async def description(self) -> dict[str, Any]:
        """The fields of a registration, or of a return, that say what this node is."""
        return {"name": self.name, "role": self.role, "hardware": await asyncio.to_thread(detect_hardware)}

    async def request(self, bond: Bond) -> RegisterRequest:
        """The registration with the wallet's statement."""
        return RegisterRequest(
            peer_id=self.peer.peer_id, bond=bond, invitation=self.invitation, **await self.description()
        )


async def register(
    client: CoordinatorClient, session: str, applicant: Applicant, wallet: Signer, *, notice: Callable[[str], None]
) -> RegisterAnswer:
    """What the coordinator lets this node in with; the sign-in ends with it.

    Raises ProtocolError for an answer about another session, and what the client raises.
    """
    bond = make_bond(wallet, applicant.peer, session=session, coordinator=client.base_url, now=now())
    request = await applicant.request(bond)
    token = await client.sign_in(wallet)
    try:
        answer = await client.register(session, request, token)
    finally:
        await _sign_out(client, token, notice)
    return answer_about(session, answer)


def answer_about(session: str, answer: RegisterAnswer) -> RegisterAnswer:
    """The answer itself. Raises ProtocolError where it is about another session."""
    if answer.session != session:
        raise ProtocolError(f"asked for session {session!r}, the coordinator gave {answer.session!r}")
    return answer


async def _sign_out(client: CoordinatorClient, token: str, notice: Callable[[str], None]) -> None:
    """The participant's own token does the rest: none that acts for the whole account is left lying about."""
    try:
        await client.sign_out(token)
    except CotrainError as error:
        notice(f"the sign-in could not be ended, it expires by itself: {error}")
