"""Statements on their way to a wallet: short codes, how long they hold, how often they are tried."""

from __future__ import annotations

import re

import pytest

from coordinator.auth.contract_wallets import ContractWallets
from coordinator.auth.limits import Limits
from coordinator.auth.links import (
    CODE_LETTERS,
    LIFETIME_S,
    MOST_LINKS,
    MOST_SIGNATURES,
    SLOWER_BY_S,
    Link,
    Links,
    Signed,
    shown_code,
)
from coordinator.auth.signatures import Signatures
from coordinator.config import LimitsSection
from cotrain.errors import ForbiddenError, InvalidRequestError, NotAuthorizedError, NotFoundError, RateLimitedError
from cotrain.identity.account import Account
from cotrain.identity.wallet import EthereumWallet
from cotrain.membership.bond import new_terms
from cotrain.protocol import LinkRequest

INTERVAL_S = 5.0
WALLET, THIEF = EthereumWallet(b"\x11" * 32), EthereumWallet(b"\x22" * 32)
WANTED = LinkRequest(
    session="s", peer_id="12D3KooWFakePeerXidForTestsMadeUpofBase58characters", name="attic",
    terms=new_terms("https://train.example", now=1_800_000_000, lifetime_s=3600),
)  # fmt: skip


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def links(clock: Clock) -> Links:
    return Links(Signatures(ContractWallets({})), chains=("eip155:1",), interval_s=INTERVAL_S, clock=clock)


def signature_of(links: Links, link: Link, wallet: EthereumWallet, account: Account | None = None) -> Signed:
    """What this wallet signs, under its own name or another's."""
    named = account or wallet.account
    return Signed(named, wallet.sign(links.statement(link, named)), None)


async def sign(links: Links, link: Link, signed: Signed) -> None:
    await links.verify(link, signed)
    links.accept(link, signed)


# ------------------------------------------------------------------------------------------------- codes
def test_codes_have_no_look_alikes_and_are_read_in_two_groups(links: Links) -> None:
    codes = [links.start(WANTED, "A Test")[1].user_code for _ in range(500)]
    assert len(set(codes)) == 500
    assert all(re.fullmatch(f"[{CODE_LETTERS}]{{8}}", code) for code in codes)
    assert set(CODE_LETTERS).isdisjoint("AEIOUY0123456789")
    assert len(CODE_LETTERS) == 20
    assert shown_code("BCDFGHJK") == "BCDF-GHJK"


@pytest.mark.parametrize("typed", ["{0}-{1}", "{0}{1}", " {0} - {1} ", "{0}.{1}"])
@pytest.mark.parametrize("lower", [False, True])
def test_a_code_is_taken_as_people_type_it(links: Links, typed: str, lower: bool) -> None:
    _, link = links.start(WANTED, "A Test")
    text = typed.format(link.user_code[:4], link.user_code[4:])
    assert links.find(text.lower() if lower else text) is link


@pytest.mark.parametrize("typed", ["", "BCDF", "----", "AEIOU", "BCDF-GHJK-LMNP"])
def test_a_code_that_is_none_is_not_known(links: Links, typed: str) -> None:
    links.start(WANTED, "A Test")
    with pytest.raises(NotFoundError, match="code is not known"):
        links.find(typed)


def test_a_code_holds_for_its_time_and_is_forgotten_then(links: Links, clock: Clock) -> None:
    device_code, link = links.start(WANTED, "A Test")
    clock.seconds += LIFETIME_S - 1
    assert links.find(link.user_code) is link
    assert links.poll(device_code) is None
    clock.seconds += 1
    with pytest.raises(NotFoundError):
        links.find(link.user_code)
    with pytest.raises(NotFoundError):
        links.poll(device_code)
    assert len(links) == 0


async def test_what_was_signed_expires_too(links: Links, clock: Clock) -> None:
    device_code, link = links.start(WANTED, "A Test")
    await sign(links, link, signature_of(links, link, WALLET))
    assert links.signed(device_code) is link
    clock.seconds += LIFETIME_S
    assert links.signed(device_code) is None


def test_no_more_links_than_there_is_room_for(links: Links, clock: Clock) -> None:
    for _ in range(MOST_LINKS):
        links.start(WANTED, "A Test")
    with pytest.raises(RateLimitedError, match="too many nodes"):
        links.start(WANTED, "A Test")
    clock.seconds += LIFETIME_S
    links.start(WANTED, "A Test")
    assert len(links) == 1


# ------------------------------------------------------------------------------------------------- the node
def test_a_node_that_asks_too_often_is_told_to_ask_less_often(links: Links, clock: Clock) -> None:
    device_code, _ = links.start(WANTED, "A Test")
    clock.seconds += INTERVAL_S
    assert links.poll(device_code) is None
    clock.seconds += INTERVAL_S - 0.1
    with pytest.raises(RateLimitedError, match="asks too often") as caught:
        links.poll(device_code)
    assert caught.value.details == {"retryAfterS": INTERVAL_S + SLOWER_BY_S}
    clock.seconds += INTERVAL_S
    with pytest.raises(RateLimitedError):
        links.poll(device_code)
    clock.seconds += INTERVAL_S + 2 * SLOWER_BY_S
    assert links.poll(device_code) is None


def test_neither_the_short_code_nor_a_strangers_device_code_asks_for_the_node(links: Links, clock: Clock) -> None:
    device_code, link = links.start(WANTED, "A Test")
    clock.seconds += INTERVAL_S
    for stranger in (link.user_code, shown_code(link.user_code), device_code[:-1], ""):
        with pytest.raises(NotFoundError):
            links.poll(stranger)
        assert links.signed(stranger) is None
    assert device_code not in repr(vars(links))


# ------------------------------------------------------------------------------------------------- the wallet
async def test_a_wallet_signs_and_the_node_is_given_the_signature(links: Links, clock: Clock) -> None:
    device_code, link = links.start(WANTED, "A Test")
    signed = signature_of(links, link, WALLET)
    await sign(links, link, signed)
    clock.seconds += INTERVAL_S
    assert links.poll(device_code) == signed
    links.end(device_code)
    links.end(device_code)  # the second time nothing is there
    assert links.signed(device_code) is None
    assert len(links) == 0


async def test_a_code_serves_once_and_the_first_signature_stays(links: Links) -> None:
    device_code, link = links.start(WANTED, "A Test")
    first, second = (signature_of(links, link, wallet) for wallet in (WALLET, THIEF))
    await links.verify(link, second)  # both are being checked at the same time
    await sign(links, link, first)
    with pytest.raises(NotFoundError):
        links.accept(link, second)
    with pytest.raises(NotFoundError):
        links.find(link.user_code)
    signed = links.signed(device_code)
    assert signed is not None
    assert signed.signed == first


async def test_after_five_wrong_signatures_a_link_is_dead(links: Links, clock: Clock) -> None:
    device_code, link = links.start(WANTED, "A Test")
    forged = signature_of(links, link, THIEF, account=WALLET.account)
    for _ in range(MOST_SIGNATURES):
        with pytest.raises(NotAuthorizedError, match="signature is refused"):
            await links.verify(link, forged)
    with pytest.raises(NotAuthorizedError, match="too many wrong signatures"):
        await links.verify(link, signature_of(links, link, WALLET))
    with pytest.raises(NotFoundError):
        links.find(link.user_code)
    clock.seconds += INTERVAL_S
    with pytest.raises(ForbiddenError, match="too many wrong signatures"):
        links.poll(device_code)


async def test_a_signature_for_another_link_is_refused(links: Links) -> None:
    _, link = links.start(WANTED, "A Test")
    terms = new_terms("https://train.example", now=1_800_000_000, lifetime_s=3600)
    _, other = links.start(WANTED.model_copy(update={"terms": terms}), "A Test")
    with pytest.raises(NotAuthorizedError):
        await links.verify(link, signature_of(links, other, WALLET))


def test_a_person_declines_and_the_node_is_told(links: Links, clock: Clock) -> None:
    device_code, link = links.start(WANTED, "A Test")
    links.decline(shown_code(link.user_code))
    with pytest.raises(NotFoundError):
        links.decline(link.user_code)
    clock.seconds += INTERVAL_S
    with pytest.raises(ForbiddenError, match="declined in the browser"):
        links.poll(device_code)


def test_a_wallet_of_another_chain_is_told_which_are_taken(links: Links) -> None:
    _, link = links.start(WANTED, "A Test")
    with pytest.raises(InvalidRequestError) as caught:
        links.statement(link, Account.of("eip155:5", WALLET.account.address))
    assert caught.value.details == {"allowed": ["eip155:1"]}


# ------------------------------------------------------------------------------------------------- limits
def test_guessing_is_limited_by_address_and_for_all_together() -> None:
    limits = Limits(LimitsSection(links_per_minute=1, link_codes_per_minute=2), enforced=True, clock=Clock())
    limits.link("198.51.100.1")
    with pytest.raises(RateLimitedError, match="links from this address"):
        limits.link("198.51.100.1")
    for _ in range(2):
        limits.link_code("198.51.100.1")
    with pytest.raises(RateLimitedError, match="codes from this address"):
        limits.link_code("198.51.100.1")
    for number in range(598):
        limits.link_code(f"10.0.{number // 250}.{number % 250}")
    with pytest.raises(RateLimitedError, match="codes at the moment"):
        limits.link_code("203.0.113.1")
