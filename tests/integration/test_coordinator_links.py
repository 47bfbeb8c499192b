"""A node without a wallet is let in by one elsewhere, over REST; and what attackers try."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from coordinator.models import AccountRow, ParticipantRow, SignInRow
from cotrain.identity.account import Account
from cotrain.membership.bond import bond_text, complete_bond, new_terms
from cotrain.membership.document import MembershipDocument, certificate_of
from cotrain.peer_key import PeerSigner
from cotrain.protocol import PROTOCOL_VERSION, RegisterRequest
from cotrain.status import now
from tests.integration.coordinator_fixtures import (
    PEER,
    PEER_ID,
    PUBLIC_URL,
    STRANGER,
    WALLET,
    Client,
    acting_as,
    anonymous,
    bearer,
    coordinator_client,
    count,
    create_session,
    get_json,
    make_peer,
    post_json,
    register,
    registration,
    services,
    settings_for,
    sign_in,
    sign_link,
    until_state,
    waiting_session,
)

LINKS = "/api/v1/links"
DAY_S = 86400


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with coordinator_client(settings_for(tmp_path, link_interval_s=0.0)) as client:
        yield client


class Node:
    """A node without a wallet, as far as it talks to the coordinator before it is let in."""

    def __init__(self, client: Client, session: str, peer: PeerSigner = PEER):
        self.client, self.session, self.peer = client, session, peer
        self.terms = new_terms(PUBLIC_URL, now=now(), lifetime_s=DAY_S)
        self.codes: dict[str, Any] = {}

    def request(self, **changes: Any) -> dict[str, Any]:
        terms = self.terms.model_dump(by_alias=True)
        return {"session": self.session, "peerId": self.peer.peer_id, "name": "attic", "terms": terms} | changes

    async def start(self, **changes: Any) -> Node:
        with anonymous(self.client):
            self.codes = await post_json(self.client, LINKS, self.request(**changes), status=201)
        return self

    async def poll(self, status: int = 200) -> dict[str, Any]:
        with anonymous(self.client):
            return await post_json(self.client, f"{LINKS}/poll", {"deviceCode": self.codes["deviceCode"]}, status)

    def registration(self, state: dict[str, Any], **changes: Any) -> dict[str, Any]:
        account = Account.parse(state["account"])
        text = bond_text(self.terms, account=account, peer_id=self.peer.peer_id, session=self.session)
        bond = complete_bond(self.terms, text, self.peer, signature=state["signature"])
        request = RegisterRequest(peer_id=self.peer.peer_id, bond=bond, name="attic")
        return request.model_dump(mode="json", by_alias=True, exclude_none=True) | changes

    async def register(self, state: dict[str, Any], status: int = 201, **changes: Any) -> dict[str, Any]:
        with acting_as(self.client, self.codes["deviceCode"]):
            path = f"/api/v1/sessions/{self.session}/participants"
            return await post_json(self.client, path, self.registration(state, **changes), status)


async def participants(client: Client, session: str) -> list[dict[str, Any]]:
    return list((await get_json(client, f"/api/v1/sessions/{session}/participants"))["items"])


# ------------------------------------------------------------------------------------------------- as it is meant
async def test_a_wallet_elsewhere_lets_a_node_in_with_one_signature(client: Client) -> None:
    session = await waiting_session(client)
    node = await Node(client, session).start()
    assert node.codes["verificationUri"] == f"{PUBLIC_URL}/link"
    assert node.codes["verificationUriComplete"] == f"{PUBLIC_URL}/link#{node.codes['userCode']}"
    assert node.codes["expiresInS"] == 600
    assert await node.poll() == {"state": "pending", "account": None, "signature": None, "publicKey": None}
    with anonymous(client):
        view = await post_json(client, f"{LINKS}/look", {"userCode": node.codes["userCode"].lower()})
    assert (view["session"], view["sessionName"], view["name"]) == (session, "A Test", "attic")
    assert (view["peerId"], view["coordinator"]) == (PEER_ID, PUBLIC_URL)

    tokens = await count(client, SignInRow)
    await sign_link(client, node.codes["userCode"], STRANGER)
    answer = await node.register(await node.poll())

    assert certificate_of(MembershipDocument.model_validate(answer["membership"])).account == (
        f"eip155:1:{STRANGER.address}"
    )
    (listed,) = await participants(client, session)
    assert (listed["peerId"], listed["account"]) == (PEER_ID, f"eip155:1:{STRANGER.address}")
    assert await count(client, SignInRow) == tokens  # nothing that acts for the account was made
    assert await count(client, AccountRow) == 2
    with acting_as(client, answer["token"]):
        path = f"/api/v1/sessions/{session}/participants/{answer['participant']}/renew"
        await post_json(client, path)


async def test_the_page_is_there(client: Client) -> None:
    async with client.get("/link") as response:
        assert (response.status, response.content_type) == (200, "text/html")
        assert "script-src 'self'" in response.headers["Content-Security-Policy"]
        assert "/static/link.js" in await response.text()


async def test_who_declines_is_done_with_it(client: Client) -> None:
    node = await Node(client, await waiting_session(client)).start()
    with anonymous(client):
        async with client.post(f"{LINKS}/decline", json={"userCode": node.codes["userCode"]}) as response:
            assert response.status == 204
        await post_json(client, f"{LINKS}/look", {"userCode": node.codes["userCode"]}, status=404)
    assert "declined" in (await node.poll(403))["detail"]


async def test_a_private_session_takes_an_invitation_to_ask(client: Client) -> None:
    session = await create_session(client, visibility="private")
    await post_json(client, f"/api/v1/sessions/{session}/start")
    await until_state(client, session, "waiting")
    invited = await post_json(client, f"/api/v1/sessions/{session}/invitations", {}, status=201)
    node = Node(client, session)
    with anonymous(client):
        hidden = await post_json(client, LINKS, node.request(), status=404)
        absent = await post_json(client, LINKS, node.request(session="no-such-session"), status=404)
    assert {**hidden, "requestId": ""} == {**absent, "requestId": ""}
    await node.start(invitation=invited["token"])
    await sign_link(client, node.codes["userCode"], STRANGER)
    await node.register(await node.poll(), invitation=invited["token"])
    await Node(client, session).start()  # though the invitation is used up: this peer has joined


async def test_a_participant_comes_back_by_its_token_and_may_take_another_role(client: Client) -> None:
    session = await waiting_session(client)
    answer = await register(client, session)
    path = f"/api/v1/sessions/{session}/participants/{answer['participant']}/resume"
    with acting_as(client, answer["token"]):
        again = await post_json(client, path, {"role": "contribute", "name": "cellar"})
    assert (again["participant"], again["token"], again["config"]) == (
        answer["participant"], answer["token"], answer["config"],
    )  # fmt: skip
    assert certificate_of(MembershipDocument.model_validate(again["membership"])).role == "contribute"
    (listed,) = await participants(client, session)
    assert listed["name"] == "cellar"
    assert (await post_json(client, path, {}, status=401))["code"] == "not-authorized"  # an account's token is another
    with acting_as(client, answer["token"]):
        assert (await post_json(client, path, {"protocol": PROTOCOL_VERSION + 1}, status=426))["field"] == "protocol"


async def test_no_participant_comes_back_without_a_statement_that_holds(client: Client) -> None:
    session = await waiting_session(client)
    answer = await register(client, session)
    async with services(client).store.write() as transaction:
        await transaction.rows.execute(update(ParticipantRow).values(bond_expires_at=now() - 1))
    path = f"/api/v1/sessions/{session}/participants/{answer['participant']}/resume"
    with acting_as(client, answer["token"]):
        assert "statement" in (await post_json(client, path, {}, status=401))["detail"]


# ------------------------------------------------------------------------------------------------- attacks
async def test_a_code_that_was_guessed_wrong_tells_nothing(client: Client) -> None:
    node = await Node(client, await waiting_session(client)).start()
    right = node.codes["userCode"]
    wrong = ("C" if right[0] == "B" else "B") + right[1:]
    with anonymous(client):
        for route in ("look", "decline"):
            problem = await post_json(client, f"{LINKS}/{route}", {"userCode": wrong}, status=404)
            assert problem["field"] == "userCode"
        chosen = {"userCode": wrong, "address": WALLET.address, "chain": "eip155:1"}
        await post_json(client, f"{LINKS}/statement", chosen, status=404)
        await post_json(client, f"{LINKS}/sign", {**chosen, "signature": "0x00"}, status=404)
    assert (await node.poll())["state"] == "pending"


async def test_a_code_is_used_once(client: Client) -> None:
    session = await waiting_session(client)
    node = await Node(client, session).start()
    await sign_link(client, node.codes["userCode"])
    chosen = {"userCode": node.codes["userCode"], "address": STRANGER.address, "chain": "eip155:1"}
    with anonymous(client):
        await post_json(client, f"{LINKS}/statement", chosen, status=404)
    state = await node.poll()
    await node.register(state)
    assert (await node.register(state, 401))["code"] == "not-authorized"
    await node.poll(404)


async def test_a_strangers_device_code_gets_nothing(client: Client) -> None:
    session = await waiting_session(client)
    node = await Node(client, session).start()
    await sign_link(client, node.codes["userCode"])
    state = await node.poll()
    stranger = Node(client, session)
    for code in (node.codes["userCode"], "x" * 43, ""):
        stranger.codes = {"deviceCode": code}
        await stranger.poll(404)
    stranger.terms, stranger.codes = node.terms, {"deviceCode": "x" * 43}
    await stranger.register(state, 401)
    assert await participants(client, session) == []


async def test_a_device_code_lets_no_other_peer_in_and_into_no_other_session(client: Client) -> None:
    session, elsewhere = await waiting_session(client), await waiting_session(client, "Another Test")
    node = await Node(client, session).start()
    await sign_link(client, node.codes["userCode"])
    state = await node.poll()
    thief = Node(client, session, make_peer("link-thief"))
    thief.codes, thief.terms = node.codes, node.terms
    assert (await thief.register(state, 403))["field"] == "Authorization"
    assert (await thief.register(state, 403, peerId=PEER_ID))["field"] == "bond.peerSignature"
    node.session = elsewhere
    assert (await node.register(state, 403))["field"] == "Authorization"
    node.session = session
    node.terms = new_terms(PUBLIC_URL, now=now(), lifetime_s=DAY_S)
    assert (await node.register(state, 403))["field"] == "Authorization"
    assert await participants(client, session) == []


async def test_a_device_code_does_nothing_else(client: Client) -> None:
    session = await waiting_session(client)
    node = await Node(client, session).start()
    await sign_link(client, node.codes["userCode"])
    with acting_as(client, node.codes["deviceCode"]):
        await post_json(client, "/api/v1/sessions", {"name": "x"}, status=401)
        await post_json(client, f"/api/v1/sessions/{session}/pause", status=401)
        await get_json(client, "/api/v1/auth/me", 401)


async def test_a_node_claims_no_other_account(client: Client) -> None:
    session = await waiting_session(client)
    node = await Node(client, session).start()
    await sign_link(client, node.codes["userCode"], STRANGER)
    state = await node.poll()
    claimed = {**state, "account": f"eip155:1:{WALLET.address}"}
    assert (await node.register(claimed, 403))["field"] == "bond.peerSignature"
    await node.register(state)


async def test_before_a_wallet_has_signed_nobody_is_let_in(client: Client) -> None:
    session = await waiting_session(client)
    node = await Node(client, session).start()
    with acting_as(client, node.codes["deviceCode"]):
        path = f"/api/v1/sessions/{session}/participants"
        assert (await post_json(client, path, registration(session), 401))["code"] == "not-authorized"


async def test_a_signature_of_another_wallet_is_refused(client: Client) -> None:
    node = await Node(client, await waiting_session(client)).start()
    problem = await sign_link(client, node.codes["userCode"], WALLET, status=401, by=STRANGER)
    assert problem["field"] == "signature"
    assert (await node.poll())["state"] == "pending"
    assert await count(client, AccountRow) == 1


@pytest.mark.parametrize(
    ("facts", "field"),
    [
        ({"coordinator": "http://elsewhere.test"}, "terms.coordinator"),
        ({"now": now() - 3 * DAY_S}, "terms.expiresAt"),
        ({"now": now() + DAY_S}, "terms.issuedAt"),
        ({"lifetime_s": 365 * DAY_S}, "terms.expiresAt"),
    ],
)
async def test_terms_that_would_be_refused_later_are_refused_at_once(
    client: Client, facts: dict[str, Any], field: str
) -> None:
    terms = new_terms(**({"coordinator": PUBLIC_URL, "now": now(), "lifetime_s": DAY_S} | facts))
    body = Node(client, await waiting_session(client)).request(terms=terms.model_dump(by_alias=True))
    with anonymous(client):
        assert (await post_json(client, LINKS, body, status=403))["field"] == field


async def test_who_was_removed_is_told_so_before_anybody_signs(client: Client) -> None:
    session = await waiting_session(client)
    with acting_as(client, await sign_in(client, STRANGER)):
        answer = await register(client, session, wallet=STRANGER)
    async with client.delete(f"/api/v1/sessions/{session}/participants/{answer['participant']}") as response:
        assert response.status == 204
    with anonymous(client):
        problem = await post_json(client, LINKS, Node(client, session).request(), status=403)
    assert "removed this account" in problem["detail"]


async def test_who_asks_too_often_is_slowed_down(tmp_path: Path) -> None:
    async with coordinator_client(settings_for(tmp_path)) as client:
        node = await Node(client, await waiting_session(client)).start()
        problem = await node.poll(429)
        assert (problem["code"], problem["retryAfterS"]) == ("rate-limited", 10)


async def test_codes_are_not_guessed_at_any_speed(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    limits = settings.config.limits.model_copy(update={"link_codes_per_minute": 3})
    config = settings.config.model_copy(update={"limits": limits})
    async with coordinator_client(dataclasses.replace(settings, config=config)) as client:
        with anonymous(client):
            for _ in range(3):
                await post_json(client, f"{LINKS}/look", {"userCode": "BCDF-GHJK"}, status=404)
            assert (await post_json(client, f"{LINKS}/look", {"userCode": "BCDF-GHJK"}, status=429))["code"] == (
                "rate-limited"
            )


async def test_no_secret_is_in_the_log(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    node = await Node(client, await waiting_session(client)).start()
    await sign_link(client, node.codes["userCode"], WALLET, status=401, by=STRANGER)
    await sign_link(client, node.codes["userCode"])
    state = await node.poll()
    await node.register(state)
    assert "is refused" in caplog.text
    for secret in (node.codes["deviceCode"], node.codes["userCode"], state["signature"]):
        assert secret not in caplog.text
    assert len(services(client).links) == 0


async def test_another_sites_page_may_not_sign(client: Client) -> None:
    node = await Node(client, await waiting_session(client)).start()
    body = {"userCode": node.codes["userCode"]}
    async with client.post(f"{LINKS}/decline", json=body, headers={"Origin": "http://evil.test"}) as response:
        assert response.status == 403
    assert (await node.poll())["state"] == "pending"
    async with client.post(f"{LINKS}/look", json=body, headers={"Authorization": bearer("unknown")}) as response:
        assert response.status == 200  # whose token comes along plays no part
