"""A real coordinator serves files: ranges, conditions, rates; and a node that is killed goes on where it was."""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from coordinator.config import CoordinatorConfig, JoinSection, LimitsSection
from coordinator.models import SessionRow
from cotrain.protocol import Asset
from node.assets import AssetStore
from node.client import CoordinatorClient
from tests.integration.coordinator_fixtures import (
    Client,
    anonymous,
    bearer,
    coordinator_client,
    get_json,
    register,
    services,
    settings_for,
    waiting_session,
)

RATE = 200_000
CONTENT = random.Random(0).randbytes(RATE + RATE // 2)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TAG = f'"{SHA256}"'
ASSET = Asset(name="train.safetensors", sha256=SHA256, size_bytes=len(CONTENT))
LIMITS = LimitsSection(asset_bytes_per_s=RATE, on_loopback=True)
FETCH = """
import asyncio, sys
from pathlib import Path
from cotrain.protocol import Asset
from node.assets import AssetStore
from node.client import CoordinatorClient
url, session, token, asset, folder = sys.argv[1:]
async def main():
    async with CoordinatorClient(url) as client:
        await AssetStore(Path(folder), client, session, token).fetch(Asset.model_validate_json(asset))
asyncio.run(main())
"""


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    config = CoordinatorConfig(limits=LIMITS, join=JoinSection(package="/srv/cotrain-1.0.whl"))
    async with coordinator_client(settings_for(tmp_path / "shared", config=config)) as client:
        yield client


@pytest.fixture
async def session(client: Client, tmp_path: Path) -> str:
    """One that can be joined, and whose nodes need CONTENT."""
    session = await waiting_session(client)
    (tmp_path / ASSET.name).write_bytes(CONTENT)
    async with services(client).store.write() as transaction:
        facts: dict[str, Any] = {"assets": [ASSET.model_dump(by_alias=True)], "asset_folder": str(tmp_path)}
        await transaction.rows.execute(update(SessionRow).where(SessionRow.id == session).values(**facts))
    return session


def path_of(session: str) -> str:
    return f"/api/v1/sessions/{session}/assets/{SHA256}"


async def ask(
    client: Client, session: str, method: str = "GET", **headers: str
) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body; `_` in a header's name stands for `-`."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.request(method, path_of(session), headers=given) as response:
        return response.status, response.headers, await response.read()


async def test_a_whole_file_may_be_kept_for_ever(client: Client, session: str) -> None:
    status, headers, body = await ask(client, session)
    assert (status, body) == (200, CONTENT)
    assert (headers["ETag"], headers["Cache-Control"]) == (TAG, "public, max-age=31536000, immutable")
    assert (headers["Accept-Ranges"], headers["Content-Type"]) == ("bytes", "application/octet-stream")
    assert headers["Content-Disposition"] == 'attachment; filename="train.safetensors"'
    assert (await ask(client, session, If_None_Match=TAG))[::2] == (304, b"")
    assert (await ask(client, session, If_None_Match='"other"', Range="bytes=-1"))[0] == 206


@pytest.mark.parametrize(
    ("wanted", "begin", "end"), [("bytes=100-199", 100, 200), ("bytes=-5", -5, None), ("bytes=299000-", 299000, None)]
)
async def test_a_range_is_that_part(client: Client, session: str, wanted: str, begin: int, end: int | None) -> None:
    status, headers, body = await ask(client, session, Range=wanted)
    assert (status, body) == (206, CONTENT[begin:end])
    first = begin % len(CONTENT)
    assert headers["Content-Range"] == f"bytes {first}-{first + len(body) - 1}/{len(CONTENT)}"
    assert headers["ETag"] == TAG


async def test_a_range_of_another_file_is_answered_with_the_whole(client: Client, session: str) -> None:
    assert (await ask(client, session, Range="bytes=9-", If_Range=TAG))[0] == 206
    status, _, body = await ask(client, session, Range="bytes=9-", If_Range='"other"')
    assert (status, body) == (200, CONTENT)


async def test_bytes_behind_the_end_are_refused(client: Client, session: str) -> None:
    async with client.get(path_of(session), headers={"Range": f"bytes={len(CONTENT)}-"}) as response:
        assert response.status == 416
        assert response.headers["Content-Range"] == f"bytes */{len(CONTENT)}"
        problem = await response.json(content_type=None)
    assert (problem["field"], problem["sizeBytes"]) == ("Range", len(CONTENT))


async def test_head_has_the_headers_alone(client: Client, session: str) -> None:
    status, headers, body = await ask(client, session, "HEAD", Range="bytes=0-9")
    assert (status, headers["Content-Length"], body) == (206, "10", b"")


async def test_a_file_that_is_gone_is_not_found(client: Client, session: str, tmp_path: Path) -> None:
    (tmp_path / ASSET.name).unlink()
    assert (await get_json(client, path_of(session), status=404))["field"] == "sha256"


async def test_a_file_that_is_cut_short_closes_the_connection(client: Client, session: str, tmp_path: Path) -> None:
    """What was announced and cannot be sent is never passed off as whole."""
    async with client.get(path_of(session)) as response:
        with (tmp_path / ASSET.name).open("r+b") as file:
            file.truncate(RATE)
        with pytest.raises(Exception, match=r"payload|closed|reset"):
            await response.read()


# ---------------------------------------------------------------------------------------------- rates
async def fetched_in_s(client: Client, session: str, token: str, times: int) -> float:
    """How long so many downloads beside each other take."""
    begin = time.monotonic()
    answers = await asyncio.gather(*(ask(client, session, Authorization=bearer(token)) for _ in range(times)))
    assert all(body == CONTENT for _, _, body in answers)
    return time.monotonic() - begin


async def test_downloads_of_one_participant_share_its_rate(client: Client, session: str) -> None:
    token = (await register(client, session))["token"]
    # a second's worth goes at once: 1.5 files of it are left
    assert await fetched_in_s(client, session, token, 2) >= 1.9


async def test_whoever_has_another_token_has_a_rate_of_its_own(client: Client, session: str) -> None:
    token = (await register(client, session))["token"]
    with anonymous(client):
        begin = time.monotonic()
        await ask(client, session, Range=f"bytes=0-{RATE - 1}", Authorization=bearer(token))
        await ask(client, session, Range=f"bytes=0-{RATE - 1}", Authorization=bearer("made up"))
        saved_up_s = time.monotonic() - begin
        # what is made up counts under the address, which has used what it had
        await ask(client, session, Range=f"bytes=0-{RATE // 2 - 1}", Authorization=bearer("made up, too"))
    assert saved_up_s < 0.9
    assert time.monotonic() - begin >= saved_up_s + 0.4


# ---------------------------------------------------------------------------------------------- nodes
async def test_a_node_that_is_killed_goes_on_where_it_was(client: Client, session: str, tmp_path: Path) -> None:
    token = (await register(client, session))["token"]
    url, folder = f"http://127.0.0.1:{client.port}", tmp_path / "node"
    part = folder / SHA256 / f"{ASSET.name}.part"
    command = [sys.executable, "-c", FETCH, url, session, token, ASSET.model_dump_json(by_alias=True), str(folder)]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        async with asyncio.timeout(20):
            while not part.exists() or part.stat().st_size < RATE:
                assert process.returncode is None
                await asyncio.sleep(0.01)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    kept = part.stat().st_size
    assert RATE <= kept < len(CONTENT)
    sizes: list[int] = []
    async with CoordinatorClient(url) as node:
        store = AssetStore(folder, node, session, token)
        path = await store.fetch(ASSET, lambda _asset, size: sizes.append(size))
    assert path.read_bytes() == CONTENT
    assert sizes[0] > kept


async def test_the_script_joins_this_session_with_the_operators_package(client: Client, session: str) -> None:
    with anonymous(client):
        async with client.get(f"/api/v1/sessions/{session}/join.sh") as response:
            assert (response.status, response.content_type) == (200, "text/x-shellscript")
            script = await response.text()
    assert script.startswith("#!/bin/sh\n")
    assert f"session_url=http://coordinator.test/s/{session}\n" in script
    assert "package=/srv/cotrain-1.0.whl\n" in script
    await get_json(client, "/api/v1/sessions/nowhere/join.sh", status=404)
