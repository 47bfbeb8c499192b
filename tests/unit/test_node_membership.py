"""A node's certificate is renewed in good time, by whatever still works, and nothing stops while it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cotrain.backoff import Backoff
from cotrain.errors import CotrainError, ForbiddenError, NotAuthorizedError, UnreachableError
from cotrain.membership.document import MembershipDocument, certificate_of, read_membership
from cotrain.status import now
from node.membership import MembershipKeeper, renewal_due
from tests.membership_fixtures import membership_of

PEER = "12D3KooWGRUacYwXCQnm3fTWJaXuXnb1UcSgbBcqCmVQN9jXFu5a"
HOUR_S = 3600.0
LIMIT_S = 60.0


class Coordinator:
    """Renews and registers as it is told to."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.heard_at = 0.0
        self.calls: list[str] = []
        self.serials: list[str] = []
        """Of the certificate that was in hand at each renewal."""
        self.errors: list[CotrainError] = []
        """What the next calls are answered with."""
        self.keeper = MembershipKeeper(
            folder / "membership.json", renew=self.renew, register=self.register,
            heard_at=lambda: self.heard_at, look_every_s=0.01, backoff=Backoff(first_s=0.01, most_s=0.01),
        )  # fmt: skip

    def document(self, *, age_s: float = 0.0) -> MembershipDocument:
        return membership_of(self._folder / "keys", "s", PEER, now=now() - age_s)

    async def renew(self) -> MembershipDocument:
        self.calls.append("renew")
        self.serials.append(certificate_of(self.kept()).serial)
        self._raise()
        return self.document()

    async def register(self) -> None:
        self.calls.append("register")
        self._raise()
        self.keeper.took(self.document())

    def _raise(self) -> None:
        if self.errors:
            raise self.errors.pop(0)

    def kept(self) -> MembershipDocument:
        return read_membership(self._folder / "membership.json")


@asynccontextmanager
async def running(keeper: MembershipKeeper) -> Any:
    task = asyncio.create_task(keeper.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 - the keeper tells nobody
            await asyncio.sleep(0.01)


def test_half_of_a_certificates_life_is_when_it_is_renewed(tmp_path: Path) -> None:
    document = Coordinator(tmp_path).document()
    certificate = certificate_of(document)
    middle = (certificate.issued_at + certificate.expires_at) / 2
    assert not renewal_due(document, middle)
    assert renewal_due(document, middle + 1)


async def test_a_certificate_in_its_second_half_is_renewed_and_a_fresh_one_left_alone(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path)
    coordinator.keeper.took(coordinator.document(age_s=0.6 * HOUR_S))
    old = certificate_of(coordinator.kept()).serial
    async with running(coordinator.keeper):
        await until(lambda: certificate_of(coordinator.kept()).serial != old)
        await asyncio.sleep(0.1)  # ten looks at a fresh certificate
    assert coordinator.calls == ["renew"]


async def test_while_the_coordinator_is_away_it_is_tried_again_and_the_old_one_stays(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path)
    coordinator.errors = [UnreachableError("away"), UnreachableError("away")]
    coordinator.keeper.took(coordinator.document(age_s=0.6 * HOUR_S))
    old = certificate_of(coordinator.kept()).serial
    async with running(coordinator.keeper):
        await until(lambda: certificate_of(coordinator.kept()).serial != old)
    assert coordinator.calls == ["renew"] * 3
    assert coordinator.serials == [old] * 3


async def test_when_the_statement_is_over_the_wallet_signs_a_new_one(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path)
    coordinator.errors = [NotAuthorizedError("the wallet's statement has expired")]
    coordinator.keeper.took(coordinator.document(age_s=0.6 * HOUR_S))
    old = certificate_of(coordinator.kept()).serial
    async with running(coordinator.keeper):
        await until(lambda: certificate_of(coordinator.kept()).serial != old)
    assert coordinator.calls == ["renew", "register"]


async def test_a_removed_account_ends_the_run(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path)
    coordinator.errors = [NotAuthorizedError("unknown"), ForbiddenError("removed")]
    coordinator.keeper.took(coordinator.document(age_s=0.6 * HOUR_S))
    async with running(coordinator.keeper) as task:
        with pytest.raises(ForbiddenError, match="removed"):
            await asyncio.wait_for(task, LIMIT_S)


async def test_when_the_coordinator_was_heard_is_written_down_for_the_grace(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path)
    coordinator.keeper.took(coordinator.document())
    seen_before = coordinator.kept().coordinator_seen_at
    async with running(coordinator.keeper):
        coordinator.heard_at = seen_before + 100.0
        await until(lambda: coordinator.kept().coordinator_seen_at == seen_before + 100.0)
        coordinator.heard_at = 0.0
        await asyncio.sleep(0.05)
    assert coordinator.kept().coordinator_seen_at == seen_before + 100.0
    assert coordinator.calls == []


async def test_a_new_key_of_the_coordinator_means_a_new_certificate_at_once(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path)
    coordinator.keeper.heard_issuer("00" * 32)  # before there is anything to renew
    coordinator.keeper.took(coordinator.document())
    known = coordinator.kept().issuers[-1]
    async with running(coordinator.keeper):
        coordinator.keeper.heard_issuer(known)
        coordinator.keeper.heard_issuer("")  # a coordinator that does not say
        await asyncio.sleep(0.05)
        assert coordinator.calls == []
        coordinator.errors = [UnreachableError("away")]
        coordinator.keeper.heard_issuer("ab" * 32)
        await until(lambda: coordinator.calls == ["renew", "renew"])
        await asyncio.sleep(0.05)
    assert coordinator.calls == ["renew", "renew"]
