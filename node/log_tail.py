"""The training process's log: which one, its last lines, and what is written from then on."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from watchfiles import watch

from cotrain.errors import NotFoundError
from cotrain.paths import SharedPaths
from cotrain.peer_key import PeerSigner
from node.admission import PEER_KEY
from node.lock import read_agent
from node.supervisor import LOG_NAME

_BLOCK_BYTES = 1024 * 1024
"""Of the end of a log, in which the last lines are looked for."""
_DEBOUNCE_MS = 50
_STEP_MS = 10
_LOOK_MS = 1000
"""Longest time between two looks at the file, where the kernel tells of no change."""


def find_log(home: Path, shared: SharedPaths) -> Path:
    """The log of the running agent's training process, else the newest that this node has left.

    Raises NotFoundError if there is none.
    """
    if (agent := read_agent(home)) is not None and (agent.run_dir / LOG_NAME).exists():
        return agent.run_dir / LOG_NAME
    logs: list[Path] = []
    if (home / PEER_KEY).exists():
        logs = list(shared.training_logs.glob(f"*/{PeerSigner(home / PEER_KEY).peer_id}/{LOG_NAME}"))
    if not logs:
        raise NotFoundError(
            "this node has no log yet", field=str(shared.training_logs),
            hint="a training process writes one: cotrain node join URL",
        )  # fmt: skip
    return max(logs, key=lambda path: path.stat().st_mtime)


class LogReader:
    """Reads a log from its last lines on, and goes on in the file that takes its place."""

    def __init__(self, path: Path, *, lines: int):
        """`lines`: how many of those that are there to begin with, at most; those of the last 1 MiB are found."""
        self._path = path
        self._file = path.open("rb")
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._file.seek(_start_of_last(self._file, lines))

    def read(self) -> str:
        """What has been written since the last call."""
        content = self._file.read()
        if self._is_replaced():
            content += self._file.read()  # written before it was replaced
            self.close()
            self._file = self._path.open("rb")
            content += self._file.read()
        return self._decoder.decode(content)

    def close(self) -> None:
        self._file.close()

    def _is_replaced(self) -> bool:
        try:
            return self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:  # moved away, and the new one is not there yet
            return False


def follow_log(path: Path, *, lines: int, forever: bool) -> Iterator[str]:
    """The last lines of a log, and, if wished, for ever what is written from then on."""
    reader = LogReader(path, lines=lines)
    try:
        yield reader.read()
        if not forever:
            return
        changes = watch(
            path.parent, recursive=False, debounce=_DEBOUNCE_MS, step=_STEP_MS, rust_timeout=_LOOK_MS,
            yield_on_timeout=True,
        )  # fmt: skip
        for _ in changes:
            if text := reader.read():
                yield text
    finally:
        reader.close()


def _start_of_last(file: BinaryIO, lines: int) -> int:
    """Where in a file its last lines begin; a line that is not ended yet is one, too."""
    size = file.seek(0, os.SEEK_END)
    if lines == 0:
        return size
    start = max(0, size - _BLOCK_BYTES)
    file.seek(start)
    block = file.read(size - start)
    place = len(block) - 1 if block.endswith(b"\n") else len(block)
    for _ in range(lines):
        place = block.rfind(b"\n", 0, place)
        if place < 0:
            return start
    return start + place + 1
