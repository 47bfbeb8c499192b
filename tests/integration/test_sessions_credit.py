"""`cotrain sessions credit`: what wallets are credited with, as the coordinator's rounds bear it out."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.integration.coordinator_fixtures import coordinator_for_nodes, create_session, services
from tests.integration.test_coordinator_contributors import give
from tests.integration.test_sessions_cli import Shell

ALICE, BOB = "eip155:1:0x" + "a" * 40, "aptos:1:0x" + "b" * 64


async def test_wallets_are_listed_with_what_verified_rounds_credit_them(tmp_path: Path) -> None:
    async with coordinator_for_nodes(tmp_path / "coordinator") as client:
        session = await create_session(client, "Tales", data={"seqLength": 10})
        await give(client, session, "p1", ALICE, 5, name="Ada")
        await give(client, session, "p2", ALICE, 6, name="attic")
        await give(client, session, "p3", BOB, 40, name="Bo\x1b[2J")
        await give(client, session, "p4", BOB, 1000, removed_at=5.0)
        shell = Shell(tmp_path / "home", services(client).settings.public_url)

        listed = await asyncio.to_thread(shell.run, "credit", session, "--coordinator", shell.url)
        assert (listed.code, listed.err) == (0, "")
        header, *rows = [line.split() for line in listed.out.splitlines()]
        assert header == ["WALLET", "SAMPLES", "TOKENS", "ROUNDS", "NAMES"]
        assert [row[:4] for row in rows] == [[BOB, "40", "400", "2"], [ALICE, "11", "110", "4"]]
        assert "\x1b" not in listed.out

        told = await asyncio.to_thread(shell.run, "credit", f"{shell.url}/s/{session}", "--json")
        assert [(one["account"], one["samples"], one["tokens"], one["rounds"]) for one in told.lines()] == [
            (BOB, 40, 400, 2), (ALICE, 11, 110, 4),
        ]  # fmt: skip


async def test_a_session_that_is_not_there_has_no_credit(tmp_path: Path) -> None:
    async with coordinator_for_nodes(tmp_path / "coordinator") as client:
        shell = Shell(tmp_path / "home", services(client).settings.public_url)
        ended = await asyncio.to_thread(shell.run, "credit", "nowhere", "--coordinator", shell.url)
        assert ended.code == 66
        assert "no such session" in ended.err
