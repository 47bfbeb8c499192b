"""Files that a run needs, fetched by content hash: resumed where they broke off, and never used unchecked."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import aiohttp

from cotrain.backoff import Backoff
from cotrain.errors import IntegrityError, UnreachableError
from cotrain.protocol import Asset
from node.client import CoordinatorClient

_CHUNK_BYTES = 1 << 20
_LOCK_POLL_S = 0.1
_STALLS_ALLOWED = 5
_BACKOFF = Backoff(first_s=0.5, most_s=8.0)

OnProgress = Callable[[Asset, int], None]
"""Told of an asset and how many of its bytes are here."""


class AssetStore:
    """A folder of assets, `<folder>/<sha256>/<name>`; several processes may use it at once.

    Args:
        folder: SharedPaths.processed_datasets.
        client: an open client of the coordinator.
        session: whose assets are fetched.
        token: the participant's.
    """

    def __init__(
        self, folder: Path, client: CoordinatorClient, session: str, token: str, *, backoff: Backoff = _BACKOFF
    ):  # fmt: skip
        self._folder = folder
        self._client = client
        self._session = session
        self._token = token
        self._backoff = backoff

    async def fetch(self, asset: Asset, on_progress: OnProgress = lambda asset, size: None) -> Path:
        """The asset's file, checked against its size and hash; what is there already is used again.

        Raises IntegrityError if the coordinator sends other bytes twice, UnreachableError if it stalls 5
        times in a row, NotFoundError if it does not know the asset, OSError if the disk is full.
        """
        path = self._folder / asset.sha256 / asset.name
        path.parent.mkdir(parents=True, exist_ok=True)
        async with _locked(path.with_name(f".{asset.name}.lock")):
            if await asyncio.to_thread(matches, path, asset):
                on_progress(asset, asset.size_bytes)
                return path
            path.unlink(missing_ok=True)
            part = path.with_name(f"{asset.name}.part")
            for _ in range(2):
                await self._download(asset, part, on_progress)
                if await asyncio.to_thread(matches, part, asset):
                    os.replace(part, path)
                    return path
                part.unlink()
        raise IntegrityError(
            "the coordinator sent bytes that do not have the announced hash, twice", field=asset.name,
            hint="tell the operator of the session; nothing was kept",
        )  # fmt: skip

    async def _download(self, asset: Asset, part: Path, on_progress: OnProgress) -> None:
        """Fill `part` up to the announced size, going on where it breaks off."""
        stalls = 0
        while not _is_complete(part, asset):
            before = _size(part)
            try:
                await self._append_rest(asset, part, on_progress)
                reason = "the connection was closed early"
            except (aiohttp.ClientError, TimeoutError, UnreachableError) as error:
                reason = str(error) or type(error).__name__
            stalls = 0 if _size(part) > before else stalls + 1
            if stalls >= _STALLS_ALLOWED:
                raise UnreachableError(
                    f"the download broke off at {_size(part)} of {asset.size_bytes} bytes: {reason}",
                    field=asset.name, hint="run the same command again: it goes on from there",
                )  # fmt: skip
            if not _is_complete(part, asset):
                await asyncio.sleep(self._backoff.delay_s(stalls))

    async def _append_rest(self, asset: Asset, part: Path, on_progress: OnProgress) -> None:
        offset = _size(part)
        async with self._client.open_asset(self._session, asset.sha256, self._token, offset=offset) as response:
            resumed = response.status == 206 and _range_start(response) == offset
            with part.open("ab" if resumed else "wb") as file:
                size = offset if resumed else 0
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    await asyncio.to_thread(file.write, chunk)
                    size += len(chunk)
                    on_progress(asset, min(size, asset.size_bytes))
                    if size > asset.size_bytes:  # the hash cannot match any more
                        return


def matches(path: Path, asset: Asset) -> bool:
    """Whether the file is there and has the asset's size and SHA-256. Reads all of it."""
    if not path.is_file() or path.is_symlink() or path.stat().st_size != asset.size_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == asset.sha256


def _is_complete(part: Path, asset: Asset) -> bool:
    return part.exists() and part.stat().st_size >= asset.size_bytes


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _range_start(response: aiohttp.ClientResponse) -> int:
    """The first byte of `Content-Range: bytes 100-199/200`, or -1."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    start = rest.partition("-")[0]
    return int(start) if unit == "bytes" and start.isdecimal() else -1


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold the lock file: of several nodes on one machine, one downloads and the others find the file."""
    with path.open("ab") as file:
        while not _try_lock(file):  # noqa: ASYNC110 - another process holds it, no event tells of that
            await asyncio.sleep(_LOCK_POLL_S)
        yield


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
