"""From a session that trains to a proof of who gave how much: coordinator, chain and command line together."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.integration.chain_fixtures import chain_stage
from tests.integration.coordinator_fixtures import post_json, waiting_session
from tests.integration.test_coordinator_chain_kills import blocks_come
from tests.integration.test_coordinator_records import ALICE, BOB, SESSIONS, recording, trained, until_record
from tests.integration.test_sessions_cli import Shell


async def test_a_wallet_proves_what_it_gave_after_the_session_and_the_coordinator_are_gone(tmp_path: Path) -> None:
    shell, share, credit = Shell(tmp_path / "home", ""), tmp_path / "share.json", tmp_path / "credit.json"
    with chain_stage(tmp_path) as stage:
        async with recording(stage, tmp_path / "coordinator") as client, blocks_come(stage):
            session = await waiting_session(client)
            address = str(client.make_url(f"/s/{session}"))
            early = await asyncio.to_thread(shell.execute, "chain", "verify", address, ALICE)
            assert (early.code, early.out) == (1, "")
            assert "is not closed on its chain" in early.err

            await trained(client, tmp_path / "coordinator", session)
            await post_json(client, f"{SESSIONS}/{session}/stop")
            await until_record(client, session, "closed")
            listed = await asyncio.to_thread(shell.run, "credit", address, "--json")
            assert {one["account"]: one["samples"] for one in listed.lines()} == {ALICE: 16, BOB: 16}
            for command in (("share", address, ALICE, "--out", str(share)), ("credit", address, "--out", str(credit))):
                saved = await asyncio.to_thread(shell.execute, "chain", *command)
                assert saved.code == 0, saved.err

        asked = ("--rpc", stage.node.url, "--opener", stage.opener.address, "--json")
        for file, wallet in ((share, ALICE), (credit, ALICE), (credit, BOB)):
            proved = await asyncio.to_thread(shell.execute, "chain", "verify", str(file), wallet, *asked)
            facts = proved.json()
            assert (facts["account"], facts["samples"], facts["provedBy"]) == (wallet, 16, "chain")
            assert facts["record"]["totalSamples"] == 32
        share.write_text(share.read_text().replace('"samples": 16', '"samples": 17'))
        forged = await asyncio.to_thread(shell.execute, "chain", "verify", str(share), ALICE, *asked)
        assert forged.code == 1
