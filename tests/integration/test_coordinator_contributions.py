"""What participants are credited for, over real HTTP: what the checkpointer records, each round once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import update

from coordinator.checkpointer_messages import Saved
from coordinator.credits import credit_data
from coordinator.models import ParticipantRow
from cotrain.paths import SharedPaths
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import (
    STRANGER,
    Client,
    acting_as,
    client,
    coordinator_client,
    get_json,
    make_peer,
    post_json,
    register,
    registration,
    services,
    settings_for,
    sign_in,
    status_message,
    until,
    until_state,
    uplink,
    waiting_session,
    welcomed,
    write_checkpointer_status,
)
from tests.integration.registry_fixtures import MODELS, SESSIONS, report

__all__ = ["client"]


def recorded(round_: int, credits: dict[str, int] | None, *, number: int | None = None) -> dict[str, Any]:
    """The checkpointer's record of a round; None: it has not followed it by its decision."""
    data = {"round": round_, "samples": 8 * round_, **credit_data(credits)}
    return {"number": number or round_, "time": 5.0, "kind": "round", "message": "m", "data": data}


async def told(client: Client, root: Path, session: str, sequence: int, **status: Any) -> None:
    """The checkpointer's snapshot has been applied."""
    write_checkpointer_status(root, session, sequence=sequence, **status)

    async def applied() -> bool:
        page = await get_json(client, f"{SESSIONS}/{session}/participants")
        return bool(page["checkpointer"]["round"] == status["round"])

    await until(applied)


async def credited(client: Client, session: str) -> dict[str, tuple[int, int]]:
    """Samples and rounds by peer."""
    page = await get_json(client, f"{SESSIONS}/{session}/participants")
    return {one["peerId"]: (one["credit"]["samples"], one["credit"]["rounds"]) for one in page["items"]}


async def two_peers(client: Client, session: str) -> tuple[str, str]:
    """Peer ids of two participants of two wallets."""
    await register(client, session)
    body = registration(session, wallet=STRANGER, peer=make_peer("stranger"))
    with acting_as(client, await sign_in(client, STRANGER)):
        await post_json(client, f"{SESSIONS}/{session}/participants", body, status=201)
    page = await get_json(client, f"{SESSIONS}/{session}/participants")
    first, second = (one["peerId"] for one in page["items"])
    return first, second


@BOTH
async def test_each_round_is_credited_once_whatever_is_started_again(tmp_path: Path, database_url: str) -> None:
    settings = settings_for(tmp_path, database_url=database_url)
    async with coordinator_client(settings) as client:
        session = await waiting_session(client)
        one, other = await two_peers(client, session)
        assert await credited(client, session) == {one: (0, 0), other: (0, 0)}
        first = [recorded(1, {one: 8, other: 16}), recorded(2, {one: 8, "12D3-nobody": 4})]
        await told(client, tmp_path, session, 1, run="first", round=2, records=first)
        assert await credited(client, session) == {one: (16, 2), other: (16, 1)}
        third = recorded(3, {other: 5})
        await told(client, tmp_path, session, 2, run="first", round=3, records=[*first, third])
    async with coordinator_client(settings) as client:
        # the checkpointer goes on from an older checkpoint, and from there with a download
        again = [recorded(2, {one: 8}, number=1), recorded(3, {other: 5}, number=2), recorded(6, None, number=3)]
        await told(client, tmp_path, session, 1, run="second", round=6, records=again)
        await told(
            client, tmp_path, session, 2, run="second", round=7, records=[*again, recorded(7, {one: 1}, number=4)]
        )
        assert await credited(client, session) == {one: (17, 3), other: (21, 2)}


@BOTH
async def test_a_version_names_who_gave_something_and_says_what_is_not_known(client: Client, tmp_path: Path) -> None:
    """Of two that say they trained, the one that was in the averages is named; what was saved last counts, too."""
    for name, records, expected, uncredited in (
        ("known", [recorded(1, {"?": 8}), recorded(2, {"?": 4})], [(12, 2)], 0),
        ("partly", [recorded(1, {"?": 8}), recorded(2, None)], [(8, 1), (0, 0)], 1),
    ):
        session = await waiting_session(client, name)
        one, _ = await two_peers(client, session)
        async with uplink(client, await register(client, session)) as socket:
            await welcomed(socket)
            await socket.send_str(status_message(session, 1))
            await until_state(client, session, "training")
        async with services(client).store.write() as transaction:  # the other one says so, too
            said = {"step": 4, "tokens": 1_000_000}
            everybody = update(ParticipantRow).where(ParticipantRow.session_id == session)
            await transaction.rows.execute(everybody.values(status=said))
        for each in records:
            if "credits" in each["data"]:
                each["data"]["credits"] = [text.replace("?", one) for text in each["data"]["credits"]]
        write_checkpointer_status(tmp_path, session, sequence=9, round=2, records=records)
        final = SharedPaths(tmp_path).final_model(session)
        await report(client, Saved(session=session, path=str(final), round=2))
        version = (await get_json(client, f"{MODELS}/{name}"))["items"][0]
        assert version["uncreditedRounds"] == uncredited
        assert [(who["samples"], who["rounds"]) for who in version["contributors"]] == expected
    compared = await get_json(client, f"{MODELS}/compare?ids=known,partly")
    assert [one["uncreditedRounds"] for one in compared["versions"]] == [0, 1]
