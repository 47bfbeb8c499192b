"""`cotrain node join --browser`: a wallet in a browser elsewhere lets this node in (after RFC 8628).

The person is asked once. What the coordinator gave the participant is kept, and lets it come back for as long as the
wallet's statement holds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import Field, ValidationError

from cotrain.errors import (
    ForbiddenError,
    NotAuthorizedError,
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    UnreachableError,
)
from cotrain.identity.account import Account
from cotrain.identity.secret_files import SecretFileError, read_secret_file, replace_secret_file
from cotrain.membership.bond import LONGEST_BOND_S, Bond, bond_text, complete_bond, new_terms
from cotrain.peer_key import PeerSigner
from cotrain.protocol import LinkAnswer, LinkRequest, LinkState, RegisterAnswer, ResumeRequest
from cotrain.request import CamelModel
from cotrain.status import now
from node.client import CoordinatorClient
from node.registration import Applicant, answer_about

FOLDER = "browser"
"""In COTRAIN_HOME: what each session has given, in files that nobody else may read."""
SLOWER_BY_S = 5.0
_WHAT = "what the wallet has let this node keep"
_LIMIT_BYTES = 16 * 1024


class Kept(CamelModel):
    """A participant's own credentials."""

    coordinator: str
    peer_id: str
    participant: str
    token: str = Field(repr=False)


class BrowserWallet:
    """Lets one node into one session.

    Args:
        home: the volunteer's folder.
        notice: told in one line what the person has to do, and what has come of it.
    """

    def __init__(self, client: CoordinatorClient, session: str, home: Path, *, notice: Callable[[str], None]):
        self._client = client
        self._session = session
        self._path = home / FOLDER / f"{session}.json"
        self._notice = notice
        self._turn = asyncio.Lock()

    async def register(self, applicant: Applicant) -> RegisterAnswer:
        """What the coordinator lets this node in with: by what was kept, else by the wallet, which is waited for.

        Of several that ask at once, one asks the person.

        Raises NotAuthorizedError where nobody signs in time, or the person declines, SecretFileError
        where the answer cannot be kept or read, and what the client raises.
        """
        async with self._turn:
            return await self._come_back(applicant) or await self._ask(applicant)

    async def _come_back(self, applicant: Applicant) -> RegisterAnswer | None:
        kept = self._read(applicant.peer)
        if kept is None:
            return None
        request = ResumeRequest(**await applicant.description())
        try:
            answer = await self._client.resume(self._session, kept.participant, kept.token, request)
        except NotAuthorizedError as error:
            self._notice(f"the wallet is needed again: {error.message}")
            return None
        return answer_about(self._session, answer)

    async def _ask(self, applicant: Applicant) -> RegisterAnswer:
        bond, device_code = await self._signed_statement(applicant)
        request = await applicant.request(bond)
        answer = answer_about(self._session, await self._client.register(self._session, request, device_code))
        kept = Kept(
            coordinator=self._client.base_url, peer_id=applicant.peer.peer_id, participant=answer.participant,
            token=answer.token,
        )  # fmt: skip
        replace_secret_file(self._path, kept.model_dump_json(by_alias=True).encode(), what=_WHAT)
        return answer

    async def _signed_statement(self, applicant: Applicant) -> tuple[Bond, str]:
        """The bond, and the code with which this node registers."""
        peer = applicant.peer
        while True:
            terms = new_terms(self._client.base_url, now=now(), lifetime_s=LONGEST_BOND_S)
            link = await self._client.start_link(
                LinkRequest(
                    session=self._session, peer_id=peer.peer_id, name=applicant.name, terms=terms,
                    invitation=applicant.invitation,
                )
            )  # fmt: skip
            self._notice(
                f"open {link.verification_uri} on a machine that has your wallet, and type {link.user_code} there "
                f"(or follow {link.verification_uri_complete}); this waits for {link.expires_in_s / 60:.0f} minutes"
            )
            try:
                signed = await self._wait(link)
            except NotFoundError:
                self._notice(f"the coordinator has forgotten the code {link.user_code}: another one follows")
                continue
            if signed.account is None or signed.signature is None:
                raise ProtocolError("the coordinator says that the wallet has signed, and not what")
            self._notice(f"{signed.account} has signed: this node takes part for it")
            # made from what this node knows, not from what the coordinator says of it
            text = bond_text(
                terms, account=Account.parse(signed.account), peer_id=peer.peer_id, session=self._session
            )  # fmt: skip
            bond = complete_bond(terms, text, peer, signature=signed.signature, public_key=signed.public_key)
            return bond, link.device_code

    async def _wait(self, link: LinkAnswer) -> LinkState:
        """Ask until the wallet has signed. Raises as `CoordinatorClient.poll_link`, or NotAuthorizedError."""
        give_up, interval_s = time.monotonic() + link.expires_in_s, link.interval_s
        while time.monotonic() + interval_s < give_up:
            await asyncio.sleep(interval_s)
            try:
                answer = await self._client.poll_link(link.device_code)
            except RateLimitedError:
                interval_s += SLOWER_BY_S
            except UnreachableError:  # it may be starting anew; until then nobody can sign, either
                continue
            except ForbiddenError as error:  # by the person: no other session is to be tried
                raise NotAuthorizedError(error.message, hint=error.hint) from error
            else:
                if answer.state == "signed":
                    return answer
        raise NotAuthorizedError(
            f"no wallet has signed for the code {link.user_code}", hint="join again for another code"
        )  # fmt: skip

    def _read(self, peer: PeerSigner) -> Kept | None:
        """What was kept for this peer, session and coordinator. Raises SecretFileError."""
        try:
            kept = Kept.model_validate_json(read_secret_file(self._path, what=_WHAT, limit_bytes=_LIMIT_BYTES))
        except NotFoundError:
            return None
        except ValidationError:  # its text would quote what is in the file
            raise SecretFileError(
                f"{_WHAT} is damaged", field=str(self._path), hint="delete it, and join again"
            ) from None
        is_ours = (kept.coordinator, kept.peer_id) == (self._client.base_url, peer.peer_id)
        return kept if is_ours else None
