"""Signing in to a real coordinator, what a token is good for, who may do what, and how often."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from http.cookies import Morsel
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import update

from coordinator.config import CoordinatorConfig, SignInSection
from coordinator.models import AccountRow, ChallengeRow, SessionRow, SignInRow
from cotrain.status import now
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import (
    AUTH,
    STRANGER,
    WALLET,
    Client,
    acting_as,
    anonymous,
    ask_challenge,
    bearer,
    client,
    coordinator_client,
    count,
    create_session,
    get_json,
    post_json,
    services,
    settings_for,
    sign_in,
    signature_of,
    waiting_session,
)

__all__ = ["client"]

SESSIONS = "/api/v1/sessions"
PUBLIC = "http://coordinator.test"
NAME = f"eip155:1:{WALLET.address}"


def config(**sign_in_fields: Any) -> CoordinatorConfig:
    return CoordinatorConfig(sign_in=SignInSection(**sign_in_fields))


async def log_in(client: Client) -> aiohttp.ClientResponse:
    """A whole sign-in of WALLET; the last answer, read."""
    challenge = await ask_challenge(client)
    body = {"nonce": challenge["nonce"], "signature": signature_of(WALLET, challenge["message"])}
    async with client.post(f"{AUTH}/login", json=body) as response:
        await response.read()
        return response


async def me(client: Client, status: int = 200, **headers: str) -> dict[str, Any]:
    """What /auth/me says to somebody with these headers alone."""
    with anonymous(client):
        async with client.get(f"{AUTH}/me", headers=headers) as response:
            assert response.status == status, await response.text()
            return dict(await response.json(content_type=None))


def cookie_of(response: aiohttp.ClientResponse) -> Morsel[str]:
    (morsel,) = response.cookies.values()
    return morsel


# ------------------------------------------------------------------------------------------------- signing in
async def test_a_wallet_signs_in(client: Client) -> None:
    challenge = await ask_challenge(client)
    lines = challenge["message"].splitlines()
    assert lines[0] == "coordinator.test wants you to sign in with your Ethereum account:"
    assert lines[1] == WALLET.address
    assert f"URI: {PUBLIC}" in lines
    assert f"Nonce: {challenge['nonce']}" in lines
    expires = datetime.fromisoformat(challenge["expiresAt"])
    assert 290 < (expires - datetime.now(UTC)).total_seconds() <= 300
    response = await log_in(client)
    answer = await response.json()
    assert response.headers["Cache-Control"] == "no-store"
    assert set(answer) == {"token", "account", "expiresAt"}
    assert answer["account"] == NAME
    assert await me(client, Authorization=bearer(answer["token"])) == {
        "account": NAME, "operator": False, "expiresAt": answer["expiresAt"],
    }  # fmt: skip
    days = (datetime.fromisoformat(answer["expiresAt"]) - datetime.now(UTC)).total_seconds() / 86400
    assert 6.99 < days <= 7


async def test_the_database_holds_no_token(client: Client, tmp_path: Path) -> None:
    token = await sign_in(client, WALLET)
    files = [tmp_path / f"cotrain.sqlite3{suffix}" for suffix in ("", "-wal")]
    assert not any(token.encode() in path.read_bytes() for path in files)
    async with services(client).store.read() as rows:
        assert await rows.get(SignInRow, hashlib.sha256(token.encode()).hexdigest()) is not None


async def test_an_aptos_wallet_signs_in(client: Client) -> None:
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    address = "0x" + hashlib.sha3_256(public + b"\0").hexdigest()
    challenge = await ask_challenge(client, address, "aptos:1")
    prefix = hashlib.sha3_256(b"SIGN_IN_WITH_APTOS::").digest()
    signature = key.sign(prefix + challenge["message"].encode())
    body = {"nonce": challenge["nonce"], "signature": "0x" + signature.hex(), "publicKey": "0x" + public.hex()}
    assert (await post_json(client, f"{AUTH}/login", body))["account"] == f"aptos:1:{address}"


async def test_two_sign_ins_of_a_wallet_are_one_account_and_two_tokens(client: Client) -> None:
    first, second = await sign_in(client, STRANGER), await sign_in(client, STRANGER)
    assert first != second
    assert await count(client, AccountRow) == 2  # and the client's own
    await me(client, Authorization=bearer(first))
    await me(client, Authorization=bearer(second))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"address": WALLET.address, "chain": "eip155:5"}, "chain"),
        ({"address": WALLET.address, "chain": "bitcoin:1"}, "chain"),
        ({"address": "0x12", "chain": "eip155:1"}, "address"),
        ({"address": WALLET.address, "chain": "aptos:1"}, "address"),
        ({"address": "0x" + "1" * 500, "chain": "eip155:1"}, "address"),
        ({"address": WALLET.address}, "chain"),
        ({"address": WALLET.address, "chain": "eip155:1", "domain": "evil.test"}, "domain"),
    ],
)
async def test_a_wrong_challenge_is_explained(client: Client, body: dict[str, str], field: str) -> None:
    problem = await post_json(client, f"{AUTH}/challenge", body, status=422)
    assert problem["field"] == field
    if body.get("chain") in ("eip155:5", "bitcoin:1"):
        assert problem["allowed"] == ["eip155:1", "aptos:1"]


@pytest.mark.parametrize(
    ("field", "value"), [("signature", "0x" + "0" * 16_384), ("nonce", "0" * 65), ("publicKey", "0" * 201)]
)
async def test_a_field_that_is_too_long_is_refused(client: Client, field: str, value: str) -> None:
    body = {"nonce": "0" * 32, "signature": "0x", field: value}
    assert (await post_json(client, f"{AUTH}/login", body, status=422))["field"] == field


@BOTH
async def test_what_has_expired_is_pruned(client: Client) -> None:
    await ask_challenge(client)
    await sign_in(client, STRANGER)
    async with services(client).store.write() as transaction:
        await transaction.rows.execute(update(ChallengeRow).values(expires_at=now() - 1))
        await transaction.rows.execute(update(SignInRow).values(expires_at=now() - 1))
    await sign_in(client, STRANGER)
    assert (await count(client, ChallengeRow), await count(client, SignInRow)) == (1, 1)


# ------------------------------------------------------------------------------------------------- tokens and cookies
async def test_a_token_ends_when_it_expires(client: Client) -> None:
    token = await sign_in(client, WALLET)
    async with services(client).store.write() as transaction:
        await transaction.rows.execute(update(SignInRow).values(expires_at=now() - 1))
    problem = await me(client, 401, Authorization=bearer(token))
    assert "sign in again" in problem["hint"]


@BOTH
async def test_rotating_ends_the_old_token(client: Client) -> None:
    old = await sign_in(client, WALLET)
    with acting_as(client, old):
        new = await post_json(client, f"{AUTH}/rotate")
    assert new["account"] == NAME
    await me(client, 401, Authorization=bearer(old))
    await me(client, 200, Authorization=bearer(new["token"]))
    with acting_as(client, old):
        await post_json(client, f"{AUTH}/rotate", status=401)
    with anonymous(client):
        await post_json(client, f"{AUTH}/rotate", status=401)


@pytest.mark.parametrize("header", ["Bearer unknown", "Bearer", "Basic abc", "", "Bearer \udcff\udcfe"])
async def test_a_bad_bearer_token_is_a_401_wherever_it_is_read(client: Client, header: str) -> None:
    headers = {"Authorization": header}
    for method, path in (("GET", f"{AUTH}/me"), ("POST", SESSIONS), ("POST", f"{AUTH}/logout")):
        with anonymous(client):
            async with client.request(method, path, headers=headers, json={"name": "x"}) as response:
                assert response.status == 401
                assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_a_cookie_signs_in_a_browser(client: Client) -> None:
    morsel = cookie_of(await log_in(client))
    assert (morsel.key, morsel["path"], morsel["samesite"], morsel["domain"]) == ("cotrain", "/", "Strict", "")
    assert morsel["httponly"]
    assert not morsel["secure"]  # a browser would refuse it over plain HTTP
    assert int(morsel["max-age"]) == 7 * 86400
    cookie = f"cotrain={morsel.value}"
    assert (await me(client, Cookie=cookie))["account"] == NAME
    with anonymous(client):
        async with client.post(SESSIONS, json={"name": "x"}, headers={"Cookie": cookie, "Origin": PUBLIC}) as response:
            assert response.status == 201
            assert (await response.json())["owner"] == NAME


async def test_over_https_the_cookie_is_bound_to_host_and_tls(tmp_path: Path) -> None:
    async with coordinator_client(settings_for(tmp_path, public_url="https://train.example")) as client:
        morsel = cookie_of(await log_in(client))
        assert (morsel.key, morsel["path"], morsel["domain"]) == ("__Host-cotrain", "/", "")
        assert morsel["secure"]
        assert morsel["httponly"]
        await me(client, 401, Cookie=f"cotrain={morsel.value}")
        assert (await me(client, Cookie=f"__Host-cotrain={morsel.value}"))["account"] == NAME


async def test_a_stale_cookie_makes_a_visitor_who_can_read(client: Client) -> None:
    session = await create_session(client)
    headers = {"Cookie": "cotrain=stale"}
    with anonymous(client):
        async with client.get(f"{SESSIONS}/{session}", headers=headers) as response:
            assert response.status == 200
    problem = await me(client, 401, **headers)
    assert problem["detail"] == "nobody is signed in"


async def test_logout_ends_the_cookie_and_a_second_one_is_no_error(client: Client) -> None:
    cookie = f"cotrain={cookie_of(await log_in(client)).value}"
    for _ in range(2):
        with anonymous(client):
            async with client.post(f"{AUTH}/logout", headers={"Cookie": cookie, "Origin": PUBLIC}) as response:
                assert response.status == 204
                assert cookie_of(response)["max-age"] == "0"
        await me(client, 401, Cookie=cookie)
    with anonymous(client):
        async with client.post(f"{AUTH}/logout") as response:
            assert response.status == 204


# ------------------------------------------------------------------------------------------------- who may do what
@pytest.mark.parametrize("action", ["start", "pause", "resume", "stop", "cancel", "delete"])
async def test_visitors_and_strangers_steer_nothing(client: Client, action: str) -> None:
    session = await create_session(client)
    method, path = (
        ("DELETE", f"{SESSIONS}/{session}") if action == "delete" else ("POST", f"{SESSIONS}/{session}/{action}")
    )
    stranger = await sign_in(client, STRANGER)
    for token, status in ((None, 401), (stranger, 403)):
        with acting_as(client, token):
            async with client.request(method, path) as response:
                problem = await response.json(content_type=None)
                assert (response.status, problem["allowed"]) == (status, ["owner", "operator"])
                assert "the session's owner" in problem["detail"]
    assert (await get_json(client, f"{SESSIONS}/{session}"))["status"] == "draft"


async def test_opening_a_session_makes_its_owner(client: Client) -> None:
    with anonymous(client):
        assert (await post_json(client, SESSIONS, {"name": "x"}, status=401))["allowed"] == ["account"]
    session = await create_session(client)
    assert (await get_json(client, f"{SESSIONS}/{session}"))["owner"] == NAME
    assert (await get_json(client, SESSIONS))["items"][0]["owner"] == NAME


async def test_visitors_read_everything_of_a_public_session(client: Client) -> None:
    session = await waiting_session(client)
    rest = ("", "/config", "/progress", "/logs", "/metrics", "/assets", "/participants")
    with anonymous(client):
        for path in (SESSIONS, *(f"{SESSIONS}/{session}{part}" for part in rest)):
            async with client.get(path) as response:
                assert response.status == 200, path


async def test_an_operator_steers_every_session_also_one_without_an_owner(tmp_path: Path) -> None:
    operator = f"eip155:1:{STRANGER.address.lower()}"
    async with coordinator_client(settings_for(tmp_path, config=config(operators=(operator,)))) as client:
        session = await create_session(client)
        async with services(client).store.write() as transaction:
            await transaction.rows.execute(update(SessionRow).values(owner=""))
        await post_json(client, f"{SESSIONS}/{session}/start", status=403)
        token = await sign_in(client, STRANGER)
        assert (await me(client, Authorization=bearer(token)))["operator"] is True
        with acting_as(client, token):
            await post_json(client, f"{SESSIONS}/{session}/cancel")
            async with client.delete(f"{SESSIONS}/{session}") as response:
                assert response.status == 204


async def test_the_same_address_on_another_chain_is_another_account(tmp_path: Path) -> None:
    changed = config(chains=("eip155:1", "eip155:10"))
    async with coordinator_client(settings_for(tmp_path, config=changed)) as client:
        session = await create_session(client)
        challenge = await ask_challenge(client, WALLET.address, "eip155:10")
        body = {"nonce": challenge["nonce"], "signature": signature_of(WALLET, challenge["message"])}
        with acting_as(client, (await post_json(client, f"{AUTH}/login", body))["token"]):
            await post_json(client, f"{SESSIONS}/{session}/start", status=403)
