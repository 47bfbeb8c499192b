"""Keeps a peer's membership fresh: renews its certificate in good time, notes when the coordinator was last heard."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from cotrain.backoff import Backoff
from cotrain.errors import CotrainError, ForbiddenError, NotAuthorizedError
from cotrain.membership.document import MembershipDocument, certificate_of, write_membership
from cotrain.status import now

LOOK_EVERY_S = 60.0
RETRY_BACKOFF = Backoff(first_s=10.0, most_s=600.0)

_log = logging.getLogger(__name__)


class MembershipKeeper:
    """Writes `membership.json`, which the training process reads.

    Args:
        path: the file.
        renew: asks the coordinator for a fresh document by the participant's token.
        register: does so with the wallet, which ends in `took`; for when the token or the wallet's statement is over.
        heard_at: when the coordinator was last heard, Unix seconds.
    """

    def __init__(
        self, path: Path, *, renew: Callable[[], Awaitable[MembershipDocument]],
        register: Callable[[], Awaitable[object]], heard_at: Callable[[], float], look_every_s: float = LOOK_EVERY_S,
        backoff: Backoff = RETRY_BACKOFF,
    ):  # fmt: skip
        self._path = path
        self._renew = renew
        self._register = register
        self._heard_at = heard_at
        self._look_every_s = look_every_s
        self._backoff = backoff
        self._document: MembershipDocument | None = None
        self._due = asyncio.Event()

    def took(self, document: MembershipDocument) -> None:
        """A registration or a renewal has brought this."""
        self._document = document
        write_membership(self._path, document)

    def heard_issuer(self, public: str) -> None:
        """The coordinator signs with this key now: a certificate of an older key is renewed at once."""
        if self._document is not None and public and public != self._document.issuers[-1]:
            self._due.set()

    async def run(self) -> None:
        """Until cancelled. Raises ForbiddenError once this account may take no further part."""
        failures = 0
        while True:
            await self._pause(self._backoff.delay_s(failures - 1) if failures else self._look_every_s)
            assert self._document is not None, "run() comes after the registration"
            if not (self._due.is_set() or renewal_due(self._document, now())):
                self._note_heard()
                continue
            try:
                await self._renew_or_register()
                failures = 0
                self._due.clear()
            except ForbiddenError:
                raise
            except CotrainError as error:
                failures += 1
                _log.warning("the certificate could not be renewed, training goes on: %s", error)

    async def _pause(self, seconds: float) -> None:
        """Until the time is over, or a renewal has become due."""
        if self._due.is_set():  # and has just failed
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._due.wait(), seconds)

    def _note_heard(self) -> None:
        assert self._document is not None
        heard_at = self._heard_at()
        if heard_at > self._document.coordinator_seen_at:
            self.took(self._document.model_copy(update={"coordinator_seen_at": heard_at}))

    async def _renew_or_register(self) -> None:
        try:
            self.took(await self._renew())
        except NotAuthorizedError:
            await self._register()


def renewal_due(document: MembershipDocument, clock: float) -> bool:
    """Whether half of the certificate's life is over (Unix seconds)."""
    certificate = certificate_of(document)
    return clock > (certificate.issued_at + certificate.expires_at) / 2
