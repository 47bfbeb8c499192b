"""Answering a coordinator's challenge with a wallet that signs without asking anybody.

Nobody reads the text before it is signed, so it is rebuilt here and must be the same to the byte: a coordinator that
passes on another site's challenge gets no signature for it.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Protocol
from urllib.parse import urlsplit

from cotrain.errors import NotAuthorizedError
from cotrain.identity.account import Account
from cotrain.identity.text import sign_in_text

_TIMES = re.compile(r"^Issued At: (\S{1,40})\nExpiration Time: (\S{1,40})$", re.MULTILINE)
_FIRST_LINE = re.compile(r"(\S{1,300}) wants you to sign in with your ")


class Signer(Protocol):
    """A wallet that is at hand."""

    @property
    def account(self) -> Account:
        """Whose signatures these are."""
        ...

    def sign(self, text: str) -> str:
        """A personal message's signature: 0x and hexadecimal digits."""
        ...


def sign_challenge(wallet: Signer, *, nonce: str, message: str, coordinator: str) -> str:
    """The wallet's signature over a challenge's text.

    Args:
        coordinator: the URL that this machine knows the coordinator by; the text must be for it.

    Raises NotAuthorizedError if the text is another one than a coordinator at that URL would ask for.
    """
    if message != _expected_text(wallet.account, nonce, message, coordinator):
        asked_by = _FIRST_LINE.match(message)
        known_as = f"; it calls itself {asked_by[1]}" if asked_by else ""
        raise NotAuthorizedError(
            f"the coordinator wants a text signed that is not for {coordinator}{known_as}", field=coordinator,
            hint="use the address that its operator gave out: nothing else is signed for you",
        )  # fmt: skip
    return wallet.sign(message)


def _expected_text(account: Account, nonce: str, message: str, coordinator: str) -> str | None:
    """What the text must be with the times that it names; None if it names none."""
    times = _TIMES.search(message)
    if times is None:
        return None
    try:
        issued_at, expires_at = (datetime.fromisoformat(text).timestamp() for text in times.groups())
    except ValueError:
        return None
    return sign_in_text(
        account, domain=urlsplit(coordinator).netloc, uri=coordinator, nonce=nonce, issued_at=issued_at,
        expires_at=expires_at,
    )  # fmt: skip
