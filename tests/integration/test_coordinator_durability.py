"""On both databases: what the coordinator has answered outlives `kill -9`, and is there once."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from pathlib import Path

import aiohttp
import pytest

from coordinator.database import URL_VARIABLE
from tests.databases import BOTH
from tests.integration.coordinator_fixtures import WALLET, bearer, sign_in
from tests.integration.test_coordinator_restart import SESSIONS, serving

KILLS = (1, 10)
"""After how many answers it is killed, each time."""
POSTERS = 4


class Load:
    """People who open sessions, one after another, each request with a key of its own."""

    def __init__(self, http: aiohttp.ClientSession, url: str, process: subprocess.Popen[str], kill_after: int):
        self._http, self._url = http, url
        self._process, self._kill_after = process, kill_after
        self.asked: list[str] = []
        self.answered: dict[str, str] = {}

    async def run(self) -> None:
        """Until the coordinator is gone."""
        await asyncio.gather(*(self._post(number) for number in range(POSTERS)))

    async def _post(self, poster: int) -> None:
        with contextlib.suppress(aiohttp.ClientError):
            for number in range(self._kill_after + 1):
                key = f"{self._kill_after}-{poster}-{number}"
                self.asked.append(key)
                self.answered[key] = await open_session(self._http, self._url, key)
                if len(self.answered) >= self._kill_after:
                    self._process.kill()


async def open_session(http: aiohttp.ClientSession, url: str, key: str) -> str:
    """The new session's id, or the one that was opened with this key."""
    headers = {"Idempotency-Key": key}
    async with http.post(f"{url}{SESSIONS}", json={"name": key}, headers=headers) as response:
        assert response.status == 201, await response.text()
        return str((await response.json())["id"])


async def stored_sessions(http: aiohttp.ClientSession, url: str) -> dict[str, str]:
    """Names by id."""
    async with http.get(f"{url}{SESSIONS}?limit=200") as response:
        return {item["id"]: item["name"] for item in (await response.json())["items"]}


@BOTH
async def test_killed_at_once_after_an_answer_it_has_kept_it(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, database_url)
    asked: list[str] = []
    answered: dict[str, str] = {}
    token = ""
    for kill_after in (*KILLS, None):
        with serving(tmp_path) as (process, url):
            async with aiohttp.ClientSession() as http:
                token = token or await sign_in(http, WALLET, base=url)
                http.headers["Authorization"] = bearer(token)  # that it was given is one of the acknowledged writes
                stored = await stored_sessions(http, url)
                assert set(answered.values()) <= set(stored)
                assert sorted(stored.values()) == sorted(set(stored.values()))
                # whoever got no answer asks again; whoever did gets the same one
                for key in asked:
                    again = await open_session(http, url, key)
                    assert answered.setdefault(key, again) == again
                stored = await stored_sessions(http, url)
                assert sorted(stored.values()) == sorted(asked)
                if kill_after is not None:
                    load = Load(http, url, process, kill_after)
                    await load.run()
                    asked += load.asked
                    answered |= load.answered
                    assert len(load.answered) >= kill_after
