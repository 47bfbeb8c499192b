"""Assets: resumed, checked, reused."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cotrain.backoff import Backoff
from cotrain.errors import IntegrityError, UnreachableError
from node.assets import AssetStore
from node.client import CoordinatorClient
from tests.integration.node_fixtures import SESSION, SmallCoordinator, running_coordinator

CONTENT = random.Random(0).randbytes(300_000)
QUICK = Backoff(first_s=0.01, most_s=0.01)


@pytest.fixture
async def coordinator() -> AsyncIterator[SmallCoordinator]:
    async with running_coordinator({"train.safetensors": CONTENT}) as running:
        yield running


@pytest.fixture
async def store(coordinator: SmallCoordinator, tmp_path: Path) -> AsyncIterator[AssetStore]:
    async with CoordinatorClient(coordinator.url) as client:
        yield AssetStore(tmp_path, client, SESSION, "token", backoff=QUICK)


async def test_fetched_once_and_used_again(coordinator: SmallCoordinator, store: AssetStore) -> None:
    sizes: list[int] = []
    path = await store.fetch(coordinator.assets[0], lambda asset, size: sizes.append(size))
    assert path.read_bytes() == CONTENT
    assert sizes == sorted(sizes)
    assert sizes[-1] == len(CONTENT)
    assert await store.fetch(coordinator.assets[0]) == path
    assert coordinator.requests == ["asset"]


async def test_broken_download_goes_on_where_it_broke(coordinator: SmallCoordinator, store: AssetStore) -> None:
    coordinator.cut_after_bytes = [100_000, 50_000]
    path = await store.fetch(coordinator.assets[0])
    assert path.read_bytes() == CONTENT
    assert coordinator.ranges == ["", "bytes=100000-", "bytes=150000-"]
    assert not path.with_name("train.safetensors.part").exists()


async def test_part_of_an_earlier_process_is_continued(
    coordinator: SmallCoordinator, store: AssetStore, tmp_path: Path
) -> None:
    folder = tmp_path / coordinator.assets[0].sha256
    folder.mkdir()
    (folder / "train.safetensors.part").write_bytes(CONTENT[:1234])
    assert (await store.fetch(coordinator.assets[0])).read_bytes() == CONTENT
    assert coordinator.ranges == ["bytes=1234-"]


async def test_corrupt_bytes_are_thrown_away_and_fetched_again(
    coordinator: SmallCoordinator, store: AssetStore
) -> None:
    coordinator.corrupt_downloads = 1
    assert (await store.fetch(coordinator.assets[0])).read_bytes() == CONTENT
    assert coordinator.ranges == ["", ""]


async def test_corrupt_twice_is_refused_and_nothing_kept(
    coordinator: SmallCoordinator, store: AssetStore, tmp_path: Path
) -> None:
    coordinator.corrupt_downloads = 2
    with pytest.raises(IntegrityError, match=r"train\.safetensors"):
        await store.fetch(coordinator.assets[0])
    kept = [path.name for path in (tmp_path / coordinator.assets[0].sha256).iterdir()]
    assert kept == [".train.safetensors.lock"]


async def test_file_that_went_bad_on_disk_is_replaced(coordinator: SmallCoordinator, store: AssetStore) -> None:
    path = await store.fetch(coordinator.assets[0])
    path.write_bytes(bytes(len(CONTENT)))
    assert (await store.fetch(coordinator.assets[0])).read_bytes() == CONTENT
    assert len(coordinator.requests) == 2


async def test_server_that_sends_nothing_is_given_up(coordinator: SmallCoordinator, store: AssetStore) -> None:
    coordinator.cut_after_bytes = [10] + [0] * 10
    with pytest.raises(UnreachableError, match="broke off at 10 of 300000 bytes"):
        await store.fetch(coordinator.assets[0])
    assert len(coordinator.requests) == 6


async def test_nodes_that_share_a_folder_download_once(coordinator: SmallCoordinator, store: AssetStore) -> None:
    paths = await asyncio.gather(*(store.fetch(coordinator.assets[0]) for _ in range(4)))
    assert len(set(paths)) == 1
    assert coordinator.requests == ["asset"]
