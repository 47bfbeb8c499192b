"""Links: statements of nodes that a wallet elsewhere is to sign, found by a short code (after RFC 8628).

In memory: a coordinator that is started anew knows none, and its nodes ask again.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from coordinator.auth.challenges import check_chain
from coordinator.auth.signatures import SignatureRefusedError, Signatures
from coordinator.auth.tokens import new_token, token_sha256
from coordinator.problem import RETRY_AFTER
from cotrain.errors import ForbiddenError, NotAuthorizedError, NotFoundError, RateLimitedError
from cotrain.identity.account import Account
from cotrain.membership.bond import bond_text
from cotrain.protocol import LinkRequest

CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
"""RFC 8628, section 6.1: no vowels, so no words; no digits, so nothing that looks like a letter."""
CODE_LENGTH = 8
LIFETIME_S = 600.0
MOST_LINKS = 4096
MOST_SIGNATURES = 5
"""That are checked for one link: contracts are asked over a network, and a person signs right sooner than that."""
SLOWER_BY_S = 5.0
_FULL_RETRY_S = 60

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Signed:
    """Who has signed, and how."""

    account: Account
    signature: str
    public_key: str | None


@dataclass
class Link:
    """One node's statement on its way to a wallet.

    Attributes:
        user_code: letters only.
        expires_at, asked_at: seconds of the clock of `Links`; `asked_at`: the node's last question.
        interval_s: least time between two of them.
        signatures: how many have been checked.
        refusal: why it will not be signed; empty if it may.
    """

    user_code: str
    wanted: LinkRequest
    session_name: str
    expires_at: float
    interval_s: float
    asked_at: float
    signatures: int = 0
    refusal: str = ""
    signed: Signed | None = None


class Links:
    """The links of one coordinator.

    Args:
        chains: the CAIP-2 chains whose wallets may sign.
        interval_s: least time between two questions of a node.
        clock: seconds that only rise.
    """

    def __init__(
        self, signatures: Signatures, *, chains: Collection[str], interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ):  # fmt: skip
        self._signatures = signatures
        self._chains = chains
        self._interval_s = interval_s
        self._clock = clock
        self._links: dict[str, Link] = {}
        """By the hash of the device code, the oldest first."""
        self._by_user_code: dict[str, Link] = {}

    def __len__(self) -> int:
        """Links that are remembered."""
        return len(self._links)

    def start(self, wanted: LinkRequest, session_name: str) -> tuple[str, Link]:
        """A new link and its device code, which is known to nobody else. Raises RateLimitedError for one too many."""
        self._forget_expired()
        if len(self._links) >= MOST_LINKS:
            raise RateLimitedError(
                "too many nodes wait for a wallet", hint="try again in a minute", details={RETRY_AFTER: _FULL_RETRY_S}
            )
        clock, device_code = self._clock(), new_token()
        link = Link(
            self._new_user_code(), wanted, session_name, expires_at=clock + LIFETIME_S, interval_s=self._interval_s,
            asked_at=clock,
        )  # fmt: skip
        self._links[token_sha256(device_code)] = link
        self._by_user_code[link.user_code] = link
        return device_code, link

    def poll(self, device_code: str) -> Signed | None:
        """Who has signed; None if nobody has yet.

        Raises NotFoundError for a code that is unknown, expired or used up, ForbiddenError once it will not be signed,
        RateLimitedError for a node that asks too often; it is to ask less often from then on.
        """
        self._forget_expired()
        link = self._links.get(token_sha256(device_code))
        if link is None:
            raise NotFoundError(
                "this device code is not known", field="deviceCode", hint="it has expired or served: ask for another"
            )
        clock, since = self._clock(), link.asked_at
        link.asked_at = clock
        if clock - since < link.interval_s:
            link.interval_s += SLOWER_BY_S
            raise RateLimitedError(
                "this node asks too often", field="deviceCode",
                hint=f"wait {link.interval_s:g} s between two questions",
                details={RETRY_AFTER: round(link.interval_s)},
            )  # fmt: skip
        if link.refusal:
            raise ForbiddenError(link.refusal, hint="ask again, if you started this node yourself")
        return link.signed

    def find(self, user_code: str) -> Link:
        """The link that waits for a signature under this code, as a person types it. Raises NotFoundError."""
        self._forget_expired()
        link = self._by_user_code.get(_letters(user_code))
        if link is None or link.signed is not None or link.refusal:
            raise NotFoundError(
                "this code is not known", field="userCode",
                hint="compare it with what the node shows; it holds for ten minutes, and serves once",
            )  # fmt: skip
        return link

    def statement(self, link: Link, account: Account) -> str:
        """The text that this account's wallet is to sign. Raises InvalidRequestError for a chain that is not taken."""
        check_chain(account.chain, self._chains)
        wanted = link.wanted
        return bond_text(wanted.terms, account=account, peer_id=wanted.peer_id, session=wanted.session)

    async def verify(self, link: Link, signed: Signed) -> None:
        """Raises NotAuthorizedError unless the wallet has signed the statement; five wrong ones end the link."""
        text = self.statement(link, signed.account)
        link.signatures += 1
        if link.signatures > MOST_SIGNATURES:
            link.refusal = "too many wrong signatures have come for this code"
            raise NotAuthorizedError(link.refusal, field="userCode", hint="start the node again for another code")
        try:
            await self._signatures.check(
                signed.account, text, signed.signature, purpose="statement", public_key=signed.public_key,
                nonce=link.wanted.terms.nonce,
            )  # fmt: skip
        except SignatureRefusedError as error:
            _logger.warning("a signature for peer %s is refused: %s", link.wanted.peer_id, error.message)
            raise NotAuthorizedError(
                "this signature is refused", field="signature", hint="sign the text with the wallet of the address"
            ) from None

    def accept(self, link: Link, signed: Signed) -> None:
        """Keep a signature that has been verified, until its node has registered with it.

        Raises NotFoundError where the code has expired meanwhile, or another signature was first.
        """
        self.find(link.user_code).signed = signed

    def decline(self, user_code: str) -> None:
        """Whoever was to sign does not want to. Raises NotFoundError."""
        self.find(user_code).refusal = "the request was declined in the browser"

    def signed(self, device_code: str) -> Link | None:
        """The link of this device code, if a wallet has signed it."""
        self._forget_expired()
        link = self._links.get(token_sha256(device_code))
        return None if link is None or link.signed is None else link

    def end(self, device_code: str) -> None:
        """The node has registered: the code serves no more."""
        if (link := self._links.pop(token_sha256(device_code), None)) is not None:
            del self._by_user_code[link.user_code]

    def _new_user_code(self) -> str:
        while True:
            code = "".join(secrets.choice(CODE_LETTERS) for _ in range(CODE_LENGTH))
            if code not in self._by_user_code:
                return code

    def _forget_expired(self) -> None:
        """All live equally long, so the oldest ones expire first."""
        clock = self._clock()
        while self._links and (oldest := next(iter(self._links.items())))[1].expires_at <= clock:
            del self._links[oldest[0]], self._by_user_code[oldest[1].user_code]


def shown_code(user_code: str) -> str:
    """As people read it: in two groups."""
    return f"{user_code[:4]}-{user_code[4:]}"


def _letters(typed: str) -> str:
    return "".join(letter for letter in typed.upper() if letter in CODE_LETTERS)
