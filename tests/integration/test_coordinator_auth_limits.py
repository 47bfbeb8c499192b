"""How often strangers and accounts may ask, over real HTTP."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import aiohttp

from coordinator.config import CoordinatorConfig, LimitsSection, QueueSection, ServerSection, SignInSection
from coordinator.models import AccountRow
from coordinator.settings import Settings
from cotrain.identity.ethereum import EthereumSigner
from tests.integration.coordinator_fixtures import (
    AUTH,
    STRANGER,
    WALLET,
    Client,
    acting_as,
    anonymous,
    ask_challenge,
    client,
    coordinator_client,
    count,
    create_session,
    get_json,
    post_json,
    settings_for,
    sign_in,
    signature_of,
)

__all__ = ["client"]

SESSIONS = "/api/v1/sessions"


def limited(root: Path, *, server: ServerSection = ServerSection(), **limits: Any) -> Settings:  # noqa: B008 - frozen
    changed = CoordinatorConfig(limits=LimitsSection(**limits), server=server)
    return settings_for(root, config=changed)


async def expect_limited(response: aiohttp.ClientResponse) -> None:
    problem = await response.json(content_type=None)
    assert (response.status, problem["code"]) == (429, "rate-limited")
    assert response.content_type == "application/problem+json"
    assert int(response.headers["Retry-After"]) == problem["retryAfterS"] > 0


async def test_challenges_are_limited_by_address(tmp_path: Path) -> None:
    body = {"address": WALLET.address, "chain": "eip155:1"}
    async with coordinator_client(limited(tmp_path, challenges_per_minute=2)) as client:  # one is the client's own
        await ask_challenge(client)
        spoofed = {"X-Forwarded-For": "198.51.100.1"}  # nothing stands in front: this is the client's invention
        for headers in ({}, spoofed):
            async with client.post(f"{AUTH}/challenge", json=body, headers=headers) as response:
                await expect_limited(response)


async def test_previews_are_limited_by_address_and_need_no_sign_in(tmp_path: Path) -> None:
    async with coordinator_client(limited(tmp_path, previews_per_minute=2)) as client:
        with anonymous(client):
            for body, status in (({"name": "x"}, 200), ({}, 422)):  # a wrong one counts, too
                await post_json(client, "/api/v1/configs/preview", body, status=status)
            async with client.post("/api/v1/configs/preview", json={"name": "x"}) as response:
                await expect_limited(response)
        await create_session(client)


async def test_behind_a_proxy_its_own_entry_counts_and_no_other(tmp_path: Path) -> None:
    body = {"address": WALLET.address, "chain": "eip155:1"}
    settings = limited(tmp_path, server=ServerSection(behind_proxy=True), challenges_per_minute=1)
    async with coordinator_client(settings) as client:
        for forwarded, status in (
            ("198.51.100.1", 200), ("203.0.113.9, 198.51.100.1", 429), ("198.51.100.2", 200),
        ):  # fmt: skip
            headers = {"X-Forwarded-For": forwarded}
            async with client.post(f"{AUTH}/challenge", json=body, headers=headers) as response:
                assert response.status == status


async def test_new_accounts_are_limited_and_known_ones_are_not(tmp_path: Path) -> None:
    async with coordinator_client(limited(tmp_path, new_accounts_per_hour=2)) as client:
        await sign_in(client, STRANGER)
        newcomer = EthereumSigner.create()
        challenge = await ask_challenge(client, newcomer.address)
        body = {"nonce": challenge["nonce"], "signature": signature_of(newcomer, challenge["message"])}
        async with client.post(f"{AUTH}/login", json=body) as response:
            await expect_limited(response)
        assert await count(client, AccountRow) == 2
        await sign_in(client, STRANGER)


async def test_changes_are_limited_by_account_and_leaving_is_not(tmp_path: Path) -> None:
    async with coordinator_client(limited(tmp_path, writes_per_minute=2)) as client:
        for _ in range(2):
            await create_session(client)
        async with client.post(SESSIONS, json={"name": "x"}) as response:
            await expect_limited(response)
        await get_json(client, f"{AUTH}/me")
        with acting_as(client, await sign_in(client, STRANGER)):
            await create_session(client)
        async with client.post(f"{AUTH}/logout") as response:
            assert response.status == 204


async def test_open_sessions_are_limited_by_account_until_one_ends(tmp_path: Path) -> None:
    async with coordinator_client(limited(tmp_path, open_sessions_per_account=2)) as client:
        first, _ = [await create_session(client) for _ in range(2)]
        async with client.post(SESSIONS, json={"name": "x"}) as response:
            await expect_limited(response)
        with acting_as(client, await sign_in(client, STRANGER)):
            await create_session(client)
        await post_json(client, f"{SESSIONS}/{first}/cancel")
        await create_session(client)


async def test_only_an_operator_goes_before_the_others(tmp_path: Path) -> None:
    operator = f"eip155:1:{STRANGER.address}"
    config = CoordinatorConfig(
        queue=QueueSection(highest_priority=6), sign_in=SignInSection(operators=(operator,))
    )  # fmt: skip
    async with coordinator_client(settings_for(tmp_path, config=config)) as client:
        await create_session(client, schedule={"priority": 6})
        async with client.post(SESSIONS, json={"name": "x", "schedule": {"priority": 7}}) as response:
            problem = await response.json(content_type=None)
            assert (response.status, problem["code"], problem["field"]) == (403, "forbidden", "schedule.priority")
            assert "above 6" in problem["detail"]
        with acting_as(client, await sign_in(client, STRANGER)):
            await create_session(client, schedule={"priority": 9})
    assert settings_for(tmp_path, config=config).highest_priority == 6
    alone = dataclasses.replace(settings_for(tmp_path, config=config), public_url="http://127.0.0.1:8000")
    assert alone.highest_priority == 9


async def test_limits_hold_on_loopback_only_where_they_are_asked_for(tmp_path: Path) -> None:
    own = dataclasses.replace(limited(tmp_path, challenges_per_minute=1), public_url="http://127.0.0.1:8000")
    async with coordinator_client(own) as client:
        for _ in range(3):
            await ask_challenge(client)
    asked_for = limited(tmp_path, challenges_per_minute=1, on_loopback=True)
    async with coordinator_client(dataclasses.replace(asked_for, public_url="http://127.0.0.1:8000")) as client:
        body = {"address": WALLET.address, "chain": "eip155:1"}
        async with client.post(f"{AUTH}/challenge", json=body) as response:
            await expect_limited(response)


async def test_the_openness_of_reading_does_not_depend_on_a_header(client: Client) -> None:
    session = await create_session(client)
    with anonymous(client):
        async with client.get(f"{SESSIONS}/{session}", headers={"Authorization": "Bearer a-participants"}) as response:
            assert response.status == 200
