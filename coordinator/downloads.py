"""A model's files as a ZIP archive that is made while it is sent: stored, never whole in memory or on disk."""

from __future__ import annotations

import asyncio
import os
import stat
import time
import zipfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cotrain.errors import NotFoundError

CHUNK_BYTES = 1024 * 1024
_SUFFIXES = frozenset({".safetensors", ".json", ".txt", ".model", ".jinja", ".md"})
"""Weights and what stands beside them. Nothing that a program would run on loading, so no pickle."""
_FIRST_YEAR = 1980
"""A ZIP archive knows none before."""


@dataclass(frozen=True)
class ModelFile:
    """An open file of a model: whatever becomes of its folder, its content can be read to the end."""

    name: str
    stream: BinaryIO
    size_bytes: int
    modified_at: float
    """Unix time, seconds."""


def open_model(folder: Path) -> list[ModelFile]:
    """The files of an export, by name; folders and links are left out.

    The caller closes the streams. Raises NotFoundError if there is no such folder, or no weights in it.
    """
    try:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _no_files() from error
    files: list[ModelFile] = []
    try:
        for name in sorted(os.listdir(directory)):
            if Path(name).suffix in _SUFFIXES and (file := _open_file(directory, name)) is not None:
                files.append(file)
    except BaseException:
        close_files(files)
        raise
    finally:
        os.close(directory)
    if not any(file.name.endswith(".safetensors") for file in files):
        close_files(files)
        raise _no_files()
    return files


def close_files(files: Sequence[ModelFile]) -> None:
    """Let go of what `open_model` has opened."""
    for file in files:
        file.stream.close()


def model_size_bytes(folder: Path) -> int:
    """Size of the files that a download would hold; 0 if there is none."""
    try:
        files = open_model(folder)
    except NotFoundError:
        return 0
    close_files(files)
    return sum(file.size_bytes for file in files)


def zip_chunks(files: Sequence[ModelFile]) -> Iterator[bytes]:
    """The archive in pieces of about `CHUNK_BYTES`: each is made when it is asked for."""
    pieces = _Pieces()
    with zipfile.ZipFile(pieces, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.name, _zip_time(file.modified_at))
            entry.external_attr = 0o644 << 16
            entry.file_size = file.size_bytes  # decides whether its header has room for more than 4 GiB
            with archive.open(entry, "w") as target:
                while block := file.stream.read(CHUNK_BYTES):
                    target.write(block)
                    yield pieces.take()
    yield pieces.take()


async def in_threads(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Each chunk made in a thread. Between two of them no thread is held, so that slow receivers take none away."""
    while True:
        step = asyncio.ensure_future(asyncio.to_thread(next, chunks, None))
        try:
            chunk = await asyncio.shield(step)
        except asyncio.CancelledError:
            await asyncio.wait({step})  # the files must not be closed under it
            raise
        if chunk is None:
            return
        yield chunk


class _Pieces:
    """Where the archive is written: it cannot be sought in, and is emptied again and again."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def flush(self) -> None:
        """Everything is taken, not flushed."""

    def close(self) -> None:
        """There is nothing to let go of."""

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


def _open_file(directory: int, name: str) -> ModelFile | None:
    try:
        # whoever has put a pipe there must not make us wait
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:  # a link, or no longer there
        return None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        return None
    return ModelFile(name, os.fdopen(descriptor, "rb"), found.st_size, found.st_mtime)


def _zip_time(seconds: float) -> tuple[int, int, int, int, int, int]:
    year, month, day, hour, minute, second = time.gmtime(seconds)[:6]
    return (year, month, day, hour, minute, second) if year >= _FIRST_YEAR else (_FIRST_YEAR, 1, 1, 0, 0, 0)


def _no_files() -> NotFoundError:
    return NotFoundError(
        "the files of this version are not there any more", field="version",
        hint="GET /api/v1/models/{model} says which versions are available",
    )  # fmt: skip
