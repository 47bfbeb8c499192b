"""The table of attacks on sign-in, each over HTTP against a real coordinator."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from eth_keys.constants import SECPK1_N
from sqlalchemy import func, select, update

from coordinator.models import ChallengeRow, SignInRow
from cotrain.identity.account import Account
from cotrain.identity.text import sign_in_text
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
    get_json,
    services,
    sign_in,
    signature_of,
)

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

__all__ = ["client"]

SESSIONS = "/api/v1/sessions"
PUBLIC = "http://coordinator.test"

Refusal = tuple[int, dict[str, str], dict[str, Any]]


async def log_in(client: Client, body: dict[str, Any]) -> Refusal:
    """Status, headers and body of a login under a request id that is always the same."""
    with anonymous(client):
        async with client.post(f"{AUTH}/login", json=body, headers={"X-Request-Id": "the-same"}) as response:
            answer = dict(await response.json(content_type=None))
    return response.status, {name: value for name, value in response.headers.items() if name != "Date"}, answer


def answer_to(challenge: dict[str, Any], wallet: LocalAccount = WALLET, **changes: Any) -> dict[str, Any]:
    return {"nonce": challenge["nonce"], "signature": signature_of(wallet, challenge["message"]), **changes}


async def expect_refused(client: Client, body: dict[str, Any]) -> None:
    """A 401 that is, to the byte, the one of a nonce that never was; and no token has come of it."""
    before = await count_sign_ins(client)
    refusal = await log_in(client, body)
    assert refusal[0] == 401
    assert refusal[1]["WWW-Authenticate"] == "Bearer"
    assert "Set-Cookie" not in refusal[1]
    assert refusal == await log_in(client, {"nonce": "0" * 32, "signature": "0x"})
    assert await count_sign_ins(client) == before


async def count_sign_ins(client: Client) -> int:
    async with services(client).store.read() as rows:
        return int(await rows.scalar(select(func.count()).select_from(SignInRow)) or 0)


async def change_challenge(client: Client, nonce: str, **values: Any) -> None:
    async with services(client).store.write() as transaction:
        await transaction.rows.execute(update(ChallengeRow).where(ChallengeRow.nonce == nonce).values(**values))


def text_with(challenge: dict[str, Any], **changes: Any) -> str:
    """A sign-in text like the challenge's, made anew with other facts."""
    facts: dict[str, Any] = {
        "domain": "coordinator.test", "uri": PUBLIC, "nonce": challenge["nonce"], "issued_at": now(),
        "expires_at": now() + 300,
    }  # fmt: skip
    chain = changes.pop("chain", "eip155:1")
    return sign_in_text(Account.of(chain, WALLET.address), **{**facts, **changes})


# ------------------------------------------------------------------------------------------------- the signature
async def test_replay(client: Client) -> None:
    body = answer_to(await ask_challenge(client))
    assert (await log_in(client, body))[0] == 200
    await expect_refused(client, body)


async def test_a_failed_try_uses_the_challenge_up(client: Client) -> None:
    challenge = await ask_challenge(client)
    await expect_refused(client, answer_to(challenge, STRANGER))
    await expect_refused(client, answer_to(challenge))


async def test_other_domain(client: Client) -> None:
    challenge = await ask_challenge(client)
    phished = challenge["message"].replace("coordinator.test wants", "coordinator.evil wants")
    assert phished != challenge["message"]
    await expect_refused(client, answer_to(challenge, signature=signature_of(WALLET, phished)))


async def test_other_uri(client: Client) -> None:
    challenge = await ask_challenge(client)
    text = text_with(challenge, uri="http://coordinator.evil")
    await expect_refused(client, answer_to(challenge, signature=signature_of(WALLET, text)))


async def test_other_chain(client: Client) -> None:
    challenge = await ask_challenge(client)
    other = challenge["message"].replace("Chain ID: 1\n", "Chain ID: 10\n")
    assert other != challenge["message"]
    await expect_refused(client, answer_to(challenge, signature=signature_of(WALLET, other)))


async def test_expired(client: Client) -> None:
    challenge = await ask_challenge(client)
    await change_challenge(client, challenge["nonce"], expires_at=now() - 0.001)
    await expect_refused(client, answer_to(challenge))


async def test_not_yet_valid(client: Client) -> None:
    challenge = await ask_challenge(client)
    await change_challenge(client, challenge["nonce"], created_at=now() + 60)
    await expect_refused(client, answer_to(challenge))


async def test_a_later_issued_at_in_the_text(client: Client) -> None:
    challenge = await ask_challenge(client)
    text = text_with(challenge, issued_at=now() + 3600, expires_at=now() + 7200)
    await expect_refused(client, answer_to(challenge, signature=signature_of(WALLET, text)))


@pytest.mark.parametrize("change", ["\n", " ", ".", "\0"])
async def test_altered_text(client: Client, change: str) -> None:
    challenge = await ask_challenge(client)
    signature = signature_of(WALLET, challenge["message"] + change)
    await expect_refused(client, answer_to(challenge, signature=signature))


async def test_another_nonce_of_the_same_wallet(client: Client) -> None:
    first, second = await ask_challenge(client), await ask_challenge(client)
    await expect_refused(client, answer_to(first, nonce=second["nonce"]))


async def test_other_address(client: Client) -> None:
    challenge = await ask_challenge(client, STRANGER.address)
    await expect_refused(client, answer_to(challenge, WALLET))


async def test_high_s_twin(client: Client) -> None:
    challenge = await ask_challenge(client)
    raw = bytes.fromhex(signature_of(WALLET, challenge["message"])[2:])
    high_s = SECPK1_N - int.from_bytes(raw[32:64], "big")
    twin = raw[:32] + high_s.to_bytes(32, "big") + bytes([55 - raw[64]])
    await expect_refused(client, answer_to(challenge, signature="0x" + twin.hex()))


MALFORMED = {
    "empty": "", "only 0x": "0x", "odd digits": "0x1", "no hexadecimal": "0x" + "zz" * 65, "no 0x": "11" * 65,
    "64 bytes": "0x" + "11" * 64, "66 bytes": "0x" + "11" * 66, "zeros": "0x" + "00" * 65, "ones": "0x" + "ff" * 65,
    "v of 2": "0x" + "11" * 64 + "02", "blanks": " " * 132, "digits of another script": "0x" + "١" * 130,
    "as long as may be": "0x" + "1" * 16_382, "a NUL": "0x\0" + "1" * 129,
}  # fmt: skip


@pytest.mark.parametrize("signature", MALFORMED.values(), ids=MALFORMED.keys())
async def test_malformed_signature(client: Client, signature: str) -> None:
    await expect_refused(client, answer_to(await ask_challenge(client), signature=signature))


@pytest.mark.parametrize("nonce", ["", "0", "' OR 1=1 --", "٠" * 32, "0" * 64])
async def test_malformed_nonce(client: Client, nonce: str) -> None:
    await expect_refused(client, answer_to(await ask_challenge(client), nonce=nonce))


async def test_a_nonce_that_no_database_takes(client: Client) -> None:
    async with client.post(f"{AUTH}/login", json=answer_to(await ask_challenge(client), nonce="\0")) as response:
        assert (response.status, (await response.json(content_type=None))["field"]) == (422, "nonce")


@pytest.mark.parametrize("key", [None, "", "0x", "0x" + "11" * 32, "nonsense"])
async def test_malformed_aptos_public_key(client: Client, key: str | None) -> None:
    challenge = await ask_challenge(client, "0x" + "ab" * 32, "aptos:1")
    await expect_refused(client, {"nonce": challenge["nonce"], "signature": "0x" + "11" * 64, "publicKey": key})


@BOTH
async def test_two_logins_race_on_one_nonce(client: Client) -> None:
    body = answer_to(await ask_challenge(client))
    before = await count_sign_ins(client)
    answers = await asyncio.gather(*(client.post(f"{AUTH}/login", json=body) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [401] * 7
    assert await count_sign_ins(client) == before + 1
    for answer in answers:
        answer.release()


@BOTH
async def test_two_rotations_race_on_one_token(client: Client) -> None:
    with acting_as(client, await sign_in(client, WALLET)):
        answers = await asyncio.gather(*(client.post(f"{AUTH}/rotate") for _ in range(4)))
    assert sorted(answer.status for answer in answers) == [200] + [401] * 3
    for answer in answers:
        answer.release()


# ------------------------------------------------------------------------------------------------- tokens and cookies
async def test_stolen_token_after_logout(client: Client) -> None:
    token = await sign_in(client, WALLET)
    thief = {"Authorization": bearer(token)}
    with acting_as(client, token):
        async with client.post(f"{AUTH}/logout") as response:
            assert response.status == 204
    with anonymous(client):
        for headers in (thief, {"Cookie": f"cotrain={token}", "Origin": PUBLIC}):
            async with client.post(SESSIONS, json={"name": "x"}, headers=headers) as response:
                assert response.status == 401
            async with client.get(f"{AUTH}/me", headers=headers) as response:
                assert response.status == 401
            async with client.post(f"{AUTH}/rotate", headers=headers) as response:
                assert response.status == 401


async def change_with(client: Client, headers: dict[str, str]) -> int:
    with anonymous(client):
        async with client.post(SESSIONS, json={"name": "x"}, headers=headers) as response:
            await response.read()
            return response.status


@pytest.mark.parametrize(
    "origin", ["http://evil.test", "https://coordinator.test", "null", "http://coordinator.test.evil"]
)
async def test_cookie_with_foreign_origin(client: Client, origin: str) -> None:
    cookie = f"cotrain={await sign_in(client, WALLET)}"
    assert await change_with(client, {"Cookie": cookie, "Origin": origin}) == 403
    assert await change_with(client, {"Cookie": cookie, "Origin": PUBLIC}) == 201
    assert len((await get_json(client, SESSIONS))["items"]) == 1


async def test_cookie_without_origin(client: Client) -> None:
    cookie = f"cotrain={await sign_in(client, WALLET)}"
    assert await change_with(client, {"Cookie": cookie}) == 403
    for path in ("logout", "rotate"):
        with anonymous(client):
            async with client.post(f"{AUTH}/{path}", headers={"Cookie": cookie}) as response:
                assert response.status == 403
    with anonymous(client):  # nothing has ended
        async with client.get(f"{AUTH}/me", headers={"Cookie": cookie}) as response:
            assert response.status == 200


async def test_a_cookie_on_a_rebound_name_is_refused(client: Client) -> None:
    cookie = f"cotrain={await sign_in(client, WALLET)}"
    headers = {"Cookie": cookie, "Host": "evil.test", "Origin": "http://evil.test"}
    assert await change_with(client, headers) == 403


async def test_a_cookie_does_not_help_a_bad_bearer_token(client: Client) -> None:
    cookie = f"cotrain={await sign_in(client, WALLET)}"
    assert await change_with(client, {"Cookie": cookie, "Origin": PUBLIC, "Authorization": "Bearer x"}) == 401


# ------------------------------------------------------------------------------------------------- headers
async def test_host_header_spoofed(client: Client) -> None:
    body = {"address": WALLET.address, "chain": "eip155:1"}
    for headers in ({"Host": "evil.test"}, {"X-Forwarded-Host": "evil.test", "Forwarded": "host=evil.test"}):
        async with client.post(f"{AUTH}/challenge", json=body, headers=headers) as response:
            assert response.status == 200
            message = (await response.json())["message"]
        assert "evil.test" not in message
        assert message.startswith("coordinator.test wants")
        assert f"URI: {PUBLIC}\n" in message


async def test_forwarded_header_spoofed(client: Client) -> None:
    body = {"address": WALLET.address, "chain": "eip155:1"}
    statuses = []
    for number in range(10):  # the fixture's own sign-in has taken one of ten
        headers = {"X-Forwarded-For": f"198.51.100.{number}", "Forwarded": f"for=198.51.100.{number}"}
        async with client.post(f"{AUTH}/challenge", json=body, headers=headers) as response:
            statuses.append(response.status)
    assert statuses == [200] * 9 + [429]


# ------------------------------------------------------------------------------------------------- what is logged
async def test_the_reason_is_in_the_log_and_secrets_are_not(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    challenge = await ask_challenge(client)
    body = answer_to(challenge, STRANGER)
    await expect_refused(client, body)
    token = await sign_in(client, WALLET)
    assert f"sign-in refused: eip155:1:{WALLET.address}" in caplog.text
    assert "nonce is unknown" in caplog.text
    assert body["signature"][2:] not in caplog.text
    assert token not in caplog.text
