"""Sign-in's pure decisions: origins, addresses, permissions, limits, settings."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.auth.addresses import block_key, client_address, client_key
from coordinator.auth.limits import Limits, SlidingWindow
from coordinator.auth.origins import cookie_origin_allowed, origin_allowed
from coordinator.auth.permissions import ACTS, PERMISSIONS, ROLES, Act, Caller, Role, may, require, roles_of
from coordinator.auth.sign_ins import NewSignIn
from coordinator.config import LimitsSection, ServerSection
from coordinator.problem import RETRY_AFTER
from cotrain.errors import ForbiddenError, NotAuthorizedError, RateLimitedError

REPOSITORY = Path(__file__).resolve().parents[2]


# ------------------------------------------------------------------------------------------------- origins
@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "127.0.0.1:8000", True),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("http://localhost:8000", "localhost:8000", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("https://train.example", "127.0.0.1:8000", True),
        ("https://TRAIN.example", "anything", True),
        ("http://evil.test", "127.0.0.1:8000", False),
        ("http://evil.test", "evil.test", False),  # a name that a stranger has pointed at this machine
        ("null", "127.0.0.1:8000", False),
        ("http://127.0.0.1:8001", "127.0.0.1:8000", False),
        ("", "127.0.0.1:8000", False),
        ("", "", False),
        ("http://[::1", "[::1", False),
    ],
)
def test_only_our_own_pages_may_act(origin: str | None, host: str, allowed: bool) -> None:
    assert origin_allowed(origin, host, "https://train.example") is allowed


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, False),
        ("https://train.example", True),
        ("http://train.example", False),
        ("https://evil.test", False),
        ("https://127.0.0.1:8000", True),
    ],
)
def test_a_cookie_needs_an_origin_of_the_public_scheme(origin: str | None, allowed: bool) -> None:
    assert cookie_origin_allowed(origin, "127.0.0.1:8000", "https://train.example") is allowed


# ------------------------------------------------------------------------------------------------- addresses
HERE: dict[str, Any] = {"behind_proxy": True}
ELSEWHERE: dict[str, Any] = {"trusted_proxies": ["10.1.0.0/24"]}


@pytest.mark.parametrize(
    ("peer", "forwarded", "server", "address"),
    [
        ("203.0.113.7", ["198.51.100.1"], {}, "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], HERE, "203.0.113.7"),  # not from a proxy on this machine
        ("127.0.0.1", ["198.51.100.1"], {}, "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.1"], HERE, "198.51.100.1"),
        ("::1", ["10.0.0.1, 198.51.100.1"], HERE, "198.51.100.1"),
        ("127.0.0.1", ["10.0.0.1", "10.0.0.2,198.51.100.1"], HERE, "198.51.100.1"),
        ("127.0.0.1", [], HERE, "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.1, unknown"], HERE, "127.0.0.1"),
        ("", ["198.51.100.1"], HERE, ""),
        ("10.1.0.2", ["198.51.100.1"], ELSEWHERE, "198.51.100.1"),
        ("::ffff:10.1.0.2", ["198.51.100.1"], ELSEWHERE, "198.51.100.1"),
        ("10.1.0.2", ["203.0.113.9, 198.51.100.1, 10.1.0.3"], ELSEWHERE, "198.51.100.1"),  # two proxies in a row
        ("10.1.0.2", ["203.0.113.9, 10.2.0.3"], ELSEWHERE, "10.2.0.3"),  # not one of ours: a client
        ("127.0.0.1", ["198.51.100.1"], ELSEWHERE, "127.0.0.1"),
        ("2001:db8::2", ["198.51.100.1"], {"trusted_proxies": ["2001:db8::2"]}, "198.51.100.1"),
    ],
)
def test_the_address_of_a_client(peer: str, forwarded: list[str], server: dict[str, Any], address: str) -> None:
    proxies = ServerSection.model_validate(server).proxies
    assert client_address(peer, forwarded, proxies) == address


@pytest.mark.parametrize(
    ("address", "client", "block"),
    [
        ("203.0.113.7", "203.0.113.7/32", "203.0.113.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("::ffff:203.0.113.7", "203.0.113.7/32", "203.0.113.0/24"),
        ("fe80::1%eth0", "fe80::/64", "fe80::/48"),
        ("", "", ""),
    ],
)
def test_the_keys_of_an_address(address: str, client: str, block: str) -> None:
    assert (client_key(address), block_key(address)) == (client, block)


# ------------------------------------------------------------------------------------------------- permissions
ACCOUNTS = ("", "eip155:1:0xA", "eip155:1:0xB")
CALLERS = [Caller(account or None, operator=operator) for account, operator in product(ACCOUNTS, (False, True))]


@pytest.mark.parametrize("act", ACTS)
def test_the_table_and_the_words_know_every_act(act: Act) -> None:
    assert PERMISSIONS[act]
    assert PERMISSIONS[act] <= set(ROLES)


@given(st.sampled_from(ACTS), st.sampled_from(CALLERS), st.sampled_from(ACCOUNTS), st.sampled_from(ACCOUNTS))
def test_what_is_allowed_follows_from_the_table_alone(act: Act, caller: Caller, owner: str, participant: str) -> None:
    roles = roles_of(caller, owner=owner, participant=participant)
    allowed = any(role in PERMISSIONS[act] for role in roles)
    assert may(act, caller, owner=owner, participant=participant) is allowed
    if allowed:
        require(act, caller, owner=owner, participant=participant)
        return
    refusal = NotAuthorizedError if caller.account is None else ForbiddenError
    with pytest.raises(refusal) as raised:
        require(act, caller, owner=owner, participant=participant)
    assert set(raised.value.details["allowed"]) == PERMISSIONS[act]


@given(st.sampled_from(CALLERS), st.sampled_from(ACCOUNTS), st.sampled_from(ACCOUNTS))
def test_roles(caller: Caller, owner: str, participant: str) -> None:
    roles = roles_of(caller, owner=owner, participant=participant)
    assert "visitor" in roles
    if caller.account is None:  # nobody owns what belongs to nobody
        assert roles == {"visitor"}
        return
    assert ("owner" in roles) == (caller.account == owner)
    assert ("participant" in roles) == (caller.account == participant)
    assert ("operator" in roles) == caller.operator


@pytest.mark.parametrize(
    ("act", "roles"),
    [
        ("read", {"visitor"}), ("open", {"account"}), ("register", {"account"}), ("leave", {"participant"}),
        ("steer", {"owner", "operator"}), ("delete", {"owner", "operator"}), ("remove", {"owner", "operator"}),
        ("pin", {"owner", "operator"}),
        ("invite", {"owner", "operator"}),
    ],
)  # fmt: skip
def test_the_table_says_what_was_decided(act: Act, roles: set[Role]) -> None:
    assert PERMISSIONS[act] == roles


def test_a_session_from_before_there_were_owners_is_the_operators() -> None:
    with pytest.raises(ForbiddenError, match="the session's owner or an operator"):
        require("steer", Caller("eip155:1:0xA"), owner="")
    require("steer", Caller("eip155:1:0xA", operator=True), owner="")


# ------------------------------------------------------------------------------------------------- limits
class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@given(st.lists(st.integers(0, 40).map(lambda eighths: eighths / 8), max_size=60), st.integers(1, 5))
def test_no_period_holds_more_than_the_limit(gaps: list[float], most: int) -> None:
    clock = Clock()
    window = SlidingWindow(most, 10.0, clock=clock)
    taken: list[float] = []
    for gap in gaps:
        clock.time += gap
        wait_s = window.take("key")
        if wait_s == 0.0:
            taken.append(clock.time)
        else:
            assert 0.0 < wait_s <= 10.0
            assert taken[-most] + 10.0 == clock.time + wait_s
    assert all(later - earlier >= 10.0 for earlier, later in zip(taken, taken[most:], strict=False))


def test_who_waits_as_told_is_let_in() -> None:
    clock = Clock()
    window = SlidingWindow(2, 60.0, clock=clock)
    assert [window.take("a"), window.take("a")] == [0.0, 0.0]
    wait_s = window.take("a")
    assert wait_s == 60.0
    assert window.take("b") == 0.0
    clock.time += wait_s
    assert window.take("a") == 0.0


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0.0, 4.0)), max_size=60))
def test_a_window_remembers_a_bounded_number_of_keys_and_none_for_ever(events: list[tuple[str, float]]) -> None:
    clock = Clock()
    window = SlidingWindow(3, 10.0, most_keys=4, clock=clock)
    for key, gap in events:
        clock.time += gap
        window.take(key)
        assert len(window) <= 4
    clock.time += 11.0
    window.take("z")
    assert len(window) == 1


def test_addresses_are_counted_by_client_and_by_block() -> None:
    limits = Limits(LimitsSection(challenges_per_minute=1, new_accounts_per_hour=1), enforced=True, clock=Clock())
    limits.challenge("2001:db8::1")
    limits.challenge("2001:db8:0:1::1")
    with pytest.raises(RateLimitedError, match="challenges") as raised:
        limits.challenge("2001:db8::2")
    assert raised.value.details[RETRY_AFTER] == 60
    limits.new_account("203.0.113.1")
    with pytest.raises(RateLimitedError, match="new accounts"):
        limits.new_account("203.0.113.2")


def test_previews_are_counted_by_client() -> None:
    limits = Limits(LimitsSection(previews_per_minute=1), enforced=True, clock=Clock())
    limits.preview("203.0.113.1")
    limits.preview("203.0.113.2")
    with pytest.raises(RateLimitedError, match="previews"):
        limits.preview("203.0.113.1")


def test_entries_of_the_catalog_are_counted_by_account() -> None:
    limits = Limits(LimitsSection(catalog_entries_per_account=2), enforced=True)
    limits.catalog_entry(1)
    with pytest.raises(RateLimitedError, match="catalog") as raised:
        limits.catalog_entry(2)
    assert "delete" in raised.value.hint


def test_accounts_are_counted_by_their_writes_and_open_sessions() -> None:
    limits = Limits(LimitsSection(writes_per_minute=1, open_sessions_per_account=2), enforced=True, clock=Clock())
    limits.write("a")
    limits.write("b")
    with pytest.raises(RateLimitedError, match="changes"):
        limits.write("a")
    limits.open_session(1)
    with pytest.raises(RateLimitedError, match="open sessions") as raised:
        limits.open_session(2)
    assert "stop" in raised.value.hint


def test_an_account_has_a_bounded_number_of_peers_in_a_session() -> None:
    limits = Limits(LimitsSection(participants_per_account=2), enforced=True)
    limits.participants(1)
    with pytest.raises(RateLimitedError, match="peers of this account"):
        limits.participants(2)


def test_limits_that_are_not_enforced_count_nothing() -> None:
    limits = Limits(LimitsSection(writes_per_minute=1), enforced=False)
    for _ in range(3):
        limits.write("a")
    limits.open_session(10**6)
    limits.participants(10**6)


def test_a_new_token_is_not_shown_by_accident() -> None:
    assert "secret" not in repr(NewSignIn("eip155:1:0xA", 1.0, "secret"))


def test_the_coordinator_starts_without_loading_web3_or_eth_account() -> None:
    code = (
        "import sys, coordinator.app, coordinator.serve;"
        "print([name for name in ('web3', 'eth_account', 'eth_keys', 'eth_abi') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert result.stdout.strip() == "[]"


def test_deeply_nested_json_kills_no_coordinator_that_has_loaded_web3() -> None:
    code = (
        "import asyncio, json;"
        "from coordinator.auth.contract_wallets import ContractWallets;"
        "from coordinator.auth.signatures import SignatureRefusedError, Signatures;"
        "from cotrain.identity.account import Account\n"
        "async def main():\n"
        "    wallets = ContractWallets({'eip155:1': 'http://127.0.0.1:1'})\n"
        "    try:\n"
        "        await Signatures(wallets).check(Account.of('eip155:1', '0x' + '1' * 40), 'text', '0x12',\n"
        "                                        purpose='sign-in', public_key=None)\n"
        "    except SignatureRefusedError as error:\n"
        "        print(error.message)\n"
        "    await wallets.close()\n"
        "asyncio.run(main())\n"
        "try:\n"
        "    json.loads('[' * 100_000)\n"
        "except RecursionError:\n"
        "    print('alive')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    first, second = result.stdout.splitlines()
    assert "the RPC call failed" in first
    assert second == "alive"
