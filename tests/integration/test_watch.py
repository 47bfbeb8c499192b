"""StatusWatcher on real folders."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cotrain.paths import STATUS_FILE
from cotrain.status import MAX_STATUS_BYTES, replace_file, write_status
from cotrain.watch import StatusChange, StatusWatcher
from tests.integration.node_fixtures import make_status, until


@asynccontextmanager
async def watching(root: Path, *, poll: bool = False) -> AsyncIterator[list[StatusChange]]:
    """The changes so far, with the arrival time of the newest as their own list's order."""
    seen: list[StatusChange] = []

    async def collect() -> None:
        async for change in StatusWatcher(root, poll=poll).changes():
            seen.append(change)

    task = asyncio.create_task(collect())
    try:
        await until(root.is_dir, what="the root")
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def sequences(seen: list[StatusChange]) -> list[tuple[int, bool]]:
    return [(change.status.sequence, change.stale) for change in seen]


def place(root: Path, name: str = "node") -> Path:
    (root / name).mkdir(parents=True, exist_ok=True)
    return root / name / STATUS_FILE


@pytest.mark.parametrize("poll", [False, True])
async def test_what_is_there_then_what_comes(tmp_path: Path, poll: bool) -> None:
    path = place(tmp_path)
    write_status(path, make_status(1))
    async with watching(tmp_path, poll=poll) as seen:
        await until(lambda: sequences(seen) == [(1, False)], what="the present snapshot")
        write_status(path, make_status(2))
        await until(lambda: sequences(seen) == [(1, False), (2, False)], what="the change")
        assert seen[-1].path == path


async def test_folders_and_root_that_appear_later(tmp_path: Path) -> None:
    root = tmp_path / "not" / "there"
    async with watching(root) as seen:
        write_status(place(root, "a/b/c"), make_status(1))
        write_status(place(root, "d"), make_status(7))
        await until(lambda: {number for number, _ in sequences(seen)} == {1, 7}, what="both snapshots")


async def test_latency_is_well_under_200_ms(tmp_path: Path) -> None:
    path = place(tmp_path)
    write_status(path, make_status(0))
    async with watching(tmp_path) as seen:
        await until(lambda: seen, what="the present snapshot")
        delays = []
        for number in range(1, 11):
            began = time.monotonic()
            write_status(path, make_status(number))
            await until(lambda n=number: seen[-1].status.sequence == n, what="the change")
            delays.append(time.monotonic() - began)
        assert sorted(delays)[len(delays) // 2] < 0.15


BROKEN = {
    "partial": b'{"session": "s", "sequ',
    "huge": b" " * (MAX_STATUS_BYTES + 1),
    "nan": make_status(9).model_dump_json(by_alias=True).replace('"loss":null', '"loss":NaN').encode(),
    "not UTF-8": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "list": b"[1, 2]",
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_unreadable_file_leaves_the_last_good_value_marked_stale_once(tmp_path: Path, kind: str) -> None:
    path = place(tmp_path)
    write_status(path, make_status(1))
    async with watching(tmp_path) as seen:
        await until(lambda: seen, what="the present snapshot")
        replace_file(path, BROKEN[kind])
        await until(lambda: sequences(seen)[-1] == (1, True), what="the stale mark")
        replace_file(path, BROKEN[kind])
        write_status(path, make_status(2))
        await until(lambda: sequences(seen)[-1] == (2, False), what="the recovery")
        assert sequences(seen) == [(1, False), (1, True), (2, False)]


async def test_link_and_pipe_are_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "elsewhere.json"
    write_status(secret, make_status(5))
    root = tmp_path / "root"
    place(root, "link").symlink_to(secret)
    os.mkfifo(place(root, "pipe"))
    write_status(place(root, "good"), make_status(1))
    async with watching(root) as seen:
        await until(lambda: seen, what="the good snapshot")
        write_status(place(root, "good"), make_status(2))
        await until(lambda: sequences(seen)[-1] == (2, False), what="the change")
        assert sequences(seen) == [(1, False), (2, False)]


async def test_step_backwards_needs_a_new_run(tmp_path: Path) -> None:
    path = place(tmp_path)
    write_status(path, make_status(5, run="first"))
    async with watching(tmp_path) as seen:
        await until(lambda: seen, what="the present snapshot")
        write_status(path, make_status(3, run="first"))
        write_status(place(tmp_path, "witness"), make_status(1))
        await until(lambda: len(seen) == 2, what="the witness")
        write_status(path, make_status(1, run="second"))
        await until(lambda: len(seen) == 3, what="the new run")
        assert [(change.status.run, change.status.sequence) for change in seen if change.path == path] == [
            ("first", 5), ("second", 1),
        ]  # fmt: skip


async def test_folder_that_vanishes_and_comes_back(tmp_path: Path) -> None:
    path = place(tmp_path)
    write_status(path, make_status(1, run="first"))
    async with watching(tmp_path) as seen:
        await until(lambda: seen, what="the present snapshot")
        shutil.rmtree(path.parent)
        write_status(place(tmp_path), make_status(0, run="second"))
        await until(lambda: len(seen) == 2, what="the new run")
        assert seen[-1].status.run == "second"


async def test_many_files_at_once(tmp_path: Path) -> None:
    paths = [place(tmp_path, f"node-{number}") for number in range(100)]
    async with watching(tmp_path) as seen:
        for path in paths:
            write_status(path, make_status(1))
        await until(lambda: {change.path for change in seen} == set(paths), what="all snapshots")
        assert len(seen) == len(paths)
