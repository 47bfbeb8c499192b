"""`cotrain coordinator serve`, but it is killed (SIGKILL, by itself) when its recorder comes to a named point.

`killed_coordinator.py COMMAND FOLDER ...`: COMMAND is the checkpointer's stand-in as JSON. A file `armed` in the folder
names the point; it becomes `reached`, so the process that comes next finds nothing armed. What follows is for `serve`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from coordinator.chain.entries import Entries
from coordinator.cli import app
from coordinator.settings import Settings

ARMED, REACHED = "armed", "reached"
POINTS = ("signed", "stored", "sent", "noted", "mined", "confirming")
"""In the order of the way: signed and not stored; stored; sent and not noted; noted; seen in a block, and noted; deep
enough, and not noted."""


def strike(folder: Path, point: str) -> None:
    """Die here, if it is this point."""
    armed = folder / ARMED
    if armed.exists() and armed.read_text() == point:
        armed.rename(folder / REACHED)
        os.kill(os.getpid(), signal.SIGKILL)


def around_changes(folder: Path) -> None:
    """Points before and after what is stored, by the state that it leads to."""
    names = {
        "signed": ("signed", "stored"), "sent": ("sent", "noted"), "mined": ("", "mined"),
        "confirmed": ("confirming", ""),
    }  # fmt: skip
    change = Entries.change

    async def struck(self: Entries, number: int, what: Any) -> None:
        reached: list[str] = []

        def apply(row: Any) -> None:
            what(row)
            reached.append(row.state)
            strike(folder, names.get(row.state, ("", ""))[0])

        await change(self, number, apply)
        strike(folder, names.get(reached[0], ("", ""))[1])

    Entries.change = struck  # type: ignore[method-assign]


def main() -> None:
    command, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    around_changes(folder)
    original = Settings.from_env

    def with_double(**given: Any) -> Settings:
        return dataclasses.replace(original(**given), checkpointer_command=tuple(command))

    Settings.from_env = with_double  # type: ignore[method-assign,assignment]
    app(["serve", "--port", "0", "--json", *sys.argv[3:]])


if __name__ == "__main__":
    main()
