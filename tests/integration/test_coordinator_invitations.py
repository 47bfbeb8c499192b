"""Private sessions: to strangers there are none, and invitations let in as many as they say."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import select, update

from coordinator.auth.tokens import token_sha256
from coordinator.config import CoordinatorConfig, SignInSection
from coordinator.models import InvitationRow
from cotrain.identity.ethereum import EthereumSigner
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import (
    LIMIT_S,
    STRANGER,
    WALLET,
    Client,
    acting_as,
    anonymous,
    bearer,
    client,
    coordinator_client,
    create_session,
    get_json,
    make_peer,
    post_json,
    register,
    registration,
    services,
    settings_for,
    sign_in,
    until_state,
    waiting_session,
)

__all__ = ["client"]

SESSIONS = "/api/v1/sessions"
READABLE = ("", "/config", "/progress", "/logs", "/metrics", "/assets", "/participants", "/join.sh", "/events")
INVITATION = "Cotrain-Invitation"


async def private_session(client: Client) -> str:
    """A private session that can be joined."""
    session = await create_session(client, visibility="private")
    await post_json(client, f"{SESSIONS}/{session}/start")
    await until_state(client, session, "waiting")
    return session


async def invite(client: Client, session: str, **wanted: Any) -> dict[str, Any]:
    return await post_json(client, f"{SESSIONS}/{session}/invitations", wanted, status=201)


async def join(client: Client, session: str, status: int = 201, **facts: Any) -> dict[str, Any]:
    """Register STRANGER's peer as STRANGER; `facts` are further fields of the registration."""
    body = registration(session, wallet=STRANGER, peer=make_peer("stranger")) | facts
    with acting_as(client, await sign_in(client, STRANGER)):
        return await post_json(client, f"{SESSIONS}/{session}/participants", body, status=status)


async def answers(client: Client, session: str, **headers: str) -> list[tuple[int, dict[str, Any]]]:
    """Status and problem of everything that can be asked about a session without changing it."""
    found = []
    for path in (*(f"{SESSIONS}/{session}{part}" for part in READABLE), f"/s/{session}"):
        async with client.get(path, headers=headers, allow_redirects=False) as response:
            problem = await response.json(content_type=None) if response.status >= 400 else {}
            found.append((response.status, {**problem, "requestId": ""}))
    return found


def everything_in(folder: Path) -> bytes:
    """What the database has written, its log included."""
    return b"".join(file.read_bytes() for file in sorted(folder.glob("cotrain.sqlite3*")))


def refusals(found: list[tuple[int, dict[str, Any]]]) -> set[int]:
    return {status for status, _ in found if status >= 400}


def listed(page: dict[str, Any]) -> list[str]:
    return [item["id"] for item in page["items"]]


# ---------------------------------------------------------------------------------------------- who sees it
@BOTH
async def test_to_strangers_a_private_session_is_not_there(client: Client) -> None:
    """No answer differs from the one about a session that there is not, whoever asks and whatever they bring."""
    session = await private_session(client)
    with anonymous(client):
        nowhere = await answers(client, "no-such-one")
        assert refusals(nowhere) == {404}
        assert await answers(client, session) == nowhere
        assert await answers(client, session, **{INVITATION: "x" * 43}) == nowhere
        assert await answers(client, session, Authorization=bearer("y" * 43)) == nowhere
        assert listed(await get_json(client, SESSIONS)) == []
    with acting_as(client, await sign_in(client, STRANGER)):
        assert await answers(client, session) == nowhere
        assert listed(await get_json(client, SESSIONS)) == []


async def test_strangers_change_nothing_there_and_learn_nothing_by_trying(client: Client) -> None:
    session = await private_session(client)
    tries = [
        ("POST", ""), ("DELETE", ""), ("POST", "/start"), ("POST", "/cancel"), ("POST", "/invitations"),
        ("GET", "/invitations"), ("DELETE", "/invitations/i-1"), ("POST", "/participants/p-1/renew"),
        ("DELETE", "/participants/p-1"), ("GET", "/participants/p-1/stream"),
    ]  # fmt: skip

    async def tried(session: str) -> list[tuple[int, dict[str, Any]]]:
        found = []
        for method, part in tries:
            async with client.request(method, f"{SESSIONS}/{session}{part}", json={}) as response:
                found.append((response.status, {**await response.json(content_type=None), "requestId": ""}))
        return found

    for token in (None, await sign_in(client, STRANGER), "z" * 43):
        with acting_as(client, token):
            assert await tried(session) == await tried("no-such-one")
    absent = await join(client, "no-such-one", status=404)
    assert {**await join(client, session, status=404), "requestId": absent["requestId"]} == absent
    assert {**await join(client, session, status=404, invitation="x"), "requestId": absent["requestId"]} == absent
    assert (await get_json(client, f"{SESSIONS}/{session}"))["status"] == "waiting"


async def test_its_owner_sees_and_joins_it_and_an_operator_sees_it(tmp_path: Path) -> None:
    sign_ins = SignInSection(operators=(f"eip155:1:{STRANGER.address}",))
    async with coordinator_client(settings_for(tmp_path, config=CoordinatorConfig(sign_in=sign_ins))) as client:
        session, public = await private_session(client), await create_session(client)
        assert (await get_json(client, f"{SESSIONS}/{session}"))["visibility"] == "private"
        assert (await get_json(client, f"{SESSIONS}/{public}"))["visibility"] == "public"
        await register(client, session)
        for token in (await sign_in(client, WALLET), await sign_in(client, STRANGER)):
            with acting_as(client, token):
                assert listed(await get_json(client, SESSIONS)) == [public, session]
                parts = [part for part in READABLE if part != "/events"]
                for part in parts:
                    async with client.get(f"{SESSIONS}/{session}{part}") as response:
                        assert response.status == 200, part


async def test_files_of_a_private_session_are_kept_by_no_proxy(client: Client) -> None:
    session = await private_session(client)
    answer = await register(client, session)
    path = f"{SESSIONS}/{session}/assets/{answer['assets'][0]['sha256']}"
    with anonymous(client):
        await get_json(client, path, status=404)
        async with client.get(path, headers={"Authorization": bearer(answer["token"])}) as response:
            assert response.status == 200
            assert response.headers["Cache-Control"].startswith("private")


# ---------------------------------------------------------------------------------------------- invitations
@BOTH
async def test_a_token_lets_its_bearer_read_and_join(client: Client) -> None:
    session = await private_session(client)
    made = await invite(client, session)
    assert (made["uses"], made["used"], made["wallet"]) == (1, 0, None)
    assert made["joinCommand"].endswith(f"/s/{session}#invitation={made['token']}'")
    with anonymous(client):
        async with client.get(f"{SESSIONS}/{session}", headers={INVITATION: made["token"]}) as response:
            assert response.status == 200
    answer = await join(client, session, invitation=made["token"])
    with acting_as(client, await sign_in(client, STRANGER)):  # from now on it is in by its wallet
        assert (await get_json(client, f"{SESSIONS}/{session}/participants"))["items"][0]["id"] == answer["participant"]
        assert listed(await get_json(client, SESSIONS)) == [session]
    with anonymous(client):
        assert refusals(await answers(client, session, **{INVITATION: made["token"]})) == {404}
    await join(client, session)  # a node that registers again needs no second use
    (kept,) = (await get_json(client, f"{SESSIONS}/{session}/invitations"))["items"]
    assert kept == {key: value for key, value in made.items() if key not in ("token", "joinCommand")} | {"used": 1}


async def test_the_token_is_kept_as_a_hash_only(client: Client, tmp_path: Path) -> None:
    session = await private_session(client)
    headers = {"Idempotency-Key": "one"}
    path = f"{SESSIONS}/{session}/invitations"
    tokens = []
    for _ in range(2):  # also by what is kept for a repeated request
        async with client.post(path, json={}, headers=headers) as response:
            tokens.append((await response.json())["token"])
    assert tokens[0] == tokens[1]
    async with services(client).store.read() as rows:
        assert list(await rows.scalars(select(InvitationRow.token_sha256))) == [token_sha256(tokens[0])]
    assert tokens[0].encode() not in everything_in(tmp_path)


@BOTH
async def test_five_at_once_with_two_uses_let_exactly_two_in(client: Client) -> None:
    session = await private_session(client)
    token = (await invite(client, session, uses=2))["token"]
    wallets = [EthereumSigner.from_key("0x" + f"{number:02x}" * 32) for number in range(1, 6)]
    signed_in = [await sign_in(client, wallet) for wallet in wallets]
    bodies = [
        registration(session, wallet=wallet, peer=make_peer(f"racer-{number}")) | {"invitation": token}
        for number, wallet in enumerate(wallets)
    ]

    async def race(number: int) -> tuple[int, str]:
        headers = {"Authorization": bearer(signed_in[number])}
        async with client.post(
            f"{SESSIONS}/{session}/participants", json=bodies[number], headers=headers
        ) as response:  # fmt: skip
            return response.status, (await response.json(content_type=None)).get("field", "")

    results = sorted(await asyncio.gather(*map(race, range(5))))
    assert results == [(201, ""), (201, ""), (403, "invitation"), (403, "invitation"), (403, "invitation")]
    assert len((await get_json(client, f"{SESSIONS}/{session}/participants"))["items"]) == 2
    assert (await get_json(client, f"{SESSIONS}/{session}/invitations"))["items"][0]["used"] == 2


async def test_an_invitation_ends_when_it_says_and_when_its_owner_says(client: Client) -> None:
    session = await private_session(client)
    ends = datetime.now(UTC) + timedelta(hours=1)
    timed = await invite(client, session, uses=5, expiresAt=ends.isoformat())
    assert datetime.fromisoformat(timed["expiresAt"]) == ends.replace(microsecond=ends.microsecond // 1000 * 1000)
    async with services(client).store.write() as transaction:
        await transaction.rows.execute(update(InvitationRow).values(expires_at=1.0))
    assert (await join(client, session, status=403, invitation=timed["token"]))["field"] == "invitation"
    with anonymous(client):
        assert refusals(await answers(client, session, **{INVITATION: timed["token"]})) == {404}
    other = await invite(client, session)
    for status in (204, 404):
        async with client.delete(f"{SESSIONS}/{session}/invitations/{other['id']}") as response:
            assert response.status == status
    await join(client, session, status=404, invitation=other["token"])
    assert listed(await get_json(client, f"{SESSIONS}/{session}/invitations")) == [timed["id"]]


async def test_a_token_of_another_session_opens_nothing(client: Client) -> None:
    session, other = await private_session(client), await private_session(client)
    token = (await invite(client, other))["token"]
    await join(client, session, status=404, invitation=token)
    with anonymous(client):
        assert refusals(await answers(client, session, **{INVITATION: token})) == {404}


@BOTH
async def test_a_wallet_on_the_list_is_in_without_a_token(client: Client) -> None:
    session = await private_session(client)
    wallet = f"eip155:1:{STRANGER.address.lower()}"
    made = await invite(client, session, wallet=wallet)
    assert (made["token"], made["expiresAt"], made["wallet"]) == (None, None, f"eip155:1:{STRANGER.address}")
    assert (await invite(client, session, wallet=wallet))["id"] == made["id"]
    token = await sign_in(client, STRANGER)
    with acting_as(client, token):
        assert listed(await get_json(client, SESSIONS)) == [session]
    answer = await join(client, session)
    # removed by the owner, it is out, and it is told why if it tries again
    async with client.delete(f"{SESSIONS}/{session}/participants/{answer['participant']}") as response:
        assert response.status == 204
    with acting_as(client, token):
        await get_json(client, f"{SESSIONS}/{session}", status=404)
        assert listed(await get_json(client, SESSIONS)) == []
    assert "removed this account" in (await join(client, session, status=403))["detail"]


async def test_the_invited_do_not_invite(client: Client) -> None:
    session = await private_session(client)
    await invite(client, session, wallet=f"eip155:1:{STRANGER.address}")
    with acting_as(client, await sign_in(client, STRANGER)):
        problem = await post_json(client, f"{SESSIONS}/{session}/invitations", {}, status=403)
        assert problem["allowed"] == ["owner", "operator"]
        await get_json(client, f"{SESSIONS}/{session}/invitations", status=403)


async def test_invitations_are_listed_in_pages(client: Client) -> None:
    session = await private_session(client)
    made = [(await invite(client, session, uses=number))["id"] for number in range(1, 4)]
    path = f"{SESSIONS}/{session}/invitations?limit=2"
    first = await get_json(client, path)
    rest = await get_json(client, f"{path}&cursor={first['nextCursor']}")
    assert (listed(first) + listed(rest), rest["nextCursor"]) == (made, None)


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"uses": 0}, "uses"),
        ({"uses": "2"}, "uses"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
        ({"expiresAt": "9999-12-31T23:59:59-14:00"}, "expiresAt"),
        ({"expiresAt": "2030-01-01T00:00:00"}, "expiresAt"),
        ({"expiresAt": "tomorrow"}, "expiresAt"),
        ({"wallet": "0x1"}, "wallet"),
        ({"wallet": f"eip155:1:{STRANGER.address}", "uses": 3}, "wallet"),
        ({"visits": 3}, "visits"),
    ],
)
async def test_wrong_invitations_are_refused(client: Client, wanted: dict[str, Any], field: str) -> None:
    session = await private_session(client)
    problem = await post_json(client, f"{SESSIONS}/{session}/invitations", wanted, status=422)
    assert problem["field"] == field
    assert (await get_json(client, f"{SESSIONS}/{session}/invitations"))["items"] == []


async def test_a_public_session_takes_no_invitations(client: Client) -> None:
    session = await waiting_session(client)
    assert (await post_json(client, f"{SESSIONS}/{session}/invitations", {}, status=409))["code"] == "conflict"
    await join(client, session, invitation="whatever")  # and minds none that is brought


async def test_an_uplink_to_a_private_session_takes_the_participants_token(client: Client) -> None:
    session = await private_session(client)
    answer = await register(client, session)
    path = f"{SESSIONS}/{session}/participants/{answer['participant']}/stream"
    with anonymous(client):
        async with client.ws_connect(path, headers={"Authorization": bearer(answer["token"])}) as socket:
            await socket.send_json({"type": "hello"})
            assert (await socket.receive_json(timeout=LIMIT_S))["type"] == "welcome"
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(path, headers={"Authorization": bearer("w" * 43)})
        assert refused.value.status == 401
