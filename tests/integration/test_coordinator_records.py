"""Records of sessions over real HTTP: what goes to the chain and when, proofs, who sees them, chains that are off."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from coordinator.app import create_app
from coordinator.chain.rpc import ANSWER_TIMEOUT_S
from coordinator.config import CoordinatorConfig
from coordinator.credits import credit_data
from cotrain.chain.config_hash import config_hash
from cotrain.chain.merkle import account_key, session_key
from cotrain.errors import CotrainError
from cotrain.identity.account import Account
from tests.databases import BOTH
from tests.integration.chain_fixtures import Stage, hang, stage
from tests.integration.coordinator_fixtures import (
    REPOSITORY,
    STRANGER,
    WALLET,
    Client,
    acting_as,
    anonymous,
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
    until,
    until_state,
    waiting_session,
    write_checkpointer_status,
)
from tests.integration.test_coordinator_chain_kills import blocks_come

__all__ = ["stage"]

SESSIONS = "/api/v1/sessions"
ALICE, BOB = (str(Account.of("eip155:1", one.address)) for one in (WALLET, STRANGER))
DIGEST = "ab" * 32


@asynccontextmanager
async def recording(stage: Stage, root: Path, **changes: Any) -> AsyncIterator[Client]:
    """A coordinator that records on the stage's chain."""
    config = CoordinatorConfig(chain=stage.section(confirmations=2))
    async with coordinator_client(settings_for(root, config=config, **changes)) as client:
        yield client


async def record_of(client: Client, session: str, status: int = 200) -> dict[str, Any]:
    return await get_json(client, f"{SESSIONS}/{session}/record", status)


async def until_record(client: Client, session: str, wanted: str) -> dict[str, Any]:
    async def reached() -> bool:
        return bool((await record_of(client, session))["status"] == wanted)

    await until(reached)
    return await record_of(client, session)


async def trained(client: Client, root: Path, session: str) -> None:
    """Two wallets have been credited for two rounds, and the checkpointer has said so in its last word alone."""
    await register(client, session)
    body = registration(session, wallet=STRANGER, peer=make_peer("stranger"))
    with acting_as(client, await sign_in(client, STRANGER)):
        await post_json(client, f"{SESSIONS}/{session}/participants", body, status=201)
    one, other = (each["peerId"] for each in (await get_json(client, f"{SESSIONS}/{session}/participants"))["items"])
    said(root, session, {one: 8, other: 16}, {one: 8, "12D3-nobody": 4})


def said(root: Path, session: str, *rounds: dict[str, int]) -> None:
    """The checkpointer's last word: samples by peer, of each round."""
    records = [
        {"number": n, "time": 5.0, "kind": "round", "message": "m", "data": {"round": n, **credit_data(credits)}}
        for n, credits in enumerate(rounds, 1)
    ]
    write_checkpointer_status(root, session, sequence=9, round=len(rounds), records=records, digest=DIGEST)


# ------------------------------------------------------------------------------------------------- what is recorded
@BOTH
async def test_a_session_is_recorded_from_its_opening_to_its_end(
    stage: Stage, tmp_path: Path, database_url: str
) -> None:
    async with recording(stage, tmp_path, database_url=database_url) as client, blocks_come(stage):
        session = await waiting_session(client)
        config = await (await client.get(f"{SESSIONS}/{session}/config")).text()
        opened = await until_record(client, session, "opened")
        assert opened == {
            "sessionId": session, "status": "opened", "chain": stage.node.chain, "contract": stage.registry.address,
            "opener": stage.opener.address, "openTx": opened["openTx"], "closeTx": None,
            "configHash": "0x" + config_hash(config).hex(), "finalDigest": None, "contributionsRoot": None,
            "totalSamples": None, "message": "",
        }  # fmt: skip
        assert (await get_json(client, f"{SESSIONS}/{session}/record/shares"))["items"] == []
        await trained(client, tmp_path, session)
        await post_json(client, f"{SESSIONS}/{session}/stop")
        closed = await until_record(client, session, "closed")
        assert (closed["totalSamples"], closed["finalDigest"]) == (32, "0x" + DIGEST)
        shares = (await get_json(client, f"{SESSIONS}/{session}/record/shares"))["items"]
        assert shares == sorted(
            ({"account": ALICE, "samples": 16}, {"account": BOB, "samples": 16}), key=lambda one: str(one["account"])
        )
        share = await get_json(client, f"{SESSIONS}/{session}/record/shares/{BOB}")
    proof = [bytes.fromhex(one[2:]) for one in share["proof"]]
    held = stage.recorded(session)
    assert "0x" + held.contributions_root.hex() == share["contributionsRoot"] == closed["contributionsRoot"]
    key = session_key(session)
    assert stage.registry.verify(stage.opener, key, account_key(BOB), 16, proof)
    assert not stage.registry.verify(stage.opener, key, account_key(BOB), 17, proof)


@pytest.mark.parametrize("action", ["cancel", "broken"])
async def test_a_session_that_ends_without_a_model_is_closed_with_nothing(
    stage: Stage, tmp_path: Path, action: str
) -> None:
    async with recording(stage, tmp_path) as client, blocks_come(stage):
        session = await create_session(client, action)
        await post_json(client, f"{SESSIONS}/{session}/start")
        if action == "broken":  # it never opened: there is nothing to say
            await until_state(client, session, "failed")
            assert (await record_of(client, session))["status"] == "off"
            return
        await until_state(client, session, "waiting")
        await post_json(client, f"{SESSIONS}/{session}/cancel")
        closed = await until_record(client, session, "closed")
        assert (closed["totalSamples"], closed["finalDigest"]) == (0, "0x" + "00" * 32)
        assert closed["contributionsRoot"] == "0x" + "00" * 32
        await get_json(client, f"{SESSIONS}/{session}/record/shares/{ALICE}", 404)
        await get_json(client, f"{SESSIONS}/{session}/record/shares/nobody", 404)


async def test_a_session_that_was_opened_without_a_chain_is_left_alone(stage: Stage, tmp_path: Path) -> None:
    async with coordinator_client(settings_for(tmp_path)) as client:
        session = await waiting_session(client)
        await post_json(client, f"{SESSIONS}/{session}/pause")
        off = await record_of(client, session)
        assert (off["status"], off["chain"]) == ("off", None)
    async with recording(stage, tmp_path) as client:
        await post_json(client, f"{SESSIONS}/{session}/resume")
        await post_json(client, f"{SESSIONS}/{session}/cancel")
        assert (await record_of(client, session))["status"] == "off"
    assert stage.transactions() == 0


# ------------------------------------------------------------------------------------------------- who sees it
@pytest.mark.parametrize("visibility", ["public", "private"])
async def test_a_record_outlives_its_session_and_is_as_private(stage: Stage, tmp_path: Path, visibility: str) -> None:
    async with recording(stage, tmp_path) as client, blocks_come(stage):
        session = await create_session(client, visibility=visibility)
        await post_json(client, f"{SESSIONS}/{session}/start")
        await until_state(client, session, "waiting")
        await register(client, session)
        (one,) = (await get_json(client, f"{SESSIONS}/{session}/participants"))["items"]
        said(tmp_path, session, {one["peerId"]: 8})
        await post_json(client, f"{SESSIONS}/{session}/stop")
        closed = await until_record(client, session, "closed")
        seen = 200 if visibility == "public" else 404
        paths = [f"{SESSIONS}/{session}/record{rest}" for rest in ("", "/shares", f"/shares/{ALICE}")]
        with anonymous(client):
            for path in paths:
                await get_json(client, path, seen)
        assert (await client.delete(f"{SESSIONS}/{session}")).status == 204
        for path in paths:
            await get_json(client, path, seen)
        if visibility == "public":
            assert await record_of(client, session) == closed
        await record_of(client, "never-was", 404)
    assert stage.recorded(session).closed_at > 0


# ------------------------------------------------------------------------------------------------- off, or down
async def test_a_coordinator_works_the_same_while_the_chain_hangs(stage: Stage, tmp_path: Path) -> None:
    """No call of the node ends before the sessions are where they are to be; nobody but the record waits for it."""
    release = threading.Event()
    async with recording(stage, tmp_path) as client:
        stage.node.interfere = hang(release)
        began = time.monotonic()
        session = await waiting_session(client)
        await post_json(client, f"{SESSIONS}/{session}/cancel")
        other = await waiting_session(client)
        assert time.monotonic() - began < ANSWER_TIMEOUT_S  # who waited for a call would wait so long
        release.set()

        async def says_why() -> bool:
            return "cannot be asked" in (await record_of(client, session))["message"]

        await until(says_why)
        assert (await record_of(client, session))["status"] == "waiting"
        text = await (await client.get("/metrics")).text()
        assert 'cotrain_chain_entries{state="waiting"} 3.0' in text
        (at,) = (line for line in text.splitlines() if line.startswith("cotrain_chain_last_error_timestamp_seconds "))
        assert abs(float(at.split()[1]) - time.time()) < 60
        stage.node.interfere = None
        async with blocks_come(stage):
            await until_record(client, session, "closed")
            await until_record(client, other, "opened")


@pytest.fixture
def locked(stage: Stage) -> Stage:
    """The password of its keystore is another one by now."""
    Path(stage.section().password_file).write_text("another one")
    return stage


async def test_a_key_that_cannot_be_opened_lets_no_coordinator_start(locked: Stage, tmp_path: Path) -> None:
    app = create_app(settings_for(tmp_path, config=CoordinatorConfig(chain=locked.section())))
    runner = web.AppRunner(app)
    with pytest.raises(CotrainError, match="the password is wrong"):
        await runner.setup()
    await runner.cleanup()


def test_without_a_chain_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from tests.integration.coordinator_fixtures import coordinator_client, settings_for, waiting_session\n"
        "heavy = ('web3', 'eth_abi', 'eth_utils', 'coordinator.chain.node', 'coordinator.chain.signer')\n"
        "from aiohttp import web\n"
        "from coordinator.app import create_app\n"
        "async def main():\n"
        "    before = {name for name in heavy if name in sys.modules}\n"
        "    runner = web.AppRunner(create_app(settings_for(Path(sys.argv[1]))))\n"
        "    await runner.setup()\n"
        "    await asyncio.sleep(0.2)\n"
        "    await runner.cleanup()\n"
        "    print(sorted({name for name in heavy if name in sys.modules} - before))\n"
        "asyncio.run(main())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert result.stdout.strip() == "[]"


def test_settings_that_are_half_there_are_refused() -> None:
    with pytest.raises(ValueError, match="contract needs rpc_url and key_file and password_file, too"):
        CoordinatorConfig.model_validate({"chain": {"contract": "0x" + "1" * 40}})
    assert "s3cret" not in repr(CoordinatorConfig.model_validate({"chain": {"rpc_url": "https://rpc.test/s3cret"}}))


async def test_a_stopped_session_counts_what_its_services_stored(stage: Stage, tmp_path: Path) -> None:
    async with recording(stage, tmp_path) as client, blocks_come(stage):
        session = await waiting_session(client)
        await until_record(client, session, "opened")
        assert services(client).recorder.opener == stage.opener.address
        assert sum((await services(client).records.by_state()).values()) == 1
