"""How a node is let into a session: it signs in, binds its peer to its wallet, registers, and signs out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from cotrain.errors import CotrainError, ProtocolError
from cotrain.identity.challenge import Signer
from cotrain.membership.bond import make_bond
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

    wallet: Signer
    peer: PeerSigner
    role: Role
    name: str = ""
    invitation: str | None = field(default=None, repr=False)


async def register(
    client: CoordinatorClient, session: str, applicant: Applicant, *, notice: Callable[[str], None]
) -> RegisterAnswer:
    """What the coordinator lets this node in with; the sign-in ends with it.

    Raises ProtocolError for an answer about another session, and what the client raises.
    """
    hardware = await asyncio.to_thread(detect_hardware)
    bond = make_bond(applicant.wallet, applicant.peer, session=session, coordinator=client.base_url, now=now())
    request = RegisterRequest(
        peer_id=applicant.peer.peer_id, bond=bond, name=applicant.name, hardware=hardware, role=applicant.role,
        invitation=applicant.invitation,
    )  # fmt: skip
    token = await client.sign_in(applicant.wallet)
    try:
        answer = await client.register(session, request, token)
    finally:
        await _sign_out(client, token, notice)
    if answer.session != session:
        raise ProtocolError(f"asked for session {session!r}, the coordinator gave {answer.session!r}")
    return answer


async def _sign_out(client: CoordinatorClient, token: str, notice: Callable[[str], None]) -> None:
    """The participant's own token does the rest: none that acts for the whole account is left lying about."""
    try:
        await client.sign_out(token)
    except CotrainError as error:
        notice(f"the sign-in could not be ended, it expires by itself: {error}")
