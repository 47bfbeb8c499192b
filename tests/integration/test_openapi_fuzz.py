"""Schemathesis sends what the OpenAPI document allows and what it forbids to a real coordinator over HTTP.

`COTRAIN_FUZZ_EXAMPLES=100 pytest tests/integration/test_openapi_fuzz.py` tries ten times as much.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import sys
from pathlib import Path

import pytest

from coordinator.config import CoordinatorConfig, LimitsSection
from tests.integration.coordinator_fixtures import coordinator_client, settings_for

SETTINGS = Path(__file__).parents[1] / "schemathesis.toml"
EXAMPLES = int(os.environ.get("COTRAIN_FUZZ_EXAMPLES", "10"))
MOST = 10_000
LIMITS = LimitsSection(
    challenges_per_minute=MOST, new_accounts_per_hour=MOST, writes_per_minute=MOST, open_sessions_per_account=MOST,
    participants_per_account=MOST, logins_per_minute=MOST,
)  # fmt: skip
LIVE = "(stream|events)$"
"""Sockets and endless streams."""
TOKEN_ENDS = "(logout|rotate)$"


@pytest.mark.parametrize(
    ("paths", "least"),
    [
        (("--exclude-path-regex", f"{LIVE}|{TOKEN_ENDS}"), 500),
        (("--include-path-regex", TOKEN_ENDS, "--phases", "coverage,fuzzing"), 10),
    ],
)
async def test_answers_are_as_documented_whatever_is_sent(paths: tuple[str, ...], least: int, tmp_path: Path) -> None:
    settings = dataclasses.replace(settings_for(tmp_path), config=CoordinatorConfig(limits=LIMITS))
    async with coordinator_client(settings) as client:
        url = f"http://127.0.0.1:{client.port}"
        command = [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(SETTINGS), "run", f"{url}/openapi.json",
            "--url", url, "--checks", "all", "--max-examples", str(EXAMPLES), "--seed", "0", "--request-timeout", "20",
            "--header", f"Authorization: {client.session.headers['Authorization']}", *paths,
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=tmp_path
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    told = output.decode(errors="replace")[-20_000:]
    assert process.returncode == 0, told
    generated = re.search(r"(\d+) generated", told)
    assert generated is not None, told
    assert int(generated.group(1)) >= least, told
