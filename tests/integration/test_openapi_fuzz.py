"""Schemathesis sends what the OpenAPI document allows and what it forbids to a real coordinator over HTTP.

`make test` tries a few requests of each kind, `make fuzz` at least 5,000 in all.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import sys
from pathlib import Path

import pytest

from coordinator.config import CoordinatorConfig, LimitsSection, QueueSection
from cotrain.request import HIGHEST_PRIORITY
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import coordinator_client, settings_for

SETTINGS = Path(__file__).parents[1] / "schemathesis.toml"
MOST = 10_000
LIMITS = LimitsSection(
    challenges_per_minute=MOST, previews_per_minute=MOST, logins_per_minute=MOST, new_accounts_per_hour=MOST,
    writes_per_minute=MOST, links_per_minute=MOST, link_codes_per_minute=MOST, chats_per_minute=MOST,
    open_sessions_per_account=MOST, participants_per_account=MOST, catalog_entries_per_account=MOST,
)  # fmt: skip
QUEUE = QueueSection(under_way=MOST, under_way_per_account=MOST, highest_priority=HIGHEST_PRIORITY)
LIVE = "(stream|events)$"
"""Sockets and endless streams."""
TOKEN_ENDS = "(logout|rotate)$"
ALL_ELSE = ("--exclude-path-regex", f"{LIVE}|{TOKEN_ENDS}")
ENDING = ("--include-path-regex", TOKEN_ENDS, "--phases", "coverage,fuzzing")
SHORT, LONG = 5, 100
"""Requests of each kind that are made up for an operation, besides those at the edges of its schema."""
HOUR_S = 3600

pytestmark = pytest.mark.timeout(HOUR_S)


async def send(root: Path, database_url: str, examples: int, *selection: str) -> int:
    """Run Schemathesis with all checks; returns how many requests it made up. Fails with what it has found."""
    config = CoordinatorConfig(limits=LIMITS, queue=QUEUE)
    settings = dataclasses.replace(settings_for(root, database_url=database_url), config=config)
    async with coordinator_client(settings) as client:
        url = f"http://127.0.0.1:{client.port}"
        command = [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(SETTINGS), "run", f"{url}/openapi.json",
            "--url", url, "--checks", "all", "--max-examples", str(examples), "--seed", "0", "--request-timeout", "20",
            "--continue-on-failure", "--generation-database", "none", "--no-color",
            "--header", f"Authorization: {client.session.headers['Authorization']}", *selection,
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=root,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks"},
        )  # fmt: skip
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    told = output.decode(errors="replace")
    (root / "schemathesis.txt").write_text(told)
    assert process.returncode == 0, told[-20_000:]
    generated = re.search(r"(\d[\d,]*) generated", told)
    assert generated is not None, told[-20_000:]
    return int(generated.group(1).replace(",", ""))


@BOTH
async def test_answers_are_as_documented_whatever_is_sent(database_url: str, tmp_path: Path) -> None:
    assert await send(tmp_path, database_url, SHORT, *ALL_ELSE) >= 500


async def test_answers_are_as_documented_also_where_a_token_ends(database_url: str, tmp_path: Path) -> None:
    assert await send(tmp_path, database_url, SHORT, *ENDING) >= 10


@pytest.mark.long
async def test_answers_are_as_documented_for_thousands_of_requests(database_url: str, tmp_path: Path) -> None:
    assert await send(tmp_path, database_url, LONG, *ALL_ELSE) >= 5000
