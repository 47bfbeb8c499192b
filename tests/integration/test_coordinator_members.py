"""Registration as attackers try it, and what becomes of certificates: renewed, revoked, published."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from coordinator.config import CoordinatorConfig, LimitsSection
from cotrain.identity.ethereum import EthereumSigner
from cotrain.membership.document import MembershipDocument, Trust, certificate_of, read_membership
from cotrain.membership.issuer import Issuer
from cotrain.membership.sealed import MembershipError
from cotrain.paths import SharedPaths
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import (
    LIMIT_S,
    PEER_ID,
    STRANGER,
    WALLET,
    Client,
    acting_as,
    anonymous,
    bearer,
    client,
    coordinator_client,
    get_json,
    make_peer,
    post_json,
    receive,
    register,
    registration,
    settings_for,
    sign_in,
    status_message,
    until,
    uplink,
    waiting_session,
    welcomed,
)

__all__ = ["client"]

BYSTANDER = EthereumSigner.from_key("0x" + "c3" * 32)


def participants(session: str, *rest: str) -> str:
    return "/".join(["/api/v1/sessions", session, "participants", *rest])


async def refused(client: Client, session: str, body: dict[str, Any], status: int) -> dict[str, Any]:
    problem = await post_json(client, participants(session), body, status=status)
    assert (await get_json(client, participants(session)))["items"] == []
    return problem


async def delete(client: Client, path: str, token: str | None = None) -> int:
    headers = {} if token is None else {"Authorization": bearer(token)}
    async with client.delete(path, headers=headers) as response:
        return response.status


def membership(answer: dict[str, Any]) -> MembershipDocument:
    return MembershipDocument.model_validate(answer["membership"])


async def test_a_registered_peer_has_a_certificate_that_others_can_check_offline(client: Client) -> None:
    session = await waiting_session(client)
    answer = await register(client, session)
    document = membership(answer)
    certificate = Trust(document.issuers).check(
        document.credential, peer_id=PEER_ID, session=session, now=time.time(), coordinator_seen_at=time.time()
    )
    assert certificate.account == f"eip155:1:{WALLET.address}"
    assert certificate.role == "reduce"
    (listed,) = (await get_json(client, participants(session)))["items"]
    assert (listed["peerId"], listed["account"]) == (PEER_ID, certificate.account)


async def test_nobody_registers_without_a_sign_in(client: Client) -> None:
    session = await waiting_session(client)
    with anonymous(client):
        problem = await refused(client, session, registration(session), 401)
    assert problem["code"] == "not-authorized"


@BOTH
async def test_a_statement_serves_once_even_when_it_comes_twice_at_the_same_time(client: Client) -> None:
    session = await waiting_session(client)
    body = registration(session)

    async def send() -> int:
        async with client.post(participants(session), json=body) as response:
            return response.status

    assert sorted(await asyncio.gather(*(send() for _ in range(5)))) == [201, 401, 401, 401, 401]


async def test_a_statement_of_another_wallet_is_refused_like_a_replayed_one(client: Client) -> None:
    """Signed in as himself, a thief brings what somebody else has signed, or signs for a peer that is not his."""
    session = await waiting_session(client)
    thief = await sign_in(client, STRANGER)
    with acting_as(client, thief):
        problem = await refused(client, session, registration(session), 403)
        assert problem["field"] == "bond.peerSignature"
        own_words = registration(session, wallet=STRANGER)
        foreign_signature = registration(session)["bond"]["signature"]
        own_words["bond"]["signature"] = foreign_signature
        wrong_signature = await refused(client, session, own_words, 401)
        replayed = await refused(client, session, own_words, 401)
    assert {k: v for k, v in wrong_signature.items() if k != "requestId"} == {
        k: v for k, v in replayed.items() if k != "requestId"
    }


@pytest.mark.parametrize(
    ("facts", "field"),
    [
        ({"coordinator": "http://elsewhere.test"}, "bond.coordinator"),
        ({"session": "another-one"}, "bond.peerSignature"),
        ({"now": time.time() - 3 * 86400, "lifetime_s": 86400}, "bond.expiresAt"),
        ({"now": time.time() + 86400}, "bond.issuedAt"),
        ({"lifetime_s": 365 * 86400}, "bond.expiresAt"),
    ],
)
async def test_a_statement_for_elsewhere_or_another_time_is_refused(
    client: Client, facts: dict[str, Any], field: str
) -> None:
    session = await waiting_session(client)
    body = registration(**({"session": session} | facts))
    assert (await refused(client, session, body, 403))["field"] == field


async def test_a_peer_id_copied_from_another_is_not_registered(client: Client) -> None:
    session = await waiting_session(client)
    body = registration(session, peer=make_peer("thief")) | {"peerId": PEER_ID}
    assert (await refused(client, session, body, 403))["field"] == "bond.peerSignature"


async def test_a_peer_of_one_account_is_not_taken_over_by_another(client: Client) -> None:
    """Whoever has the peer's key and another wallet does not inherit what the peer has done."""
    session = await waiting_session(client)
    await register(client, session)
    with acting_as(client, await sign_in(client, STRANGER)):
        problem = await post_json(client, participants(session), registration(session, wallet=STRANGER), status=409)
    assert problem["field"] == "peerId"
    (listed,) = (await get_json(client, participants(session)))["items"]
    assert listed["account"] == f"eip155:1:{WALLET.address}"


async def test_one_account_does_not_flood_a_session_with_peers(tmp_path: Path) -> None:
    limits = LimitsSection(participants_per_account=2, on_loopback=True, writes_per_minute=1000)
    settings = settings_for(tmp_path, config=CoordinatorConfig(limits=limits))
    async with coordinator_client(settings) as client:
        session = await waiting_session(client)
        for name in ("one", "two"):
            await register(client, session, peer=make_peer(name))
        await register(client, session, peer=make_peer("two"))  # a known one may come again
        body = registration(session, peer=make_peer("three"))
        async with client.post(participants(session), json=body) as response:
            assert response.status == 429
            assert int(response.headers["Retry-After"]) > 0


# ---------------------------------------------------------------------------------------------- certificates
@BOTH
async def test_a_certificate_is_renewed_by_the_participants_own_token_only(client: Client) -> None:
    session = await waiting_session(client)
    answer = await register(client, session)
    path = participants(session, answer["participant"], "renew")
    async with client.post(path, headers={"Authorization": bearer(answer["token"])}) as response:
        assert response.status == 200
        renewed = membership(await response.json())
    assert certificate_of(renewed).serial != certificate_of(membership(answer)).serial
    await post_json(client, path, status=401)  # the account's sign-in is another thing
    with anonymous(client):
        await post_json(client, path, status=401)
    async with client.post(path, headers={"Authorization": bearer("x" * 43)}) as response:
        assert response.status == 401


async def test_no_certificate_outlives_the_wallets_statement(client: Client) -> None:
    session = await waiting_session(client)
    answer = await register(client, session, lifetime_s=2)
    certificate = certificate_of(membership(answer))
    assert certificate.expires_at - certificate.issued_at <= 2
    await until(lambda: time.time() > certificate.expires_at + 1)
    path = participants(session, answer["participant"], "renew")
    async with client.post(path, headers={"Authorization": bearer(answer["token"])}) as response:
        assert response.status == 401
        assert "statement" in (await response.json())["detail"]


@BOTH
async def test_a_removed_participant_is_revoked_cut_off_and_not_let_in_again(client: Client, tmp_path: Path) -> None:
    session = await waiting_session(client)
    thief_peer = make_peer("removed")
    token = await sign_in(client, STRANGER)
    with acting_as(client, token):
        answer = await register(client, session, peer=thief_peer, wallet=STRANGER)
        path = participants(session, answer["participant"])
    bystander = await register(client, session)
    async with uplink(client, answer) as socket:
        await welcomed(socket)
        with acting_as(client, await sign_in(client, BYSTANDER)):
            assert await delete(client, path) == 403
        with anonymous(client):
            assert await delete(client, path) == 401
        assert await delete(client, path, bystander["token"]) == 401
        assert await delete(client, path) == 204  # by the session's owner
        message = await socket.receive(timeout=LIMIT_S)
        assert message.type.name in ("CLOSE", "CLOSING", "CLOSED")
    serial = certificate_of(membership(answer)).serial
    published = read_membership(SharedPaths(tmp_path).run_dir(session, "checkpointer") / "membership.json")
    trust = Trust(published.issuers)
    for sealed in published.revocations:
        trust.learn_revocations(sealed, session)
    assert serial in trust.revoked
    with pytest.raises(MembershipError, match="revoked"):
        trust.check(
            membership(answer).credential, peer_id=thief_peer.peer_id, session=session, now=time.time(),
            coordinator_seen_at=time.time(),
        )  # fmt: skip
    with acting_as(client, token):
        body = registration(session, peer=thief_peer, wallet=STRANGER)
        problem = await post_json(client, participants(session), body, status=403)
        assert "removed" in problem["detail"]
    later = membership(await register(client, session, peer=make_peer("later")))
    newcomer = Trust(later.issuers)
    for sealed in later.revocations:
        newcomer.learn_revocations(sealed, session)
    assert newcomer.revoked == {serial}


async def test_a_participant_leaves_by_its_token_or_its_wallet_and_may_come_back(client: Client) -> None:
    session = await waiting_session(client)
    answer = await register(client, session)
    path = participants(session, answer["participant"])
    assert await delete(client, path, answer["token"]) == 204
    assert await delete(client, path, answer["token"]) == 401  # the token has ended
    again = await register(client, session)
    assert again["participant"] == answer["participant"]
    with acting_as(client, await sign_in(client, STRANGER)):
        theirs = await register(client, session, peer=make_peer("theirs"), wallet=STRANGER)
        assert await delete(client, participants(session, theirs["participant"])) == 204
        await register(client, session, peer=make_peer("theirs"), wallet=STRANGER)
    assert await delete(client, participants(session, "p-unknown")) == 404


async def test_a_participant_cannot_act_as_another(client: Client) -> None:
    """Its own token opens neither the other's uplink nor its certificate, lets it not leave, and speaks not for it."""
    session = await waiting_session(client)
    mine = await register(client, session, peer=make_peer("mine"))
    victim = await register(client, session)
    headers = {"Authorization": bearer(mine["token"])}
    path = participants(session, victim["participant"])
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await client.ws_connect(f"{path}/stream", headers=headers)
    assert refusal.value.status == 401
    async with client.post(f"{path}/renew", headers=headers) as response:
        assert response.status == 401
    assert await delete(client, path, mine["token"]) == 401
    async with uplink(client, mine) as socket:
        await welcomed(socket)
        await socket.send_str(status_message(session, 1))  # of the victim's peer
        assert "peer" in (await receive(socket, "error"))["message"]
    listed = {row["id"]: row for row in (await get_json(client, participants(session)))["items"]}
    assert listed[victim["participant"]]["status"] is None
    assert listed[victim["participant"]]["state"] == "offline"


async def test_the_checkpointer_gets_a_certificate_that_only_observes(client: Client, tmp_path: Path) -> None:
    session = await waiting_session(client)
    document = read_membership(SharedPaths(tmp_path).run_dir(session, "checkpointer") / "membership.json")
    certificate = certificate_of(document)
    assert (certificate.role, certificate.session, certificate.account) == ("observe", session, "coordinator")
    assert document.issuers == Issuer(tmp_path / "keys", now=time.time()).public_keys(time.time())


async def test_certificates_survive_a_restart_and_a_rotation_of_the_key(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    async with coordinator_client(settings) as client:
        session = await waiting_session(client)
        before = membership(await register(client, session))
    Issuer(tmp_path / "keys", now=time.time()).rotate(now=time.time() + 1)
    async with coordinator_client(settings) as client:
        after = membership(await register(client, session, peer=make_peer("second")))
    assert after.issuers[0] == before.issuers[0]
    assert len(after.issuers) == 2
    trust = Trust(before.issuers)  # a peer from before the rotation
    trust.check(
        after.credential, peer_id=make_peer("second").peer_id, session=session, now=time.time() + 1,
        coordinator_seen_at=time.time(),
    )  # fmt: skip
