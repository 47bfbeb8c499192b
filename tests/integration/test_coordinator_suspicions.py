"""A proof puts a participant out and says why; testimonies and drops are counted by wallet and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cotrain.identity.ethereum import EthereumSigner
from cotrain.membership.document import Trust, certificate_of, read_membership
from cotrain.paths import SharedPaths
from cotrain.protocol import StatusMessage
from cotrain.status import Record, now
from tests.integration.coordinator_fixtures import (
    LIMIT_S,
    STRANGER,
    Client,
    acting_as,
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
    status_of,
    until,
    uplink,
    waiting_session,
    welcomed,
)
from tests.integration.test_coordinator_members import membership, participants

__all__ = ["client"]

WALLETS = [STRANGER, *(EthereumSigner.from_key("0x" + digit * 64) for digit in ("c", "d"))]
WHAT = "signed for an average of part 3 that its inputs do not give"


async def volunteer(client: Client, session: str, number: int, *, wallet: int | None = None) -> dict[str, Any]:
    """Register the peer of this number with the wallet of this number, or another."""
    who = WALLETS[number if wallet is None else wallet]
    with acting_as(client, await sign_in(client, who)):
        answer = await register(client, session, peer=make_peer(f"suspect{number}"), wallet=who)
    return {**answer, "peer": make_peer(f"suspect{number}").peer_id}


def report(root: Path, session: str, accused: dict[str, Any], witness: dict[str, Any], **changes: Any) -> None:
    """What the checkpointer says once it has checked evidence."""
    fields = {
        "event": "judged", "session": session, "accused": accused["peer"], "witness": witness["peer"],
        "verdict": "proof", "round": 7, "what": WHAT,
    }  # fmt: skip
    name = f"report-{changes.get('verdict', 'proof')}-{witness['participant']}"
    (root / f".{name}").write_text(json.dumps({**fields, **changes}))
    (root / f".{name}").rename(root / f"{name}.json")


async def suspicions(client: Client, session: str) -> list[dict[str, Any]]:
    """The coordinator's own records, oldest first."""
    items = (await get_json(client, f"/api/v1/sessions/{session}/logs?limit=200"))["items"][::-1]
    return [item for item in items if item["source"] == "coordinator"]


async def until_told(client: Client, session: str, count: int) -> list[dict[str, Any]]:
    async def told() -> bool:
        return len(await suspicions(client, session)) >= count

    await until(told)
    return await suspicions(client, session)


async def reported(root: Path) -> None:
    """All that was to be reported has been taken by the checkpointer."""
    await until(lambda: not list(root.glob("report-*.json")))


async def test_a_proof_revokes_cuts_off_says_why_and_lets_nobody_in_again(client: Client, tmp_path: Path) -> None:
    session = await waiting_session(client)
    liar, witness = await volunteer(client, session, 0), await volunteer(client, session, 1)
    async with uplink(client, liar) as socket:
        await welcomed(socket)
        report(tmp_path, session, liar, witness)
        message = await socket.receive(timeout=LIMIT_S)
        assert message.type.name in ("CLOSE", "CLOSING", "CLOSED")
    (told,) = await until_told(client, session, 1)
    assert (told["kind"], told["level"]) == ("suspicion", "error")
    assert f"is put out of the session: in round 7 it {WHAT}" in told["message"]
    assert told["data"] | {"removed": True, "held": "proof", "accused": liar["peer"]} == told["data"]

    published = read_membership(SharedPaths(tmp_path).run_dir(session, "checkpointer") / "membership.json")
    trust = Trust(published.issuers)
    for sealed in published.revocations:
        trust.learn_revocations(sealed, session)
    assert trust.revoked == {certificate_of(membership(liar)).serial}

    with acting_as(client, await sign_in(client, WALLETS[0])):
        body = registration(session, peer=make_peer("suspect0"), wallet=WALLETS[0])
        problem = await post_json(client, participants(session), body, status=403)
    assert f"was put out of the session: in round 7 it {WHAT}" in problem["detail"]

    report(tmp_path, session, liar, witness)  # as after a restart of the checkpointer
    report(tmp_path, session, liar, witness, verdict="testimony")
    await reported(tmp_path)
    await volunteer(client, session, 2)
    assert await suspicions(client, session) == [told]


async def test_a_proof_against_a_stranger_or_in_a_session_that_is_gone_changes_nothing(
    client: Client, tmp_path: Path
) -> None:
    session = await waiting_session(client)
    witness = await volunteer(client, session, 1)
    report(tmp_path, session, {"peer": make_peer("nobody").peer_id}, witness)
    await reported(tmp_path)
    report(tmp_path, "no-such-one", witness, witness)
    await reported(tmp_path)
    report(tmp_path, session, witness, witness, verdict="guilty")  # no report at all
    await reported(tmp_path)
    other = await volunteer(client, session, 2)
    report(tmp_path, session, other, witness, verdict="testimony")
    (told,) = await until_told(client, session, 1)
    assert told["data"]["held"] == "testimony"


async def test_testimonies_count_by_wallet_and_revoke_nothing(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    async with coordinator_client(settings) as client:
        session = await waiting_session(client)
        accused, first = await volunteer(client, session, 0), await volunteer(client, session, 1)
        with acting_as(client, await sign_in(client, WALLETS[1])):
            again = await register(client, session, peer=make_peer("second machine"), wallet=WALLETS[1])
        again["peer"] = make_peer("second machine").peer_id
        what = "handed out no inputs of part 3"
        report(tmp_path, session, accused, first, verdict="testimony", what=what)
        (told,) = await until_told(client, session, 1)
        assert f"in round 7 it {what}. That cannot be proved; 1 wallet says such things" in told["message"]
        for witness in (again, accused):  # the same wallet's other machine, and a word against oneself
            report(tmp_path, session, accused, witness, verdict="testimony", what=what)
            await reported(tmp_path)
    async with coordinator_client(settings) as client:  # the count outlives a restart
        report(tmp_path, session, accused, first, verdict="testimony", what=what)
        await reported(tmp_path)
        other = await volunteer(client, session, 2)
        report(tmp_path, session, accused, other, verdict="testimony", what=what)
        told = (await until_told(client, session, 2))[-1]
        assert (told["data"]["witnesses"], told["data"]["removed"]) == (2, False)
        assert len(await suspicions(client, session)) == 2
        assert await volunteer(client, session, 0)  # it is let in as before


@pytest.mark.parametrize(("wallets", "is_told"), [((1, 2), True), ((1, 1), False)], ids=["two wallets", "one wallet"])
async def test_who_is_left_out_again_and_again_is_told_of(
    client: Client, wallets: tuple[int, int], is_told: bool
) -> None:
    session = await waiting_session(client)
    dropped = await volunteer(client, session, 0)
    members = [await volunteer(client, session, number, wallet=wallets[number - 1]) for number in (1, 2)]
    entries = [f"{dropped['peer']}: points away", f"{make_peer('nobody').peer_id}: too long"]
    for member in members:
        async with uplink(client, member) as socket:
            await welcomed(socket)
            records = [
                Record(number=n, time=now(), kind="round", message="closed", data={"round": n, "dropped": entries})
                for n in (1, 2, 4)
            ]
            status = status_of(session, member["peer"], records=records)
            message = StatusMessage(run=status.run, seq=1, status=status)
            await socket.send_str(message.model_dump_json(by_alias=True))
            await receive(socket, "ack")
    told = await suspicions(client, session)
    assert len(told) == int(is_told)
    if is_told:
        data = told[0]["data"]
        assert (data["held"], data["accused"], data["rounds"]) == ("dropped", dropped["peer"], ["1", "2", "4"])
        assert (data["reasons"], data["removed"], len(data["seenBy"])) == (["points away"], False, 2)
        assert "have left it out of their averages in the rounds 1, 2, 4 (points away)" in told[0]["message"]


async def test_a_participant_cannot_write_a_suspicion(client: Client) -> None:
    session = await waiting_session(client)
    member = await volunteer(client, session, 1)
    async with uplink(client, member) as socket:
        await welcomed(socket)
        status = status_of(session, member["peer"]).model_dump(by_alias=True)
        record = {"number": 1, "time": now(), "kind": "suspicion", "message": "it was him", "data": {}}
        await socket.send_json({"type": "status", "run": "run-1", "seq": 1, "status": {**status, "records": [record]}})
        assert "kind" in (await receive(socket, "error"))["message"]
    assert await suspicions(client, session) == []
